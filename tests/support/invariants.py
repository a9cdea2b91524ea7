"""What must hold in every store at every moment, asked in plain SQL, apart from the code that keeps it so."""

from typing import Any

from sqlalchemy import text

from yaptide.domain.states import SIMULATION_TRANSITIONS, TASK_TRANSITIONS
from yaptide.persistence import codec
from yaptide.persistence.engine import Database

FINAL = "('COMPLETED', 'FAILED', 'CANCELED')"

#: Each query finds the rows that must not be.
QUERIES = {
    "an ended simulation has an open task": f"""
        SELECT s.id, t.task_id FROM "Simulation" s JOIN "Task" t ON t.simulation_id = s.id
        WHERE s.job_state IN {FINAL} AND t.task_state NOT IN {FINAL}""",
    "an ended simulation has no end": f"""
        SELECT id FROM "Simulation" WHERE (job_state IN {FINAL}) <> (end_time IS NOT NULL)""",
    "an ended task has no end": f"""
        SELECT id FROM "Task" WHERE (task_state IN {FINAL}) <> (end_time IS NOT NULL)""",
    "a completed simulation has a task that is not": """
        SELECT s.id FROM "Simulation" s JOIN "Task" t ON t.simulation_id = s.id
        JOIN "Estimator" e ON e.simulation_id = s.id
        WHERE s.job_state = 'COMPLETED' AND t.task_state <> 'COMPLETED'
        AND NOT EXISTS (SELECT 1 FROM "StateHistory" h WHERE h.simulation_id = s.id AND h.task_id IS NULL
                        AND h.to_state = 'COMPLETED' AND h.actor = 'worker')""",
    "a completed task has not simulated what was asked": """
        SELECT id FROM "Task" WHERE task_state = 'COMPLETED' AND simulated_primaries <> requested_primaries""",
    "more was simulated than asked": 'SELECT id FROM "Task" WHERE simulated_primaries > requested_primaries',
    "an estimator has no page": """
        SELECT id FROM "Estimator" e WHERE NOT EXISTS (SELECT 1 FROM "Page" p WHERE p.estimator_id = e.id)""",
    "a simulation has no input": """
        SELECT id FROM "Simulation" s WHERE NOT EXISTS (SELECT 1 FROM "Input" i WHERE i.simulation_id = s.id)""",
    "a simulation has no task": """
        SELECT id FROM "Simulation" s WHERE NOT EXISTS (SELECT 1 FROM "Task" t WHERE t.simulation_id = s.id)""",
    "a simulation lacks its row of the platform": """
        SELECT id FROM "Simulation" s WHERE NOT EXISTS (SELECT 1 FROM "CelerySimulation" c WHERE c.id = s.id)""",
    "a task lacks its row of the platform": """
        SELECT id FROM "Task" s WHERE NOT EXISTS (SELECT 1 FROM "CeleryTask" c WHERE c.id = s.id)""",
    "a row has lost its parent": """
        SELECT id FROM "Task" WHERE simulation_id NOT IN (SELECT id FROM "Simulation")
        UNION ALL SELECT id FROM "Input" WHERE simulation_id NOT IN (SELECT id FROM "Simulation")
        UNION ALL SELECT id FROM "Estimator" WHERE simulation_id NOT IN (SELECT id FROM "Simulation")
        UNION ALL SELECT id FROM "Page" WHERE estimator_id NOT IN (SELECT id FROM "Estimator")
        UNION ALL SELECT id FROM "Logfiles" WHERE simulation_id NOT IN (SELECT id FROM "Simulation")
        UNION ALL SELECT id FROM "StateHistory" WHERE simulation_id NOT IN (SELECT id FROM "Simulation")
        UNION ALL SELECT id FROM "CeleryTask" WHERE id NOT IN (SELECT id FROM "Task")
        UNION ALL SELECT id FROM "CelerySimulation" WHERE id NOT IN (SELECT id FROM "Simulation")""",
    "the bytes are counted wrong": """
        SELECT s.id FROM "Simulation" s WHERE s.stored_bytes <>
            (SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "Input" WHERE simulation_id = s.id)
          + (SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "Estimator" WHERE simulation_id = s.id)
          + (SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "Logfiles" WHERE simulation_id = s.id)
          + (SELECT COALESCE(SUM(LENGTH(p.compressed_data)), 0) FROM "Page" p
             JOIN "Estimator" e ON e.id = p.estimator_id WHERE e.simulation_id = s.id)""",
}

_HISTORY = """
    SELECT h.simulation_id, h.task_id, h.from_state, h.to_state FROM "StateHistory" h ORDER BY h.simulation_id, h.id"""
_STATES = """
    SELECT id, NULL, job_state FROM "Simulation" UNION ALL SELECT simulation_id, task_id, task_state FROM "Task" """
_PAYLOADS = """
    SELECT compressed_data FROM "Input" UNION ALL SELECT compressed_data FROM "Estimator"
    UNION ALL SELECT compressed_data FROM "Page" UNION ALL SELECT compressed_data FROM "Logfiles" """


def broken_invariants(database: Database) -> list[str]:
    """One line for each thing that is wrong in the store; empty if nothing is."""
    with database.reading() as connection:
        found = [
            f"{what}: {row}"
            for what, query in QUERIES.items()
            for row in map(tuple, connection.execute(text(query)).fetchmany(5))
        ]
        found += _broken_history(connection.execute(text(_HISTORY)).all(), connection.execute(text(_STATES)).all())
        for (data,) in connection.execute(text(_PAYLOADS)):
            codec.decode_payload(data)
    return found


def _broken_history(history: Any, states: Any) -> list[str]:
    """The history of each thing is a chain of allowed moves from nothing to its present state, into each state once."""
    found = []
    last: dict[Any, str] = {}
    ends: dict[Any, int] = {}
    for simulation, task, before, after in history:
        key = (simulation, task)
        table = SIMULATION_TRANSITIONS if task is None else TASK_TRANSITIONS
        if last.get(key) != before:
            found.append(f"history of {key}: {before} -> {after} follows {last.get(key)}")
        if before == after:  # a remark, not a move
            continue
        if before is not None and after not in table[before]:
            found.append(f"history of {key}: {before} -> {after} is not allowed")
        last[key] = after
        ends[key] = ends.get(key, 0) + (after in ("COMPLETED", "FAILED", "CANCELED"))
        if ends[key] > 1:
            found.append(f"history of {key}: it ended twice")
    found += [
        f"{(s, t)} is {state}, its history says {last.get((s, t))}"
        for s, t, state in states
        if last.get((s, t)) != state
    ]
    return found

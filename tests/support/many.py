"""A store with very many finished simulations, created by the database, and the costs of statements in it."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from yaptide.persistence.engine import Database

#: Tables that grow with every simulation.
GROWING = {
    *("Simulation", "CelerySimulation", "BatchSimulation", "StateHistory", "Task", "CeleryTask", "BatchTask"),
    "BatchArray",
    *("Input", "Estimator", "Page", "Logfiles", "SubmissionKey"),
}
#: Indexes of the few rows that still need work: reading one completely does not count as a scan.
SMALL = {"ix_Simulation_open", "ix_Task_waiting", "ix_BatchSimulation_left"}

_FIRST = 1000  # lower ids are for rows that exist already
_ROWS = """
INSERT INTO "Simulation" (id, job_id, user_id, start_time, end_time, title, platform, input_type, sim_type, job_state)
    SELECT n, 'job-' || n, CASE WHEN n % 4 < 2 THEN :user ELSE :other END, {time}, {time}, 't',
    CASE WHEN n % 2 = 0 THEN 'DIRECT' ELSE 'BATCH' END, 'FILES',
    'mcsquare', CASE n % 10000 WHEN 0 THEN 'FAILED' WHEN 1 THEN 'CANCELED' ELSE 'COMPLETED' END FROM {numbers};
INSERT INTO "CelerySimulation" (id) SELECT n FROM {numbers} WHERE n % 2 = 0;
INSERT INTO "BatchSimulation" (id, cluster_id, options) SELECT n, 1, '{{}}' FROM {numbers} WHERE n % 2 = 1;
INSERT INTO "Task" (id, simulation_id, task_id, requested_primaries, simulated_primaries, task_state, platform,
    attempts, owner, heartbeat_time, start_time, end_time) SELECT n, n, 0, 10, 10, CASE n % 10000 WHEN 0 THEN 'FAILED'
    WHEN 1 THEN 'CANCELED' ELSE 'COMPLETED' END, CASE WHEN n % 2 = 0 THEN 'DIRECT' ELSE 'BATCH' END, 1, 'place/x',
    {time}, {time}, {time} FROM {numbers};
INSERT INTO "CeleryTask" (id, celery_id) SELECT n, 'message-' || n FROM {numbers} WHERE n % 2 = 0;
INSERT INTO "BatchTask" (id) SELECT n FROM {numbers} WHERE n % 2 = 1;
INSERT INTO "StateHistory" (id, simulation_id, to_state, time, actor) SELECT n, n, 'COMPLETED', {time}, 'x'
    FROM {numbers};
INSERT INTO "Input" (id, simulation_id, content_size, content_sha256, compressed_data)
    SELECT n, n, 1, '', {empty} FROM {numbers};
INSERT INTO "Estimator" (id, simulation_id, name, file_name, content_size, content_sha256, compressed_data)
    SELECT n, n, 'dose', 'dose_', 1, '', {empty} FROM {numbers};
INSERT INTO "Page" (id, estimator_id, page_number, page_name, page_dimension, content_size, content_sha256,
    compressed_data) SELECT n, n, 0, 'DOSE', 1, 1, '', {empty} FROM {numbers};
INSERT INTO "Logfiles" (id, simulation_id, content_size, content_sha256, compressed_data)
    SELECT n, n, 1, 'digest', {empty} FROM {numbers} WHERE n % 4 = 0;
INSERT INTO "SubmissionKey" (id, user_id, key, content_sha256, simulation_id, job_id, sim_type, time)
    SELECT n, :user, 'key-' || n, '', n, 'job-' || n, 'mcsquare', '2900-01-01 00:00:00.000000' FROM {numbers};
"""


def fill(database: Database, user_id: int, other_id: int, count: int) -> None:
    """Add so many simulations, half of them of each of two users. All have ended, nearly all of them completed."""
    first, last = _FIRST, _FIRST + count - 1
    owners = {"user": user_id, "other": other_id}
    if database.is_sqlite:
        more = f"SELECT {first} AS n UNION ALL SELECT n + 1 FROM every WHERE n < {last}"
        words = {
            "numbers": f"(WITH RECURSIVE every AS ({more}) SELECT n FROM every) AS numbers",
            "time": "datetime('2026-01-01', n || ' minutes') || '.000000'",
            "empty": "x'00'",
        }
    else:
        words = {
            "numbers": f"generate_series({first}, {last}) AS numbers (n)",
            "time": "timestamptz '2026-01-01Z' + n * interval '1 minute'",
            "empty": "'\\x00'::bytea",
        }
    with database.migrating() as connection:  # checks foreign keys once instead of for each row
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("""INSERT INTO "Cluster" (id, cluster_name) VALUES (1, 'ares')"""))
        for statement in _ROWS.format(first=first, **words).split(";\n"):
            if statement.strip():
                connection.execute(text(statement), owners if ":user" in statement else {})
        if not database.is_sqlite:
            _go_on(connection)
    if not database.is_sqlite:
        with database.autocommit() as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as autovacuum would


def _go_on(connection: Connection) -> None:
    """Move the sequences behind the added rows."""
    for table in ("Simulation", "Task", "StateHistory", "Input", "Estimator", "Page", "Logfiles", "SubmissionKey"):
        sequence = f"""pg_get_serial_sequence('"{table}"', 'id')"""
        connection.execute(text(f'SELECT setval({sequence}, (SELECT max(id) FROM "{table}"))'))


@dataclass
class Statement:
    """An executed statement: its cause, the scans of growing tables in its plan, and its cost.

    `steps` are steps of SQLite's virtual machine; for PostgreSQL the rows read by all nodes of the plan.
    """

    cause: str
    text: str
    scans: list[str]
    steps: int = 0


@dataclass
class Watch:
    """Records every statement that a database executes."""

    database: Database
    statements: list[Statement] = field(default_factory=list)
    causes: set[str] = field(default_factory=set)
    _cause: str = ""

    def begin(self, cause: str) -> None:
        """Set the cause of the following statements."""
        self._cause = cause
        self.causes.add(cause)

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        """Record all statements in the block."""
        event.listen(Engine, "before_cursor_execute", self._note)
        try:
            yield self
        finally:
            event.remove(Engine, "before_cursor_execute", self._note)
            self._forget()

    def _note(self, connection: Connection, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement):
            return
        driver = connection.connection.driver_connection
        first = values[0] if many and values else values
        if self.database.is_sqlite:
            recorded = Statement(self._cause, statement, _scans_of_sqlite(driver, statement, first))
            self.statements.append(recorded)

            def count() -> int:
                recorded.steps += 1
                return 0

            driver.set_progress_handler(count, 1)  # also while rows are fetched, until the next statement
        else:
            scans, read = _scans_of_postgresql(driver, statement, first)
            self.statements.append(Statement(self._cause, statement, scans, read))

    def _forget(self) -> None:
        if self.database.is_sqlite:
            for engine in (self.database.engine, self.database._autocommit):
                with engine.connect() as connection:
                    connection.connection.driver_connection.set_progress_handler(None, 0)


def _scans_of_sqlite(driver: Any, statement: str, values: Any) -> list[str]:
    driver.set_progress_handler(None, 0)
    lines = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    return [line for line in lines if _is_scan(line, statement)]


def _is_scan(line: str, statement: str) -> bool:
    """Return whether a line of SQLite's plan reads a whole growing table."""
    match = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
    if match is None or match[2] in SMALL:
        return False
    alias = re.search(rf'"?(\w+)"? AS "?{match[1]}"?', statement)
    return (alias[1] if alias else match[1]) in GROWING


def _scans_of_postgresql(driver: Any, statement: str, values: Any) -> tuple[list[str], int]:
    """Run a statement to get its plan, and roll back its changes."""
    begin, back = ("BEGIN", "ROLLBACK") if driver.autocommit else ("SAVEPOINT plan", "ROLLBACK TO plan")
    with driver.cursor() as cursor:
        cursor.execute(begin)
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
        (plan_json,) = cursor.fetchone()
        cursor.execute(back)
    plan = plan_json if isinstance(plan_json, list) else json.loads(plan_json)
    nodes = list(_nodes([plan[0]["Plan"]]))
    scans = [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in nodes
        if "Seq Scan" in node["Node Type"] and node.get("Relation Name") in GROWING
    ]
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
        * node["Actual Loops"]
        for node in nodes
    )
    return scans, int(read)


def _nodes(plans: Sequence[Any]) -> Iterator[Any]:
    for plan in plans:
        yield plan
        yield from _nodes(plan.get("Plans", []))

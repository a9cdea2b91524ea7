"""A storm: processes that submit, report, send results, run, merge, cancel, delete and sweep at once on one store.

Each process plays one *role*. It repeats its step until it is killed with SIGKILL (then another one starts), and
records what the store has acknowledged in its own journal. At the end the journals are compared with the store.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.stress.roles import OURS, play_role
from tests.support.invariants import broken_invariants
from yaptide.persistence import codec, schema
from yaptide.persistence.engine import Database

#: Number of processes per role.
CREW = {"submitter": 1, "reporter": 3, "sender": 2, "runner": 2, "canceller": 1, "deleter": 1, "sweeper": 1}
KILL_EVERY = 0.5
PATIENCE = 120.0

#: Actions that must appear in the journals.
DEEDS = {"submit", "report", "results", "complete", "merge", "cancel", "delete"}

# A fork server that has imported everything starts processes quickly.
_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.stress.roles"])

Report = dict[str, Any]


def run_storm(url: str, folder: Path, seconds: float, seed: int) -> Report:
    """Run a storm on the database at `url` for `seconds`; return what was done, how often, and what is wrong."""
    folder.mkdir(parents=True)
    database = Database(url)
    schema.upgrade_tables(database)
    draw = random.Random(seed)
    crew = [(role, _start(role, url, folder, seed + number)) for role, count in CREW.items() for number in range(count)]
    begun, kills = time.monotonic(), 0
    while time.monotonic() < begun + seconds or not _all_done(folder, begun + seconds + PATIENCE):
        time.sleep(KILL_EVERY)
        place = draw.randrange(len(crew))
        role, process = crew[place]
        process.kill()
        process.join()
        kills += 1
        crew[place] = (role, _start(role, url, folder, draw.randrange(2**31)))
    failed = [role for role, process in crew if not process.is_alive()]
    for _, process in crew:
        process.kill()
        process.join()
    done = Counter(entry["did"] for entry in _journals(folder))
    wrong = [f"a {role} crashed" for role in failed] + broken_invariants(database) + _broken_promises(database, folder)
    with database.reading() as connection:
        states = dict(map(tuple, connection.execute(text('SELECT job_state, COUNT(*) FROM "Simulation" GROUP BY 1'))))
    database.close()
    return {
        "seconds": round(time.monotonic() - begun),
        "kills": kills,
        "acknowledged": dict(sorted(done.items())),
        "left": states,
        "wrong": wrong,
    }


def _all_done(folder: Path, deadline: float) -> bool:
    """Return whether every action occurs in the journals, or the deadline has passed: busy machines take longer."""
    return {entry["did"] for entry in _journals(folder)} >= DEEDS or time.monotonic() > deadline


def _start(role: str, url: str, folder: Path, seed: int) -> ForkServerProcess:
    process = _PROCESSES.Process(target=play_role, args=(role, url, folder, seed), daemon=True)
    process.start()
    return process


def _journals(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every entry of every journal; a killed process may leave an incomplete last line."""
    for path in folder.glob("*.journal"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


def _broken_promises(database: Database, folder: Path) -> list[str]:
    """Return what the store has acknowledged, but does not contain."""
    with database.reading() as connection:
        rows = connection.execute(text('SELECT id, job_state FROM "Simulation"'))
        simulations: dict[int, str] = dict(map(tuple, rows))
        rows = connection.execute(text('SELECT simulation_id, task_id, task_state, simulated_primaries FROM "Task"'))
        tasks = {(simulation, task): (state, simulated) for simulation, task, state, simulated in rows}
        rows = connection.execute(
            text(
                'SELECT e.simulation_id, COUNT(*) FROM "Estimator" e JOIN "Page" p ON p.estimator_id = e.id GROUP BY 1'
            )
        )
        pages: dict[int, int] = dict(map(tuple, rows))
    entries = list(_journals(folder))
    deleted = {entry["simulation"] for entry in entries if entry["did"] == "delete"}
    wrong = [f"{number} was deleted and is there" for number in deleted & simulations.keys()]
    # A deleter killed between the commit and its journal leaves no entry, so a missing simulation is not a loss.
    for entry in entries:
        number = entry["simulation"]
        if number not in simulations:
            continue
        if "pages" in entry and pages.get(number) != entry["pages"]:
            wrong.append(f"{number} was acknowledged with {entry['pages']} pages, but has {pages.get(number)}")
        if entry.get("state") in ("COMPLETED", "FAILED", "CANCELED"):
            now = tasks[number, entry["task"]][0] if "task" in entry else simulations[number]
            if now != entry["state"]:
                wrong.append(f"{entry} was acknowledged, but it is {now}")
        if "simulated" in entry and tasks[number, entry["task"]][1] < entry["simulated"]:
            wrong.append(f"{entry} was acknowledged, but it is {tasks[number, entry['task']][1]}")
    wrong += [
        f"{number} has {count} pages, neither all nor none" for number, count in pages.items() if count not in (1, 6)
    ]
    return (wrong + _miscounted(database))[:20]


def _miscounted(database: Database) -> list[str]:
    """Return merged results that do not contain each completed task exactly once."""
    query = text("""
        SELECT e.simulation_id, e.compressed_data,
               (SELECT SUM(t.simulated_primaries) FROM "Task" t
                WHERE t.simulation_id = e.simulation_id AND t.task_state = 'COMPLETED')
        FROM "Estimator" e JOIN "Simulation" s ON s.id = e.simulation_id WHERE s.sim_type = :ours""")
    wrong = []
    with database.reading() as connection:
        for number, metadata, completed in connection.execute(query, {"ours": OURS}):
            counted = int(codec.decode_payload(metadata)["number_of_primaries"])
            if counted != completed:
                wrong.append(f"the results of {number} contain {counted} primaries, its completed tasks {completed}")
    return wrong

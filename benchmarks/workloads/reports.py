"""Workers report how far they are: one task in a request, by one client and by eight, and many tasks in one request."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import orjson

from benchmarks.context import Context
from benchmarks.crew import Crew
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store, connect
from benchmarks.wire import Wire
from yaptide.services import lifecycle

#: The update that a report is, guarded as ours: only of a running task, by who has the key, and never backwards.
GUARDED = """
UPDATE "Task" SET simulated_primaries = CASE WHEN ? <= simulated_primaries THEN simulated_primaries
        WHEN ? > requested_primaries THEN requested_primaries ELSE ? END,
    estimated_time = ?, last_update_time = ?, heartbeat_time = ?
WHERE simulation_id = ? AND task_id = ? AND task_state = 'RUNNING' AND EXISTS (
    SELECT 1 FROM "Simulation" WHERE id = ? AND update_key_hash = ?
    AND job_state NOT IN ('COMPLETED', 'FAILED', 'CANCELED'))
"""
_TASKS = 100


def rows(context: Context) -> Iterator[Row]:
    """Measure them on each database."""
    for store in context.stores():
        for clients in (1, 8):
            yield _single(context, store, clients)
        yield _many(context, store)


def _single(context: Context, store: Store, clients: int) -> Row:
    numbers = store.simulations(clients, _TASKS)
    each = context.size(200 // clients, 5)
    ours: list[float] = []
    limit: list[float] = []
    with (
        Crew(clients, reporter, store.server.url, numbers) as reporters,
        Crew(clients, updater, store.url, numbers) as updaters,
    ):
        for crew in (reporters, updaters):
            crew.run(each)
        for _ in range(context.rounds(15)):
            for crew, samples in ((reporters, ours), (updaters, limit)):
                # Of as many clients at once, each call's share of the time of all.
                samples.append(sum(crew.run(each)) / each / clients**2)
    told = f"POST /tasks, progress, {clients} client{'s' if clients > 1 else ''}"
    return Row(told, store.kind, ours, limit, Goal("share", 0.35))


def reporter(number: int, url: str, simulations: list[int]) -> Callable[[int], Any]:
    """A worker's reports."""
    wire = Wire(url)

    def report(turn: int) -> None:
        update = {"task_state": "RUNNING", "simulated_primaries": turn + 1, "estimated_time": 60}
        body = {"simulation_id": simulations[number], "task_id": turn % _TASKS, "update_key": KEY}
        wire.send(wire.request("POST", "/tasks", orjson.dumps({**body, "update_dict": update})), 202)

    return report


def updater(number: int, url: str, simulations: list[int]) -> Callable[[int], Any]:
    """The same by the driver alone."""
    connection = connect(url)
    is_sqlite = url.startswith("sqlite")
    statement = GUARDED if is_sqlite else GUARDED.replace("?", "%s")
    if is_sqlite:
        connection.isolation_level = None
    else:
        connection.autocommit = True

    def update(turn: int) -> None:
        if is_sqlite:
            connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement, values(simulations[number], turn % _TASKS, turn + 1, is_sqlite))
        if is_sqlite:
            connection.execute("COMMIT")

    return update


def values(simulation: int, task: int, simulated: int, as_text: bool) -> tuple[Any, ...]:
    """What GUARDED is given."""
    now: Any = datetime.now(UTC)
    if as_text:
        now = str(now.replace(tzinfo=None))
    hashed = lifecycle.hash_update_key(KEY)
    return (simulated, simulated, simulated, 60, now, now, simulation, task, simulation, hashed)


def _many(context: Context, store: Store) -> Row:
    count = context.size(1000, 50)
    [number] = store.simulations(1, count)
    turn = 0
    with closing(store.wire()) as wire, closing(store.connect()) as connection:

        def ours() -> None:
            nonlocal turn
            turn += 1
            updates = [
                {"task_id": task, "update_dict": {"simulated_primaries": turn, "estimated_time": 60}}
                for task in range(count)
            ]
            body = orjson.dumps({"simulation_id": number, "update_key": KEY, "updates": updates})
            wire.send(wire.request("POST", "/tasks/list", body), 202)

        def limit() -> None:
            nonlocal turn
            turn += 1
            with closing(connection.cursor()) as cursor:
                cursor.executemany(
                    store.sql(GUARDED), [values(number, task, turn, store.is_sqlite) for task in range(count)]
                )
            connection.commit()

        taken = in_turns(context.rounds(15), ours, limit)
    return Row(f"POST /tasks/list, progress of {count} tasks", store.kind, *taken, Goal("share", 0.5))

"""Workers report how far they are: one task in a request, by one client and by eight, and many tasks in one request."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import orjson

from benchmarks.context import Context
from benchmarks.load import LoadGenerator
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store
from benchmarks.wire import Wire

_BESIDE = "bare: one guarded UPDATE, which does not wait for the disk"
_BESIDE_MANY = "bare: one guarded UPDATE of all the tasks"
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
        LoadGenerator(clients, reporter, store.server.url, numbers) as reporters,
        LoadGenerator(clients, reporter, store.bare.url, numbers) as others,
    ):
        for load in (reporters, others):
            load.run(each)
        for _ in range(context.rounds(15)):
            for load, samples in ((reporters, ours), (others, limit)):
                # Of as many clients at once, each call's share of the time of all.
                samples.append(sum(load.run(each)) / each / clients**2)
    name = f"POST /tasks, progress, {clients} client{'s' if clients > 1 else ''}"
    return Row(name, store.kind, ours, limit, Goal("share", 0.35), _BESIDE)


def reporter(number: int, url: str, simulations: list[int]) -> Callable[[int], Any]:
    """A worker's reports."""
    wire = Wire(url)

    def report(turn: int) -> None:
        update = {"task_state": "RUNNING", "simulated_primaries": turn + 1, "estimated_time": 60}
        body = {"simulation_id": simulations[number], "task_id": turn % _TASKS, "update_key": KEY}
        wire.send(wire.request("POST", "/tasks", orjson.dumps({**body, "update_dict": update})), 202)

    return report


def _many(context: Context, store: Store) -> Row:
    count = context.size(1000, 50)
    [number] = store.simulations(1, count)
    turn = 0
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:

        def send(wire: Wire) -> None:
            nonlocal turn
            turn += 1
            updates = [
                {"task_id": task, "update_dict": {"simulated_primaries": turn, "estimated_time": 60}}
                for task in range(count)
            ]
            body = orjson.dumps({"simulation_id": number, "update_key": KEY, "updates": updates})
            wire.send(wire.request("POST", "/tasks/list", body), 202)

        taken = in_turns(context.rounds(15), partial(send, wire), partial(send, bare))
    name = f"POST /tasks/list, progress of {count} tasks"
    return Row(name, store.kind, *taken, Goal("share", 0.5), _BESIDE_MANY)

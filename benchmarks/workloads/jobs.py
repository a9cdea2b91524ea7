"""What users do all day: list, follow, submit, delete; one at a time, and 200 browsers at once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import orjson

from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store
from benchmarks.wire import Wire
from tests.support.payloads import shieldhit_files

_BROWSERS = 200
_OPEN = 5
_EVERY = 1.5
_BESIDE_SELECT = "bare: one SELECT, its rows as JSON"
_BESIDE_SUBMIT = "bare: an INSERT for each of three tables, all tasks in one"
_LISTED = "RUNNING,PENDING,MERGING_QUEUED,MERGING_RUNNING,COMPLETED,FAILED,CANCELED"


def rows(context: Context) -> Iterator[Row]:
    """Measure them on each database."""
    for store in context.large_stores():
        yield from _listing(context, store)
    for store in context.stores():
        for count in (1, 100, context.size(1000, 200), context.size(10_000, 300)):
            yield _status(context, store, count)
        for count in (1, 100, context.size(1000, 200)):
            yield _submit(context, store, count)
        yield _delete(context, store, context.size(1000, 100))
        yield _browsers(context, store)


def _listing(context: Context, store: Store) -> Iterator[Row]:
    taken: dict[str, tuple[list[float], list[float]]] = {}
    rounds = context.rounds(40)
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:
        requests = {}
        for number, name in enumerate(store.users, start=1):
            path = (
                f"/user/simulations?page_idx=1&page_size=10&order_by=start_time&order_type=descend&job_state={_LISTED}"
            )
            limit = bare.request("GET", f"/user/simulations?user={number}")
            requests[name] = (wire.request("GET", path, Cookie=store.token(name)), limit)
            taken[name] = ([], [])
        for _ in range(rounds):  # all of them in each round, so that they can be compared
            for name, (request, limit) in requests.items():
                once = in_turns(1, partial(wire.send, request), partial(bare.send, limit))
                taken[name][0].extend(once[0])
                taken[name][1].extend(once[1])
    for name, (ours, bares) in taken.items():
        yield Row(f"GET /user/simulations, 10 of {int(name[4:]):,}", store.kind, ours, bares, beside=_BESIDE_SELECT)
    (few, (of_few, _)), (usual, (of_usual, _)), *_ = taken.items()
    name = f"GET /user/simulations, {int(usual[4:]):,} beside {int(few[4:]):,}"
    yield Row(name, store.kind, of_usual, of_few, Goal("factor", 1.3), "ours, of the user with the fewest")


def _status(context: Context, store: Store, count: int) -> Row:
    [number] = store.simulations(1, count)
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:
        request = wire.request("GET", f"/jobs?job_id={store.job_id(number)}", Cookie=store.token())
        limit = bare.request("GET", f"/jobs?simulation={number}")
        taken = in_turns(context.rounds(25), partial(wire.send, request), partial(bare.send, limit))
    name = f"GET /jobs, {count:,} task{'s' if count > 1 else ''}"
    return Row(name, store.kind, *taken, Goal("factor", 1.5), _BESIDE_SELECT)


def _submit(context: Context, store: Store, count: int) -> Row:
    body = {"input_type": "files", "ntasks": count, "sim_type": "shieldhit", "title": "bench"}
    body |= {"input_files": shieldhit_files(10**6)}
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:
        request = wire.request("POST", "/jobs/direct", orjson.dumps(body), Cookie=store.token())
        limit = bare.request("POST", "/jobs/direct?user=1", orjson.dumps(body))
        taken = in_turns(context.rounds(15), partial(wire.send, request, 202), partial(bare.send, limit, 202))
    name = f"POST /jobs/direct, {count:,} task{'s' if count > 1 else ''}"
    return Row(name, store.kind, *taken, Goal("factor", 2.0), _BESIDE_SUBMIT)


def _delete(context: Context, store: Store, count: int) -> Row:
    rounds = context.rounds(9)
    numbers = _with_results(store, 2 * (rounds + 1), count)
    names = {number: store.job_id(number) for number in numbers}
    left = iter(numbers)
    cookie = store.token()
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:

        def ours() -> None:
            path = f"/user/simulations?job_id={names[next(left)]}"
            wire.send(wire.request("DELETE", path, Cookie=cookie))

        def limit() -> None:
            bare.send(bare.request("DELETE", f"/user/simulations?simulation={next(left)}"))

        taken = in_turns(rounds, ours, limit)
    name = f"DELETE /user/simulations, {count:,} tasks and {count:,} pages"
    return Row(name, store.kind, *taken, Goal("factor", 1.3), "bare: one DELETE")


def _with_results(store: Store, count: int, size: int) -> list[int]:
    """Completed simulations with so many tasks and pages."""
    numbers = store.simulations(count, size)
    page = {"dimensions": 0, "data": {"name": "dose", "unit": "Gy", "values": [0.5]}}
    pages = [{**page, "metadata": {"page_number": str(number)}} for number in range(size)]
    with closing(store.wire()) as wire:
        for number in numbers:
            found = [{"name": "e0", "metadata": {}, "pages": pages}]
            body = orjson.dumps({"simulation_id": number, "update_key": KEY, "estimators": found})
            wire.send(wire.request("POST", "/results", body), 202)
    return numbers


def _browsers(context: Context, store: Store) -> Row:
    """Browsers that show five open simulations each ask for each of them every 1.5 s (not all at the same moment)."""
    browsers = context.size(_BROWSERS, 10)
    seconds = context.size(20, 3)
    names = [store.job_id(number) for number in store.simulations(_OPEN, 10)]
    cookie = store.token()
    taken: list[float] = []
    begun = time.monotonic() + 0.5

    def browse(number: int) -> list[float]:
        with closing(store.wire()) as wire:
            return _poll(wire, [wire.request("GET", f"/jobs/direct?job_id={n}", Cookie=cookie) for n in names], number)

    def _poll(wire: Wire, requests: list[bytes], number: int) -> list[float]:
        found: list[float] = []
        due = begun + _EVERY * number / browsers
        while due < begun + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            for request in requests:
                # From when it was due: a browser that has to wait for its last answer has waited.
                asked = max(due, time.monotonic() - _EVERY)
                wire.send(request)
                found.append(time.monotonic() - asked)
            due += _EVERY
        return found

    with ThreadPoolExecutor(browsers) as pool:
        for found in pool.map(browse, range(browsers)):
            taken += found
    return Row(f"{browsers} browsers with {_OPEN} open simulations each", store.kind, taken, goal=Goal("p95", 0.1))

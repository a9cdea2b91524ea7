"""Storing results: as JSON, and as the file that yaptide's workers send."""

import io
import math
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store
from benchmarks.wire import Wire
from yaptide.persistence import codec, result_files
from yaptide.persistence.payload import NewEstimator, NewPage

_OWNER = "bench/worker"
_BESIDE = "bare: pages split by msgspec, packed by isal, INSERTs"
_BESIDE_PACKED = "bare: the payloads as they come, INSERTs"


@dataclass(frozen=True)
class Shape:
    """A number of estimators, pages per estimator, and the grid of a page."""

    estimators: int
    pages: int
    grid: tuple[int, ...]

    @property
    def values(self) -> int:
        """Number of values in a page."""
        return math.prod(self.grid)

    @property
    def name(self) -> str:
        """Description for the table."""
        count = f"{self.values:,} values"
        return f"1 page of {count}" if self.pages == 1 else f"{self.estimators} x {self.pages} pages of {count}"

    def make_pages(self) -> list[dict[str, Any]]:
        """Return the pages of an estimator: random doubles from one seed."""
        draw = random.Random(self.values)  # noqa: S311 - reproducible
        values = [draw.random() for _ in range(self.values)]
        axes = {
            f"axis_dim{number}": {"name": "x", "unit": "mm", "values": [n + 0.5 for n in range(size)]}
            for number, size in enumerate(self.grid, start=1)
        }
        return [
            {
                "dimensions": len(self.grid),
                "data": {"name": "dose", "unit": "Gy", "values": values[number:] + values[:number]},
                **axes,
                "metadata": {"page_number": str(number), "name": "dose", "unit": "Gy"},
            }
            for number in range(self.pages)
        ]


def list_shapes(context: Context) -> tuple[Shape, Shape]:
    """Return the two shapes of results that are measured."""
    side, square = context.size(100, 20), context.size(100, 20)
    return Shape(1, 1, (side, side, side)), Shape(10, 10, (square, square))


def rows(context: Context) -> Iterator[Row]:
    """Measure them on each database."""
    for shape in list_shapes(context):
        pages = shape.make_pages()
        estimators = [{"name": f"e{n}", "metadata": {"a": "b"}, "pages": pages} for n in range(shape.estimators)]
        for store in context.stores():
            yield _json(context, store, shape, estimators)
        for store in context.stores():
            yield _compressed(context, store, shape, pages)


def _json(context: Context, store: Store, shape: Shape, estimators: list[dict[str, Any]]) -> Row:
    rounds = context.rounds(9)
    numbers = iter(store.add_simulations(2 * (rounds + 1), 2))
    tail = b'"estimators":%b}' % orjson.dumps(estimators)
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:

        def send(wire: Wire, path: str) -> None:
            head = orjson.dumps({"simulation_id": next(numbers), "update_key": KEY})[:-1] + b","
            wire.send(wire.request("POST", path, head, more=len(tail)), 202, tail)

        samples = in_turns(rounds, partial(send, wire, "/results"), partial(send, bare, "/bare/results"))
    return Row(f"POST /results, {shape.name}", store.kind, *samples, Goal("factor", 1.6), _BESIDE)


def _compressed(context: Context, store: Store, shape: Shape, pages: list[dict[str, Any]]) -> Row:
    rounds = context.rounds(9)
    numbers = iter(store.add_simulations(rounds + 1, 2, "MERGING_RUNNING", _OWNER))
    others = iter(store.add_simulations(rounds + 1, 2))
    packed = [NewPage(n, "dose", 1, codec.encode_payload(page)) for n, page in enumerate(pages)]
    file = io.BytesIO()
    metadata = codec.encode_payload({"a": "b"})
    result_files.write_results(
        file, (NewEstimator(f"e{n}", f"e{n}", metadata, tuple(packed)) for n in range(shape.estimators))
    )
    sent = file.getvalue()
    plain = b"".join(page.payload.data for page in packed) * shape.estimators
    lengths = ",".join(str(page.payload.length) for page in packed)
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:

        def ours() -> None:
            path = f"/worker/{next(numbers)}/merge/results?owner={_OWNER}"
            head = wire.request("PUT", path, more=len(sent), Authorization=f"Bearer {KEY}")
            wire.send(head, 200, sent)

        def limit() -> None:
            path = f"/bare/results?simulation={next(others)}&estimators={shape.estimators}&lengths={lengths}"
            bare.send(bare.request("PUT", path, more=len(plain)), 200, plain)

        samples = in_turns(rounds, ours, limit)
    return Row(
        f"the same compressed by our worker, {shape.name}", store.kind, *samples, Goal("factor", 1.6), _BESIDE_PACKED
    )

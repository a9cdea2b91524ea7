"""Storing results: as JSON, and as the file that our workers send."""

import io
import math
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from isal import isal_zlib

from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store
from yaptide.persistence import codec, result_files
from yaptide.persistence.payload import NewEstimator, NewPage

_OWNER = "bench/worker"


@dataclass(frozen=True)
class Shape:
    """So many estimators with so many pages of so many values each."""

    estimators: int
    pages: int
    grid: tuple[int, ...]

    @property
    def values(self) -> int:
        """Values of a page."""
        return math.prod(self.grid)

    @property
    def name(self) -> str:
        """As the table says it."""
        count = f"{self.values:,} values"
        return f"1 page of {count}" if self.pages == 1 else f"{self.estimators} x {self.pages} pages of {count}"

    def pages_of(self) -> list[dict[str, Any]]:
        """The pages of one estimator: doubles with all their bits, drawn from one seed."""
        draw = random.Random(self.values)  # noqa: S311 - the same every time
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


def shapes(context: Context) -> tuple[Shape, Shape]:
    """The two that results are measured in."""
    side, square = context.size(100, 20), context.size(100, 20)
    return Shape(1, 1, (side, side, side)), Shape(10, 10, (square, square))


def rows(context: Context) -> Iterator[Row]:
    """Measure them on each database."""
    for shape in shapes(context):
        pages = shape.pages_of()
        found = [{"name": f"e{n}", "metadata": {"a": "b"}, "pages": pages} for n in range(shape.estimators)]
        for store in context.stores():
            yield _json(context, store, shape, found)
        for store in context.stores():
            yield _compressed(context, store, shape, pages)


def _json(context: Context, store: Store, shape: Shape, found: list[dict[str, Any]]) -> Row:
    rounds = context.rounds(9)
    numbers = iter(store.simulations(2 * (rounds + 1), 2))
    tail = b'"estimators":%b}' % orjson.dumps(found)

    whole = b"{" + tail
    with closing(store.wire()) as wire, closing(store.connect()) as connection:
        estimators = _estimators(store, connection, numbers, rounds + 1)

        def ours() -> None:
            number = next(numbers)
            head = orjson.dumps({"simulation_id": number, "update_key": KEY})[:-1] + b","
            wire.send(wire.request("POST", "/results", head, more=len(tail)), 202, tail)

        def limit() -> None:
            parsed = msgspec.json.decode(whole, type=_Body)
            for estimator in parsed.estimators:
                packed = []
                for page in estimator.pages:
                    msgspec.json.decode(page, type=_Page)
                    deflater = isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)
                    packed.append(deflater.compress(page) + deflater.flush())
                insert(store, connection, next(estimators), packed)
            connection.commit()

        taken = in_turns(rounds, ours, limit)
    return Row(f"POST /results, {shape.name}", store.kind, *taken, Goal("factor", 1.6))


def _compressed(context: Context, store: Store, shape: Shape, pages: list[dict[str, Any]]) -> Row:
    rounds = context.rounds(9)
    numbers = iter(store.simulations(rounds + 1, 2, "MERGING_RUNNING", _OWNER))
    others = iter(store.simulations(rounds + 1, 2))
    packed = [NewPage(n, "dose", 1, codec.encode(page)) for n, page in enumerate(pages)]
    file = io.BytesIO()
    metadata = codec.encode({"a": "b"})
    result_files.write(file, (NewEstimator(f"e{n}", f"e{n}", metadata, tuple(packed)) for n in range(shape.estimators)))
    sent = file.getvalue()
    with closing(store.wire()) as wire, closing(store.connect()) as connection:
        estimators = _estimators(store, connection, others, rounds + 1, shape.estimators)

        def ours() -> None:
            path = f"/worker/{next(numbers)}/merge/results?owner={_OWNER}"
            head = wire.request("PUT", path, more=len(sent), Authorization=f"Bearer {KEY}")
            wire.send(head, 200, sent)

        def limit() -> None:
            for _ in range(shape.estimators):
                for page in packed:
                    isal_zlib.decompress(page.payload.data, 31)  # which compares the checksum
                insert(store, connection, next(estimators), [page.payload.data for page in packed])
            connection.commit()

        taken = in_turns(rounds, ours, limit)
    return Row(f"the same compressed by our worker, {shape.name}", store.kind, *taken, Goal("factor", 1.6))


class _Numbers(msgspec.Struct):
    values: list[float]


class _Page(msgspec.Struct):
    dimensions: int
    data: _Numbers
    axis_dim1: _Numbers
    axis_dim2: _Numbers


class _Estimator(msgspec.Struct):
    name: str
    pages: list[msgspec.Raw]


class _Body(msgspec.Struct):
    estimators: list[_Estimator]


def insert(store: Store, connection: Any, estimator: int, packed: list[bytes]) -> None:
    """The pages of an estimator, by the driver alone."""
    rows = [(estimator, number, "dose", 1, data, len(data), "0" * 64) for number, data in enumerate(packed)]
    with closing(connection.cursor()) as cursor:
        cursor.executemany(
            store.sql(
                'INSERT INTO "Page" (estimator_id, page_number, page_name, page_dimension, compressed_data,'
                " content_size, content_sha256) VALUES (?, ?, ?, ?, ?, ?, ?)"
            ),
            rows,
        )


def _estimators(
    store: Store, connection: Any, simulations: Iterator[int], rounds: int, each: int = 10
) -> Iterator[int]:
    """Numbers of estimators that have no pages yet."""
    found = []
    data = codec.encode({"a": "b"})
    for _ in range(rounds):
        number = next(simulations)
        for place in range(each):
            values = (number, f"e{place}", f"e{place}", data.data, data.size, data.sha256)
            cursor = connection.execute(
                store.sql(
                    'INSERT INTO "Estimator" (simulation_id, name, file_name, compressed_data, content_size,'
                    " content_sha256) VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
                ),
                values,
            )
            found.append(cursor.fetchone()[0])
    connection.commit()
    return iter(found)

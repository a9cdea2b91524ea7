"""Incoming pages of results: validation, and the form in which they are stored.

A page is stored byte for byte if it can be read as it is. Otherwise it is converted, with the same numbers: if values
are undefined (null), if they are the rows of a list of particles or a single number in two pairs of brackets, or if the
last axis varies fastest (``"data_order": "C"``), as in files of codes such as TOPAS.
"""

import math
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import (
    NO_VALUE,
    Aggregation,
    Floats,
    Page,
    aggregation_of,
    mark_missing,
    written_values,
)
from yaptide.persistence import codec
from yaptide.persistence.payload import read_pieces
from yaptide.services.large_json import LargeJson, Read, slim_json

MAX_NAME = 500
#: In the metadata of an estimator or a page: the axis that varies fastest, "F" (yaptide) the first, "C" the last.
ORDER = "data_order"
OUR_ORDER, OTHER_ORDER = "F", "C"

#: A page of more values cannot be converted. 300 x 300 x 300 voxels are 27 million.
_MOST_WRITTEN_ANEW = 1 << 26
#: Larger arrays are kept in a file.
_IN_MEMORY = 1 << 20
_MAX_AXES = 5

_Numbers = list[float | None]
_Rows = list[list[float | None]]
T = TypeVar("T")


class _Axis(msgspec.Struct):
    values: _Numbers
    name: str = ""
    unit: str = ""


class _Data(msgspec.Struct, Generic[T]):
    values: T
    errors: T | None = None
    missing: list[tuple[int, int]] = []
    name: str = ""
    unit: str = ""


class _Page(msgspec.Struct, Generic[T]):
    """The validated parts of a page, whose values are numbers or rows of numbers."""

    dimensions: int
    data: _Data[T]
    metadata: dict[str, Any] = {}
    axis_dim1: _Axis | None = None
    axis_dim2: _Axis | None = None
    axis_dim3: _Axis | None = None
    axis_dim4: _Axis | None = None
    axis_dim5: _Axis | None = None


class _Numbered(msgspec.Struct):
    metadata: dict[str, Any] = {}


_PAGE_OF_NUMBERS = msgspec.json.Decoder(_Page[_Numbers])
_PAGE_OF_ROWS = msgspec.json.Decoder(_Page[_Rows])
_NUMBERED = msgspec.json.Decoder(_Numbered)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """A valid page; `written_anew` if it must be converted."""

    number: int
    name: str
    dimension: int
    written_anew: bool


def check_page(
    text: bytes | memoryview, body: LargeJson, position: int, order: str, taken: Container[int] = ()
) -> CheckedPage:
    """Validate a page; `text` is a part of `body`, `order` that of its values.

    A page without a number gets its `position`. Raises InvalidInput for an invalid page, and if its number is `taken`.
    """
    with explain_unreadable():
        str(text, "utf-8")  # the decoder does not check text that it skips
        page = _decoded(text)
    number = _number(page.metadata, position)
    if number in taken:
        raise InvalidInput("there is another page with this number")
    shape = _shape(page, body)
    _check_numbers(page, shape, body)
    name = str(page.metadata.get("name", page.data.name))
    check_text(name, "the name", body)
    order = str(page.metadata.get(ORDER, order))
    values = page.data.values
    anew = (order == OTHER_ORDER and len(shape) > 1) or _is_nested(values) or body.nulls(values) > 0
    if anew and _count(values, body) > _MOST_WRITTEN_ANEW:
        raise InvalidInput(
            f"pages of more than {_MOST_WRITTEN_ANEW} values cannot be reordered: send them with the first axis fastest"
        )
    return CheckedPage(number, name, page.dimensions, anew)


def number_of(text: bytes | memoryview, position: int) -> int:
    """Return the number of a rejected page: its own, or its `position` if that is invalid."""
    try:
        return _number(_NUMBERED.decode(text).metadata, position)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, InvalidInput):
        return position


def write_anew(text: bytes | memoryview, body: LargeJson, read: Read, order: str, folder: Path) -> Iterator[bytes]:
    """Yield the JSON text of a valid page in the form that is stored, in pieces.

    `read` returns bytes of the whole body; large arrays are kept in `folder`. Raises InvalidInput if digits would be
    lost.
    """
    document = _OBJECT.decode(text)
    data, metadata = document["data"], dict(document.get("metadata", {}))
    lists = _Lists(body, read, folder)
    axes = [axis for n in range(1, document["dimensions"] + 1) if (axis := document[f"axis_dim{n}"])]
    shape = tuple(body.count(axis["values"]) for axis in axes)
    order = str(metadata.get(ORDER, order))
    rows = data["values"]
    if _is_nested(rows) and len(rows) > 1:
        metadata["columns"] = str(body.count(rows[0]))
    values = mark_missing(lists.take(rows), data.pop("missing", []))
    unit = str(data.get("unit", metadata.get("unit", "")))
    data |= written_values(in_our_order(values, shape, order), unit)
    if data.get("errors") is not None:
        data["errors"] = in_our_order(lists.take(data["errors"]), shape, order)
    for axis in axes:
        axis["values"] = lists.take(axis["values"])
    if ORDER in metadata:
        metadata[ORDER] = OUR_ORDER
    if data["unit"] == NO_VALUE:
        metadata.setdefault("unit", unit)
    document["metadata"] = metadata
    yield from codec.json_pieces(lists.expand(document))


def read_page(text: Iterable[bytes], folder: Path) -> Page:
    """A stored page as arrays, from its JSON text piece by piece; many numbers stay in files in `folder`.

    Raises InvalidInput for a page that cannot be understood.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        body = slim_json(_copied(text, file))
        file.flush()
        lists = _Lists(body, lambda start, length: b"".join(read_pieces(file, start, length)), folder)
        with explain_unreadable():
            document = _OBJECT.decode(body.text)
        try:
            return Page.from_document(_with_arrays(document, lists))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise InvalidInput(f"This is not a page of results: {error!r}") from error


def _copied(text: Iterable[bytes], file: IO[bytes]) -> Iterator[bytes]:
    for piece in text:
        file.write(piece)
        yield piece


def _with_arrays(document: dict[str, Any], lists: "_Lists") -> dict[str, Any]:
    """The same document with arrays for its lists of numbers; values that do not exist are NaN."""
    data = document["data"]
    values = lists.take(data["values"])
    for first, last in data.pop("missing", []):
        values[first : last + 1] = np.nan
    data["values"] = values
    if data.get("errors") is None:
        data.pop("errors", None)
    else:
        data["errors"] = lists.take(data["errors"])
    for number in range(1, document["dimensions"] + 1):
        axis = document[f"axis_dim{number}"]
        axis["values"] = lists.take(axis["values"])
    return document


def reorder_page(text: bytes, folder: Path) -> bytes | None:
    """Convert a stored page whose last axis varies fastest; None if the order makes no difference.

    Raises InvalidInput for an invalid page.
    """
    body = LargeJson(text)
    if not check_page(text, body, 0, OTHER_ORDER).written_anew:
        return None
    return b"".join(write_anew(text, body, lambda *_: b"", OTHER_ORDER, folder))


def in_our_order(values: Floats, shape: Sequence[int], order: str) -> Floats:
    """Return values on a grid of `shape`, shape (n1*n2*...,), with the first axis fastest whatever the `order` is."""
    if order != OTHER_ORDER or len(shape) < 2:
        return values
    return values.reshape(shape, order="C").ravel(order="F")


def check_text(text: str, what: str, body: LargeJson | None = None) -> None:
    """Raise InvalidInput for a name that is empty, too long, or contains a null character."""
    if not text or len(text) > MAX_NAME or "\0" in text or not (body is None or body.is_whole(text)):
        raise InvalidInput(f"{what} must have 1 to {MAX_NAME} characters")


@contextmanager
def explain_unreadable() -> Iterator[None]:
    """Convert decoding errors of a body, or a part of one, to InvalidInput."""
    try:
        yield
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"Invalid body: {error}") from error


def _number(metadata: Mapping[str, Any], position: int) -> int:
    number = str(metadata.get("page_number", position))
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise InvalidInput(f"{number[:40]!r} is not a page number")
    return int(number)


def _decoded(text: bytes | memoryview) -> _Page[Any]:
    try:
        return _PAGE_OF_NUMBERS.decode(text)
    except msgspec.ValidationError as error:
        try:
            return _PAGE_OF_ROWS.decode(text)
        except msgspec.ValidationError:
            raise error from None


def _shape(page: _Page[Any], body: LargeJson) -> tuple[int, ...]:
    axes = (page.axis_dim1, page.axis_dim2, page.axis_dim3, page.axis_dim4, page.axis_dim5)
    if not 0 <= page.dimensions <= _MAX_AXES:
        raise InvalidInput(f"it has {page.dimensions} dimensions, but must have 0 to {_MAX_AXES}")
    used = [axis for axis in axes[: page.dimensions] if axis is not None]
    if len(used) < page.dimensions:
        raise InvalidInput(f"it has {page.dimensions} dimensions, but not as many axes (axis_dim1, ...)")
    if any(body.nulls(axis.values) for axis in used):
        raise InvalidInput("an axis has values that are not numbers")
    return tuple(body.count(axis.values) for axis in used)


def _check_numbers(page: _Page[Any], shape: tuple[int, ...], body: LargeJson) -> None:
    count, expected = _count(page.data.values, body), math.prod(shape)
    if _aggregation(page.metadata) is Aggregation.CONCATENATE and not shape:
        expected = count
    if count != expected or not expected:
        raise InvalidInput(f"it has {count} values, but its axes need {expected}")
    if page.data.errors is not None and _count(page.data.errors, body) != count:
        raise InvalidInput(f"it has {count} values and {_count(page.data.errors, body)} errors")
    if not all(0 <= first <= last < count for first, last in page.data.missing):
        raise InvalidInput("data.missing lists values that do not exist")


def _aggregation(metadata: Mapping[str, Any]) -> Aggregation:
    try:
        return aggregation_of(metadata)
    except ValueError as error:
        raise InvalidInput(f"aggregation: {error}") from error


def _is_nested(values: Sequence[object]) -> bool:
    return bool(values) and isinstance(values[0], list)


def _count(values: Sequence[Any], body: LargeJson) -> int:
    """Count the numbers in a list, or in a list of rows of equal length."""
    if not _is_nested(values):
        return body.count(values)
    if len({body.count(row) for row in values}) > 1:
        raise InvalidInput("its rows differ in length")
    return len(values) * body.count(values[0])


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists of numbers in a page, as arrays."""

    body: LargeJson
    read: Read
    folder: Path

    def take(self, values: Sequence[Any]) -> Floats:
        """Return a list, or rows one after the other, as an array; NaN for null."""
        room = self._room(_count(values, self.body))
        end = 0
        for row in values if _is_nested(values) else [values]:
            length = self.body.count(row)
            self.body.read_numbers(row, self.read, room[end : end + length])
            end += length
        return room

    def expand(self, value: Any) -> Any:
        """Return a document with all pieces that were left out."""
        if isinstance(value, dict):
            return {name: self.expand(part) for name, part in value.items()}
        if isinstance(value, list):
            whole = self.body.count(value) == len(value)
            return [self.expand(part) for part in value] if whole else self.take(value)
        return value

    def _room(self, count: int) -> NDArray[np.float64]:
        if count <= _IN_MEMORY:
            return np.empty(count)
        with tempfile.TemporaryFile(dir=self.folder) as file:  # deleted together with the array
            return np.asarray(np.memmap(file, dtype=np.float64, mode="w+", shape=(count,)))

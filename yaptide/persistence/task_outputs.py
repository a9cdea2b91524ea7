"""The file with the output of a task, which waits for the merge.

It is a numpy archive (.npz: a zip archive that `numpy.load` reads) with additional entries:

    <e>-<p>.npy            values of page p of estimator e, both counted from 0
    <e>-<p>.weights.npy    weights of that page, if it has any
    logs.json              log files, name to text, if there are any
    estimators.json        names, units, axes, aggregation: the last entry

Format: `numpy.lib.format`, and APPNOTE.TXT of PKWARE (ZIP64 where needed). Each array can be read by itself, so a merge
holds one page of one task at a time. A file may come from anywhere: `check_output` trusts nothing in it.
"""

import io
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import msgspec
import numpy as np
from isal import isal_zlib
from numpy.lib import format as npy

from yaptide.domain.errors import InvalidInput, SimulationFailed
from yaptide.domain.estimators import (
    Aggregation,
    Axis,
    Estimator,
    Floats,
    Page,
    RefusedPage,
    TaskOutput,
    refused_metadata,
)
from yaptide.domain.merging import PagesDiffer, merge_pages
from yaptide.persistence import codec
from yaptide.persistence.payload import NewEstimator, NewPage, read_pieces
from yaptide.persistence.prefetch import prefetch_items
from yaptide.persistence.zip_safety import MOST_PAGES, explain_damage, open_archive, read_entry

_INDEX = "estimators.json"
_MOST_INDEX = 64 << 20
_LOGS = "logs.json"
_MOST_LOGS = 8 << 20
_LEVEL = 1
_MOST_NAME = 500
_FLOATS = ("<f4", "<f8")
_MOST_HEADER = 1 << 17
_PIECE = 1 << 20
#: Fields of the local file header that are needed: magic, flags, lengths of name and extra field.
_LOCAL = struct.Struct("<4s2xH18xHH")
_MAGIC = b"PK\3\4"
_ISAL: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # isal's stub declares a value


class _Axis(msgspec.Struct):
    name: str
    unit: str
    values: list[float]


class _PageEntry(msgspec.Struct):
    number: int
    name: str
    unit: str
    axes: list[_Axis]
    aggregation: Aggregation
    metadata: dict[str, str]
    weighted: bool

    def page(self, values: Floats, weights: Floats | None) -> Page:
        """Return the page with its values."""
        axes = tuple(Axis(axis.name, axis.unit, np.asarray(axis.values, dtype=np.float64)) for axis in self.axes)
        return Page(
            number=self.number,
            name=self.name,
            unit=self.unit,
            axes=axes,
            values=values,
            weights=weights,
            aggregation=self.aggregation,
            metadata=self.metadata,
        )


class _EstimatorEntry(msgspec.Struct):
    name: str
    file_name: str
    metadata: dict[str, str]
    pages: list[_PageEntry]


_ENTRIES = msgspec.json.Decoder(list[_EstimatorEntry])
_LOG_FILES = msgspec.json.Decoder(dict[str, str])


def write_output(file: IO[bytes], output: TaskOutput) -> None:
    """Write the output of one task: estimators and log files."""
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        index = [_write_estimator(archive, number, estimator) for number, estimator in enumerate(output.estimators)]
        if output.logs:
            archive.writestr(_LOGS, msgspec.json.encode(output.logs))
        archive.writestr(_INDEX, msgspec.json.encode(index))


def check_output(path: Path, most: int) -> None:
    """Raise InvalidInput unless the file can be merged: arrays match the index, and all values are numbers.

    Its entries may have at most `most` bytes in total.
    """
    with _understood("the task output", InvalidInput), _opened(path) as archive:
        if sum(info.file_size for info in archive.zip.infolist()) > most:
            raise InvalidInput(f"The task output has more than {most} bytes")
        if not archive.entries or not all(entry.pages for entry in archive.entries):
            raise InvalidInput("The task output must have estimators, each with pages")
        _check_names(archive.entries)
        for e, entry in enumerate(archive.entries):
            for p, page in enumerate(entry.pages):
                _check_page(page, *archive.count(e, p))


def read_logs(path: Path) -> dict[str, str]:
    """Return the log files of one task, name to text; raise InvalidInput if they are unreadable or too long."""
    understood = _understood("the log files", InvalidInput)
    with understood, path.open("rb") as file, open_archive(file, MOST_PAGES) as archive:
        if _LOGS not in archive.namelist():
            return {}
        return _LOG_FILES.decode(read_entry(archive, _LOGS, _MOST_LOGS))


def read_output(path: Path) -> tuple[Estimator, ...]:
    """Return all estimators of one task; raise SimulationFailed if the file is missing or damaged."""
    with _understood(f"the output of task {path.stem}", SimulationFailed), _opened(path) as archive:
        return tuple(
            Estimator(
                entry.name,
                entry.file_name,
                tuple(archive.page(e, p) for p in range(len(entry.pages))),
                entry.metadata,
            )
            for e, entry in enumerate(archive.entries)
        )


def merge_outputs(paths: Sequence[Path], primaries: Sequence[int], blob_file: IO[bytes]) -> Iterator[NewEstimator]:
    """Merge the output of tasks, given with the primaries of each, holding one page of one task at a time.

    Large payloads are appended to `blob_file`, which has no other content. The same tasks in the same order give the
    same bits. A page that cannot be merged is omitted and listed as refused. Raises SimulationFailed if a file is
    missing or damaged, or no page is left.
    """
    tasks = sum(count > 0 for count in primaries)  # determines the standard errors
    counted = {"number_of_primaries": str(sum(primaries)), "number_of_tasks": str(tasks)}
    estimators, places = _indexes(paths)
    page_count, all_refused = 0, list[RefusedPage]()
    for name, entry in estimators.items():
        pages, refused = list[NewPage](), list[RefusedPage]()
        for number in sorted({number for place in places for other, number in place if other == name}):
            try:
                page = merge_pages(_of_tasks(paths, places, (name, number)), primaries)
            except PagesDiffer as difference:
                refused.append(RefusedPage(name, number, str(difference)))
                continue
            payload = codec.encode_pieces(codec.json_pieces(page.document()), blob_file)
            pages.append(NewPage(page.number, page.name, page.dimension, payload))
        metadata = codec.encode_payload({**entry.metadata, **counted, **refused_metadata(refused)})
        page_count += len(pages)
        all_refused += refused
        yield NewEstimator(entry.name, entry.file_name, metadata, tuple(pages), tuple(refused))
    if not page_count:
        raise SimulationFailed(
            f"no page could be merged: {all_refused[0]}" if all_refused else "the tasks have no pages"
        )


#: Position of each page in a task's file, by estimator name and page number.
_Places = Mapping[tuple[str, int], tuple[int, int]]


def _indexes(paths: Sequence[Path]) -> tuple[dict[str, _EstimatorEntry], list[_Places]]:
    """Return all estimators by name, each from the first task that has it, and the page positions per task."""
    estimators: dict[str, _EstimatorEntry] = {}
    places: list[_Places] = []
    for path in paths:
        entries = _entries(path)
        for entry in entries:
            estimators.setdefault(entry.name, entry)
        places.append({(o.name, page.number): (e, p) for e, o in enumerate(entries) for p, page in enumerate(o.pages)})
    return estimators, places


def _of_tasks(paths: Sequence[Path], places: Sequence[_Places], page: tuple[str, int]) -> Iterator[Page]:
    """Yield the same page of each task; raise PagesDiffer if a task lacks it."""
    for path, place in zip(paths, places, strict=True):
        if page not in place:
            raise PagesDiffer(f"task {path.stem} has no such page")
    return prefetch_items(_page(path, *place[page]) for path, place in zip(paths, places, strict=True))


def _entries(path: Path) -> list[_EstimatorEntry]:
    with _understood(f"the output of task {path.stem}", SimulationFailed), _opened(path) as archive:
        return archive.entries


def _page(path: Path, e: int, p: int) -> Page:
    with _understood(f"the output of task {path.stem}", SimulationFailed), _opened(path) as archive:
        return archive.page(e, p)


@contextmanager
def _opened(path: Path) -> Iterator["_Archive"]:
    with path.open("rb") as file, open_archive(file, MOST_PAGES) as archive:
        yield _Archive(file, archive, _ENTRIES.decode(read_entry(archive, _INDEX, _MOST_INDEX)))


@dataclass(frozen=True, slots=True)
class _Archive:
    """An open file with the output of a task."""

    file: IO[bytes]
    zip: ZipFile
    entries: list[_EstimatorEntry]

    def page(self, e: int, p: int) -> Page:
        """Return page `p` of estimator `e`."""
        entry = self.entries[e].pages[p]
        weights = self._array(f"{e}-{p}.weights.npy") if entry.weighted else None
        return entry.page(self._array(f"{e}-{p}.npy"), weights)

    def count(self, e: int, p: int) -> tuple[int, int | None]:
        """Return the numbers of values and weights of page `p` of estimator `e`.

        Neither array is held in memory as a whole. Raises InvalidInput if a weight is not finite.
        """
        entry = self.entries[e].pages[p]
        weights = self._count(f"{e}-{p}.weights.npy", finite=True) if entry.weighted else None
        return self._count(f"{e}-{p}.npy", finite=False), weights  # values may be undefined

    def _array(self, name: str) -> Floats:
        info = self.zip.getinfo(name)
        inflated = self._pieces(info, info.file_size + 1)
        head = next(inflated, b"")
        start, dtype, _ = _header(info, head)
        values: Floats = np.frombuffer(b"".join((head, *inflated)), dtype, offset=start)
        return values

    def _count(self, name: str, *, finite: bool) -> int:
        info = self.zip.getinfo(name)
        inflated = self._pieces(info, _PIECE)
        head = next(inflated, b"")
        start, dtype, count = _header(info, head)
        rest = head[start:]
        for piece in chain([b""], inflated):  # read to the end, where the checksum is verified
            rest += piece
            whole = len(rest) // dtype.itemsize
            if finite and not np.isfinite(np.frombuffer(rest, dtype, whole)).all():
                raise InvalidInput(f"{name} has values that are not finite")
            rest = rest[whole * dtype.itemsize :]
        return count

    def _pieces(self, info: ZipInfo, most: int) -> Iterator[bytes]:
        """Yield the bytes of an entry in pieces of `most` bytes, at most its declared size; the first has the header.

        zipfile would do the same with zlib, which takes three times as long.
        """
        self.file.seek(info.header_offset)
        magic, flags, name, extra = _LOCAL.unpack(self.file.read(_LOCAL.size))
        if magic != _MAGIC or flags & 1 or info.compress_type != ZIP_DEFLATED:
            raise BadZipFile(f"{info.filename} must be deflated and not encrypted")
        start = self.file.tell() + name + extra
        inflater = isal_zlib.decompressobj(wbits=-15)
        size = crc = 0
        for packed in read_pieces(self.file, start, info.compress_size):
            piece = inflater.decompress(packed, most)
            while piece and size <= info.file_size:
                size, crc = size + len(piece), isal_zlib.crc32(piece, crc)
                yield piece
                piece = inflater.decompress(inflater.unconsumed_tail, most)
        if not inflater.eof or size != info.file_size or crc != info.CRC:
            raise BadZipFile(f"Bad CRC-32 for file {info.filename!r}")


def _write_estimator(archive: ZipFile, number: int, estimator: Estimator) -> _EstimatorEntry:
    for position, page in enumerate(estimator.pages):
        _write_array(archive, f"{number}-{position}.npy", page.values)
        if page.weights is not None:
            _write_array(archive, f"{number}-{position}.weights.npy", page.weights)
    pages = [
        _PageEntry(
            number=page.number,
            name=page.name,
            unit=page.unit,
            axes=[_Axis(axis.name, axis.unit, axis.values.tolist()) for axis in page.axes],
            aggregation=page.aggregation,
            metadata=dict(page.metadata),
            weighted=page.weights is not None,
        )
        for page in estimator.pages
    ]
    return _EstimatorEntry(estimator.name, estimator.file_name, dict(estimator.metadata), pages)


def _write_array(archive: ZipFile, name: str, values: Floats) -> None:
    with archive.open(name, "w", force_zip64=True) as file:
        npy.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)


def _check_names(entries: Sequence[_EstimatorEntry]) -> None:
    """Raise InvalidInput for names or numbers that cannot be stored."""
    names = [name for e in entries for name in (e.name, e.file_name, *(page.name for page in e.pages))]
    if not all(1 <= len(name) <= _MOST_NAME and "\0" not in name for name in names):
        raise InvalidInput(f"Names of estimators and pages must have 1 to {_MOST_NAME} characters")
    if len({e.name for e in entries}) < len(entries):
        raise InvalidInput("The task output has two estimators with the same name")
    for e in entries:
        numbers = {page.number for page in e.pages}
        if len(numbers) < len(e.pages) or not all(0 <= number < 10**9 for number in numbers):
            raise InvalidInput(f"The pages of estimator {e.name!r} need distinct numbers from 0 to 999999999")


def _header(info: ZipInfo, head: bytes) -> tuple[int, np.dtype[Any], int]:
    """Return the offset of an array's values, their type and their number; check it against the entry's size."""
    file = io.BytesIO(head[:_MOST_HEADER])
    if npy.read_magic(file) != (1, 0):
        raise ValueError(f"{info.filename} has an unsupported version of the npy format")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if len(shape) != 1 or dtype.str not in _FLOATS or file.tell() + shape[0] * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.filename} is not a one-dimensional array of floats")
    return file.tell(), dtype, shape[0]


def _check_page(page: _PageEntry, values: int, weights: int | None) -> None:
    expected = math.prod(len(axis.values) for axis in page.axes)
    if page.aggregation is not Aggregation.CONCATENATE and values != expected:
        raise InvalidInput(f"Page {page.name!r} has {values} values, but its axes need {expected}")
    if not values and page.aggregation is not Aggregation.CONCATENATE:  # no particle may have reached it in a task
        raise InvalidInput(f"Page {page.name!r} has no values")
    if weights not in (None, values):
        raise InvalidInput(f"Page {page.name!r} must have one weight per value")
    for axis in page.axes:
        if not np.isfinite(axis.values).all():
            raise InvalidInput(f"Page {page.name!r} has an axis with values that are not finite")


@contextmanager
def _understood(subject: str, error: type[InvalidInput | SimulationFailed]) -> Iterator[None]:
    """Convert errors of an unreadable file to `error`, which names the `subject`."""
    try:
        with explain_damage(f"cannot read {subject}", error, _ISAL):
            yield
    except FileNotFoundError as missing:
        raise error(f"cannot read {subject}: the file is missing") from missing

"""Inputs, log files, estimators and pages: copied byte for byte, large ones in pieces.

Only payloads without a place in the new tables are encoded again: an input beside a newer one, and log files that are
not names with texts, become log files.
"""

import base64
import codecs
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any

from sqlalchemy import Table, func, select, type_coerce, update
from sqlalchemy.types import NullType

from yaptide.domain.errors import InvalidInput
from yaptide.persistence import codec
from yaptide.persistence.adoption.stored import Stored, open_stored
from yaptide.persistence.adoption.values import to_int32, to_text, unused_numbers
from yaptide.persistence.adoption.work import Names, Work
from yaptide.persistence.engine import Record
from yaptide.persistence.payload import AnyPayload, LargePayload
from yaptide.persistence.queries import blobs

_OF_SIMULATIONS = ("Input", "Logfiles", "Estimator")


def copy_payloads(work: Work) -> None:
    """Copy all payloads, and update the byte counts."""
    for table, name in (("Estimator", "file_name"), ("Page", "page_name"), ("Page", "page_dimension")):
        if name not in work.old[table].c:
            work.decide(table, "", f"{name} read from the payloads", "its revision has no such column")
    simulation = work.new["Simulation"]
    query = select(simulation.c.id, simulation.c.job_id, simulation.c.input_type)
    for rows in work.batches(query, simulation.c.id):
        for row in rows:
            _Payloads(work, row.id, row.job_id, row.input_type).copy()
    _count_bytes(work)


@dataclass(frozen=True, slots=True)
class _OldPayload:
    """An old payload: `size` and `sha256` are those of its text, or of its bytes if it is damaged.

    `value` is the value of the text, of a long one without its numbers and long strings; None if it is not JSON.
    """

    stored: Stored
    size: int
    sha256: str
    is_damaged: bool = False
    value: Any = None

    def copy_to(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert a row with this payload, byte for byte, into a new table."""
        self.stored.copy_to(table, {**row, "content_size": self.size, "content_sha256": self.sha256})


class _Payloads:
    """The payloads of one simulation."""

    def __init__(self, work: Work, simulation_id: int, job_id: str, input_type: str) -> None:
        self.work = work
        self.id = simulation_id
        self.job_id = job_id
        self.input_type = input_type
        self._log_digests: set[str] = set()

    def copy(self) -> None:
        for row in self._rows("Logfiles", "simulation_id", self.id):
            self._copy_logfiles(row.id)
        names = Names()
        for row in self._rows("Estimator", "simulation_id", self.id):
            self._copy_estimator(row, names)
        self._copy_inputs([row.id for row in self._rows("Input", "simulation_id", self.id)])

    def _rows(self, name: str, column: str, parent: int) -> Any:
        """Yield the rows of one parent by id, without their payloads."""
        table = self.work.old[name]
        wanted = [column for column in table.c if column.name != "compressed_data"]
        for rows in self.work.batches(select(*wanted).where(table.c[column] == parent), table.c.id):
            for row in rows:
                yield row
                self.work.advance()

    # Log files

    def _copy_logfiles(self, number: int) -> None:
        old = self._examined("Logfiles", number)
        if not _are_log_files(old.value):
            self._decide("Logfiles", number, "became one log file", "it was not an object of names and texts")
            self._add_as_log_file(number, number, f"logfiles-{number}", old)
        elif self._is_new_log(number, old.sha256):
            old.copy_to(self.work.new["Logfiles"], {"id": number, "simulation_id": self.id})

    def _add_as_log_file(self, number: int, came_from: int, name: str, old: _OldPayload) -> None:
        with tempfile.TemporaryFile() as file:
            payload = _as_log_file(name, old, file)
            if not self._is_new_log(came_from, payload.sha256):
                return
            row = {"id": number, "simulation_id": self.id}
            if isinstance(payload, LargePayload):
                blobs.add_blob(self.work.connection, row, payload, self.work.new["Logfiles"])
            else:
                self.work.add("Logfiles", [row | payload.columns()])

    def _is_new_log(self, came_from: int, sha256: str) -> bool:
        """Return whether no identical log files were added before; otherwise report this."""
        if sha256 in self._log_digests:
            self._decide("Logfiles", came_from, "dropped", "the simulation has identical log files")
            return False
        self._log_digests.add(sha256)
        return True

    # Input

    def _copy_inputs(self, numbers: list[int]) -> None:
        """Keep the newest input with contents; convert older ones to log files, so that they are not taken for it."""
        with_contents = [number for number in numbers if self._stored("Input", number).length]
        newest = max(with_contents or numbers, default=None)
        if newest is None:
            kept_number, kept = self.work.next_id("Input"), codec.encode_payload(self._empty("Input"))
            self._decide("Input", kept_number, "created empty", "the simulation had none")
            self.work.add("Input", [{"id": kept_number, "simulation_id": self.id, **kept.columns()}])
            return
        newest_input = self._examined("Input", newest)
        newest_input.copy_to(self.work.new["Input"], {"id": newest, "simulation_id": self.id})
        for number in numbers:
            if number != newest:
                older = self._examined("Input", number) if number in with_contents else None
                self._keep_older_input(number, older, newest, newest_input.sha256)

    def _keep_older_input(self, number: int, older: _OldPayload | None, newest: int, newest_sha256: str) -> None:
        if older is None or older.sha256 == newest_sha256:
            self._decide("Input", number, "dropped", f"it was empty, or identical to input {newest}")
        else:
            self._decide("Input", number, f"became the log file input-{number}.json", f"input {newest} is newer")
            self._add_as_log_file(self.work.next_id("Logfiles"), number, f"input-{number}", older)

    # Results

    def _copy_estimator(self, row: Record, names: Names) -> None:
        old = self._examined("Estimator", row.id)
        name = names.take(to_text(row.name))
        if name != to_text(row.name):
            self._decide("Estimator", row.id, f"renamed to {name!r}", "another estimator has its name")
        # Rows that are older than this column have its default.
        file_name = to_text(row._mapping.get("file_name")) or _at(old.value, "name") or to_text(row.name)
        values = {"id": row.id, "simulation_id": self.id, "name": name, "file_name": str(file_name)}
        old.copy_to(self.work.new["Estimator"], values)
        self._copy_pages(row.id, name)

    def _copy_pages(self, estimator_id: int, estimator: str) -> None:
        pages = self._rows("Page", "estimator_id", estimator_id)
        used: set[int] = set()
        unused = self._unused_pages(estimator_id)
        any_page = False
        for row in pages:
            any_page = True
            number = to_int32(row.page_number)
            if number is None or number < 0 or number in used:
                why = f"number {to_text(row.page_number)!r} of estimator {estimator!r} is invalid or taken"
                number = next(unused)
                self._decide("Page", row.id, f"page_number {number}", why)
            used.add(number)
            self._copy_page(row, number)
        if not any_page:
            self._decide("Estimator", estimator_id, "kept without pages", f"estimator {estimator!r} has none")

    def _copy_page(self, row: Record, number: int) -> None:
        name = to_text(row._mapping.get("page_name"))
        old = self._examined("Page", row.id, name)
        # Pages that are older than these columns have their defaults, "" and 0.
        name = name or _at(old.value, "metadata", "name") or _at(old.value, "data", "name")
        dimension = to_int32(row._mapping.get("page_dimension")) or 0
        if dimension <= 0:
            dimension = max(to_int32(_at(old.value, "dimensions")) or 0, 0)
        values = {"id": row.id, "estimator_id": row.estimator_id, "page_number": number}
        values |= {"page_name": to_text(name), "page_dimension": dimension}
        old.copy_to(self.work.new["Page"], values)

    def _unused_pages(self, estimator_id: int) -> Iterator[int]:
        page = self.work.old["Page"]
        numbers = select(type_coerce(page.c.page_number, NullType())).where(page.c.estimator_id == estimator_id)
        return unused_numbers(self.work.connection.execute(numbers).scalars())

    # One payload

    def _stored(self, table: str, number: int) -> Stored:
        return open_stored(self.work.connection, self.work.old[table], number)

    def _examined(self, table: str, number: int, name: str = "") -> _OldPayload:
        """Read and decode a payload, and report what is wrong with it."""
        stored = self._stored(table, number)
        if not stored.length:
            self._decide(table, number, "replaced by an empty value", "its payload was null or empty")
            empty = codec.encode_payload(self._empty(table, name)).data
            stored = replace(stored, length=len(empty), data=empty)
        try:
            outline = codec.read_outline(stored.chunks())
        except InvalidInput as damage:
            self._decide(table, number, "its bytes are kept", str(damage))
            return _OldPayload(stored, stored.length, stored.digest(), is_damaged=True)
        if outline.missing and table != "Logfiles":  # log files are texts, not numbers
            what = "its bytes are kept; readers get null instead, or a 0 that data.missing lists"
            self._decide(table, number, what, f"it has {outline.missing} NaN or infinite numbers")
        return _OldPayload(stored, outline.size, outline.sha256, value=self._value(table, number, outline))

    def _value(self, table: str, number: int, outline: codec.Outline) -> Any:
        if outline.text is None:
            self._decide(table, number, "its bytes are kept", "it is too large to be checked")
            return None
        try:
            return codec.decode_readable_text(outline.text)
        except InvalidInput as damage:
            self._decide(table, number, "its bytes are kept", str(damage))
            return None

    def _empty(self, table: str, name: str = "") -> Any:
        """Return a replacement for a missing payload, in the shape that readers expect."""
        if table == "Input":
            return {
                "input_type": self.input_type,
                "number_of_all_primaries": 0,
                "input_files": {},
                "input_json": None,
            }
        if table == "Page":
            nothing = {"name": "", "unit": "", "values": []}
            return {"dimensions": 1, "data": nothing | {"name": name}, "axis_dim1": nothing, "metadata": {"name": name}}
        return {}

    def _decide(self, table: str, number: int, what: str, why: str) -> None:
        self.work.decide(f"{table} {number}", self.job_id, what, why)


def _are_log_files(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _as_log_file(name: str, old: _OldPayload, file: IO[bytes]) -> AnyPayload:
    """Return a payload as one log file: its text, or its bytes in base64 if it cannot be decoded.

    A large one is in `file`.
    """
    with suppress(UnicodeDecodeError):
        if not old.is_damaged:
            text = _as_strings(codec.inflate_pieces(old.stored.chunks()))
            return codec.encode_pieces(_named(f"{name}.json", text), file)
    encoded = (base64.b64encode(chunk) for chunk in old.stored.chunks())
    return codec.encode_pieces(_named(f"{name}.json.gz.base64", encoded), file)


def _named(name: str, text: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a JSON object with one string, given in pieces as in JSON, without quotes."""
    yield b'{"%s":"' % name.encode()
    yield from text
    yield b'"}'


def _as_strings(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield UTF-8 text as the contents of a JSON string; raise UnicodeDecodeError if it is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in pieces:
        yield json.dumps(decoder.decode(piece), ensure_ascii=False).encode()[1:-1]
    decoder.decode(b"", final=True)


def _at(value: Any, *keys: str) -> Any:
    """Return the value in nested objects under `keys`; None if there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count_bytes(work: Work) -> None:
    """Set the byte count of every simulation."""
    simulation, estimator, page = (work.new[name] for name in ("Simulation", "Estimator", "Page"))

    def size(table: Any) -> Any:
        return func.coalesce(func.sum(func.length(table.c.compressed_data)), 0)

    own = [
        select(size(work.new[name])).where(work.new[name].c.simulation_id == simulation.c.id).scalar_subquery()
        for name in _OF_SIMULATIONS
    ]
    of_pages = (
        select(size(page))
        .join(estimator, estimator.c.id == page.c.estimator_id)
        .where(estimator.c.simulation_id == simulation.c.id)
        .scalar_subquery()
    )
    work.connection.execute(update(simulation).values(stored_bytes=own[0] + own[1] + own[2] + of_pages))

"""Inputs, log files, estimators and pages: one payload in memory at a time, its bytes copied as they are.

Only what has no place of its own in our tables is written anew: an input beside a newer one, and log files that are not
names with texts, become entries of the log files.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, type_coerce, update
from sqlalchemy.types import NullType

from yaptide.domain.errors import InvalidInput
from yaptide.persistence import codec
from yaptide.persistence.adoption.values import to_bytes, to_int32, to_text, unused_numbers
from yaptide.persistence.adoption.work import Names, Work
from yaptide.persistence.engine import Record

_OF_SIMULATIONS = ("Input", "Logfiles", "Estimator")


def copy_payloads(work: Work) -> None:
    """Copy all payloads, and count what they take."""
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
class _Found:
    """An old payload. `content` is its text (None: it is damaged), `value` what that says (None also if nothing)."""

    data: bytes
    content: bytes | None
    value: Any = None

    def payload(self) -> codec.Payload:
        """Ready to be stored, without a byte changed. Of a damaged one, the bytes themselves are measured."""
        content = self.data if self.content is None else self.content
        return codec.Payload(self.data, len(content), hashlib.sha256(content).hexdigest())


class _Payloads:
    """What one simulation has."""

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
        """The rows of one parent by number, without their payloads."""
        table = self.work.old[name]
        wanted = [column for column in table.c if column.name != "compressed_data"]
        for rows in self.work.batches(select(*wanted).where(table.c[column] == parent), table.c.id):
            for row in rows:
                yield row
                self.work.advance()

    # Log files

    def _copy_logfiles(self, number: int) -> None:
        found = self._examined("Logfiles", number)
        if _are_log_files(found.value):
            self._add_logfiles(number, number, found.payload())
        else:
            self._decide("Logfiles", number, "became one log file", "it was no object of names and texts")
            self._add_logfiles(number, number, _as_log_file(f"logfiles-{number}", found))

    def _add_logfiles(self, number: int, came_from: int, payload: codec.Payload) -> None:
        if payload.sha256 in self._log_digests:
            self._decide("Logfiles", came_from, "dropped", "the simulation has the very same text already")
            return
        self._log_digests.add(payload.sha256)
        self.work.add("Logfiles", [{"id": number, "simulation_id": self.id, **payload.columns()}])

    # Input

    def _copy_inputs(self, numbers: list[int]) -> None:
        """Keep the newest input that holds anything; older ones go to the log files, where nobody takes them for it."""
        holding = [number for number in numbers if self._read("Input", number)]
        newest = max(holding or numbers, default=None)
        found = None if newest is None else self._examined("Input", newest)
        payload = codec.encode_payload(self._empty("Input")) if found is None else found.payload()
        if newest is None:
            newest = self.work.next_id("Input")
            self._decide("Input", newest, "made empty", "the simulation had none")
        self.work.add("Input", [{"id": newest, "simulation_id": self.id, **payload.columns()}])
        for number in numbers:
            if number == newest:
                continue
            older = self._examined("Input", number) if number in holding else None
            if older is None or older.payload().sha256 == payload.sha256:
                self._decide("Input", number, "dropped", f"it held nothing, or the very text of input {newest}")
            else:
                self._decide("Input", number, f"became the log file input-{number}.json", f"input {newest} is newer")
                self._add_logfiles(self.work.next_id("Logfiles"), number, _as_log_file(f"input-{number}", older))

    # Results

    def _copy_estimator(self, row: Record, names: Names) -> None:
        found = self._examined("Estimator", row.id)
        name = names.take(to_text(row.name))
        if name != to_text(row.name):
            self._decide("Estimator", row.id, f"renamed to {name!r}", "another estimator has its name")
        file_name = (
            to_text(row.file_name) if "file_name" in row._mapping else _at(found.value, "name") or to_text(row.name)
        )
        values = {"id": row.id, "simulation_id": self.id, "name": name, "file_name": str(file_name)}
        self.work.add("Estimator", [values | found.payload().columns()])
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
                why = f"number {to_text(row.page_number)!r} of estimator {estimator!r} is none, or taken"
                number = next(unused)
                self._decide("Page", row.id, f"page_number {number}", why)
            used.add(number)
            self._copy_page(row, number)
        if not any_page:
            self._decide("Estimator", estimator_id, "kept without pages", f"estimator {estimator!r} has none")

    def _copy_page(self, row: Record, number: int) -> None:
        name = row._mapping.get("page_name")
        found = self._examined("Page", row.id, to_text(name))
        if name is None:
            name = _at(found.value, "metadata", "name") or _at(found.value, "data", "name")
        dimension = to_int32(row._mapping.get("page_dimension"))
        if dimension is None or dimension < 0:
            dimension = max(to_int32(_at(found.value, "dimensions")) or 0, 0)
        values = {"id": row.id, "estimator_id": row.estimator_id, "page_number": number}
        values |= {"page_name": to_text(name), "page_dimension": dimension}
        self.work.add("Page", [values | found.payload().columns()])

    def _unused_pages(self, estimator_id: int) -> Iterator[int]:
        page = self.work.old["Page"]
        numbers = select(type_coerce(page.c.page_number, NullType())).where(page.c.estimator_id == estimator_id)
        return unused_numbers(self.work.connection.execute(numbers).scalars())

    # One payload

    def _read(self, table: str, number: int) -> bytes:
        old = self.work.old[table]
        return to_bytes(self.work.connection.execute(select(old.c.compressed_data).where(old.c.id == number)).scalar())

    def _examined(self, table: str, number: int, name: str = "") -> _Found:
        """Read a payload, and tell what is the matter with it, if anything is."""
        stored = self._read(table, number)
        if not stored:
            self._decide(table, number, "holds an empty value", "its payload was null or empty")
            stored = codec.encode_payload(self._empty(table, name)).data
        try:
            content = codec.decode_text(stored)
        except InvalidInput as damage:
            self._decide(table, number, "its bytes are kept", str(damage))
            return _Found(stored, None)
        replaced = 0 if table == "Logfiles" else codec.numbers_replaced(content)  # they are texts, not numbers
        if replaced:
            what = "its bytes are kept; readers get null, or a 0 that data.missing names, in their place"
            self._decide(table, number, what, f"holds {replaced} NaN or infinite numbers")
        try:
            return _Found(stored, content, codec.decode_payload(stored))
        except InvalidInput as damage:
            self._decide(table, number, "its bytes are kept", str(damage))
            return _Found(stored, content)

    def _empty(self, table: str, name: str = "") -> Any:
        """What stands for a payload that is not there, so that readers find the shape that they expect."""
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


def _as_log_file(name: str, found: _Found) -> codec.Payload:
    """A payload as one log file: its text, or the bytes in base64 if they have none."""
    try:
        if found.content is not None:
            return codec.encode_payload({f"{name}.json": found.content.decode()})
    except UnicodeDecodeError:
        pass
    return codec.encode_payload({f"{name}.json.gz.base64": base64.b64encode(found.data).decode()})


def _at(value: Any, *keys: str) -> Any:
    """What is in nested objects under `keys`; None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count_bytes(work: Work) -> None:
    """Have every simulation know what its payloads take."""
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

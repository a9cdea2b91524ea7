"""Results: take them in whole or not at all, and give them out as they were stored."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Annotated, Any

import msgspec
from sqlalchemy import Connection

from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.codec import Stored
from yaptide.persistence.engine import retried
from yaptide.persistence.models.simulations import EDITOR
from yaptide.persistence.payload import NewEstimator, NewPage, Payload
from yaptide.persistence.queries import moves, results, simulations
from yaptide.persistence.queries.moves import Cause, Locked
from yaptide.persistence.queries.users import User
from yaptide.persistence.result_files import ResultFile
from yaptide.services import lifecycle
from yaptide.services.access import owned
from yaptide.services.backend import Backend, now

_MAX_NAME = 500
_FLUKA_FILE = re.compile(r"\d+_fort\.(\d+)")
_FLUKA_FIRST_UNIT = 21  # the editor's outputs get the units 21, 22, ... in their order


class _Numbers(msgspec.Struct):
    values: list[float]
    name: str = ""
    unit: str = ""


class _Page(msgspec.Struct):
    """What is looked at of a page before its bytes are stored as they came."""

    dimensions: int
    data: _Numbers
    metadata: dict[str, Any] = {}
    axis_dim1: _Numbers | None = None
    axis_dim2: _Numbers | None = None
    axis_dim3: _Numbers | None = None
    axis_dim4: _Numbers | None = None
    axis_dim5: _Numbers | None = None


class _Estimator(msgspec.Struct):
    name: str
    pages: list[msgspec.Raw]
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Key(msgspec.Struct):
    """Who a report is about and what entitles to it."""

    simulation_id: _Number
    update_key: str


class JobKey(Key):
    """The same as `POST /jobs` spells it."""

    simulation_id: _Number = msgspec.field(name="sim_id")


class _Body(Key):
    estimators: list[_Estimator]


_BODY = msgspec.json.Decoder(_Body)
_ONE_PAGE = msgspec.json.Decoder(_Page)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def key_of(body: bytes | memoryview, kind: type[Key] = Key) -> Key:
    """The key in the body of a report, found without making objects of the rest; raises InvalidInput."""
    with _readable(body):
        return msgspec.json.decode(body, type=kind)


def check_key(backend: Backend, key: Key) -> str:
    """Public name of the simulation whose update key this is: asked before a large body is read and parsed.

    Raises InvalidInput for any other key.
    """
    with backend.database.reading() as connection:
        found = moves.find_simulation(connection, key.simulation_id)
        return lifecycle.check_update_key(backend, found, key.update_key).job_id


@retried
def post(backend: Backend, body: bytes | memoryview) -> None:
    """Store the results that a worker sends, and end the simulation; the same results again change nothing.

    The pages are checked and then stored byte for byte as they came. Raises InvalidInput for a wrong key or for results
    that cannot be shown (no numbers, wrong lengths, two pages of one number), Conflict if the simulation has other
    results or has failed or been canceled.
    """
    with _readable(body):
        parsed = _BODY.decode(body)
    check_key(backend, parsed)
    if not parsed.estimators:
        raise InvalidInput("There are no estimators in the results")
    found = [_estimator(estimator, body) for estimator in parsed.estimators]
    with backend.database.writing() as connection:
        locked = moves.lock_simulation(connection, parsed.simulation_id)
        simulation = lifecycle.check_update_key(backend, locked, parsed.update_key)
        store(connection, simulation, found, Cause(lifecycle.WORKER, now()))


def store(connection: Connection, simulation: Locked, found: Sequence[NewEstimator], cause: Cause) -> None:
    """Add results and end the simulation (COMPLETED only if no task failed) in the running transaction.

    Tasks whose last report got lost are completed: their scores are here. Raises Conflict if the simulation has other
    results, or has failed or been canceled; sending the same results again changes nothing.
    """
    if simulation.input_type == EDITOR:
        found = _named_as_in_project(connection, simulation.id, found)
    _check_unique(found)
    digests = results.digests(connection, simulation.id)
    if digests:
        if digests != _digests(found):
            raise Conflict("The simulation has other results already; they are kept")
        return
    if simulation.job_state in (EntityState.FAILED, EntityState.CANCELED):
        raise Conflict(f"The simulation is {simulation.job_state}; its results are no longer accepted")
    add(connection, simulation, found)
    lifecycle.end(connection, simulation, EntityState.COMPLETED, cause)


def add(connection: Connection, simulation: Locked, found: Sequence[NewEstimator]) -> None:
    """Add results in the running transaction, unless there are some."""
    if not results.digests(connection, simulation.id):
        simulations.count_bytes(connection, simulation.id, results.add(connection, simulation.id, found))


def read_file(file: IO[bytes]) -> list[NewEstimator]:
    """Check the results in a worker's file (`yaptide.persistence.result_files`), whose payloads are stored as they are.

    Raises InvalidInput for results that cannot be shown.
    """
    opened = ResultFile(file)
    found = []
    for e, entry in enumerate(opened.estimators):
        _check_text(entry.name, "An estimator's name")
        _check_text(entry.file_name, "An estimator's file name")
        metadata, text = _payload(opened.metadata(e))
        with _readable(text):
            _OBJECT.decode(text)
        pages = []
        for p in range(len(entry.pages)):
            payload, text = _payload(opened.page(e, p))
            number, name, dimensions = _checked_page(text, p, entry.name)
            pages.append(NewPage(number, name, dimensions, payload))
        if not pages:
            raise InvalidInput(f"Estimator {entry.name!r} has no pages")
        found.append(NewEstimator(entry.name, entry.file_name, metadata, tuple(pages)))
    if not found:
        raise InvalidInput("There are no estimators in the results")
    return found


def _payload(data: bytes) -> tuple[Payload, bytes]:
    """A payload that was made elsewhere, and its text."""
    if not codec.written_here(data):
        raise InvalidInput("The results are not encoded as yaptide does it")
    codec.check_joinable(data)
    text = codec.decode_text(data)
    return Payload(data, len(text), hashlib.sha256(text).hexdigest()), text


def _estimator(estimator: _Estimator, body: bytes | memoryview) -> NewEstimator:
    _check_text(estimator.name, "An estimator's name")
    with _readable(body):
        _OBJECT.decode(estimator.metadata)
    if not estimator.pages:  # nobody could look at it
        raise InvalidInput(f"Estimator {estimator.name!r} has no pages")
    pages = [_page(raw, position, estimator.name) for position, raw in enumerate(estimator.pages)]
    payload = codec.encode_text(memoryview(estimator.metadata))
    return NewEstimator(estimator.name, estimator.name, payload, tuple(pages))


def _page(raw: msgspec.Raw, position: int, estimator: str) -> NewPage:
    number, name, dimensions = _checked_page(memoryview(raw), position, estimator)
    return NewPage(number, name, dimensions, codec.encode_text(memoryview(raw)))


def _checked_page(text: bytes | memoryview, position: int, estimator: str) -> tuple[int, str, int]:
    """Number, name and dimensions of the page that a JSON text is; raises InvalidInput."""
    with _readable(text):
        str(text, "utf-8")  # the decoder does not look into text that it skips
        page = _ONE_PAGE.decode(text)
    number = _page_number(page.metadata.get("page_number", position))
    where = f"Page {number} of estimator {estimator!r}"
    _check_shape(page, where)
    name = str(page.metadata.get("name", page.data.name))
    _check_text(name, f"The name of page {number} of estimator {estimator!r}")
    return number, name, page.dimensions


def _page_number(value: object) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidInput(f"{text[:40]!r} is no page number")
    return int(text)


def _check_shape(page: _Page, where: str) -> None:
    axes = (page.axis_dim1, page.axis_dim2, page.axis_dim3, page.axis_dim4, page.axis_dim5)
    if not 0 <= page.dimensions <= len(axes):
        raise InvalidInput(f"{where} has {page.dimensions} dimensions; there may be 0 to {len(axes)}")
    used = axes[: page.dimensions]
    if None in used:
        raise InvalidInput(f"{where} has {page.dimensions} dimensions, but not as many axes (axis_dim1, ...)")
    expected = math.prod(len(axis.values) for axis in used if axis is not None)
    if len(page.data.values) != expected or not expected:
        raise InvalidInput(f"{where} has {len(page.data.values)} values, its axes ask for {expected}")


def _check_text(text: str, what: str) -> None:
    if not text or len(text) > _MAX_NAME or "\0" in text:
        raise InvalidInput(f"{what} must have 1 to {_MAX_NAME} characters")


def _check_unique(found: Sequence[NewEstimator]) -> None:
    names = [estimator.name for estimator in found]
    pages = [(estimator.name, page.number) for estimator in found for page in estimator.pages]
    for kind, keys in (("estimator", names), ("page", pages)):
        if len(set(keys)) != len(keys):
            raise InvalidInput(f"The results hold two of the same {kind}")


def _digests(found: Sequence[NewEstimator]) -> dict[tuple[str, int], str]:
    whole = {(estimator.name, -1): estimator.payload.sha256 for estimator in found}
    pages = {(e.name, page.number): page.payload.sha256 for e in found for page in e.pages}
    return whole | pages


def _named_as_in_project(
    connection: Connection, simulation_id: int, found: Sequence[NewEstimator]
) -> list[NewEstimator]:
    """Give the estimators of an editor's project the names and the order of its outputs."""
    data = simulations.input_of(connection, simulation_id)
    project = codec.decode(data)["input_json"] if data else {}
    names = _output_names(project)
    placed = [(_output_index(estimator.file_name, names), estimator) for estimator in found]
    placed.sort(key=lambda pair: len(names) if pair[0] is None else pair[0])
    return [
        NewEstimator(e.name if index is None else names[index], e.file_name, e.payload, e.pages) for index, e in placed
    ]


def _output_names(project: object) -> list[str]:
    manager = project.get("scoringManager") if isinstance(project, Mapping) else None
    outputs = manager.get("outputs") if isinstance(manager, Mapping) else None
    if not isinstance(outputs, list):
        return []
    names = [output.get("name") if isinstance(output, Mapping) else None for output in outputs]
    return [name if isinstance(name, str) else "" for name in names]


def _output_index(file_name: str, names: Sequence[str]) -> int | None:
    """Which output of the project a simulator's file belongs to: by name or by unit, never by its place in a list."""
    for candidate in (file_name, file_name.removesuffix("_")):
        if candidate in names:
            return names.index(candidate)
    unit = _FLUKA_FILE.fullmatch(file_name)
    index = int(unit[1]) - _FLUKA_FIRST_UNIT if unit else -1
    return index if 0 <= index < len(names) and names[index] else None


@contextmanager
def _readable(body: bytes | memoryview) -> Iterator[None]:
    """Say of a body that cannot be read what is wrong with it."""
    try:
        yield
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        text = bytes(body)
        if b"NaN" in text or b"Infinity" in text:
            raise InvalidInput("The results hold NaN or Infinity, which JSON has no word for") from error
        raise InvalidInput(f"The body is not what was expected: {error}") from error


def pages_metadata(backend: Backend, user: User, job_id: str) -> list[dict[str, Any]]:
    """Names, numbers and dimensions of all pages by estimator; raises NotFound if there are no results."""
    with backend.database.reading() as connection:
        rows = results.pages_metadata(connection, owned(connection, user, job_id).id)
    if not rows:
        raise NotFound("Pages metadata not found")
    found: dict[str, list[dict[str, Any]]] = {}
    for name, number, page_name, dimension in rows:
        page = {"page_number": number, "page_name": page_name, "page_dimension": dimension}
        found.setdefault(name, []).append(page)
    return [{"name": name, "pages_metadata": pages} for name, pages in found.items()]


Part = bytes | Stored


def read(backend: Backend, user: User, job_id: str, estimator: str | None = None) -> list[Part]:
    """All results of a simulation (or those of one estimator) as the parts of a JSON list for `codec.stitch`.

    Raises NotFound if there are none.
    """
    parts: list[Part] = []
    with backend.database.reading() as connection:
        rows = results.estimators(connection, owned(connection, user, job_id).id, estimator)
        for row in rows:
            parts.append((b"," if parts else b"[") + b'{"name":' + msgspec.json.encode(row.name) + b',"metadata":')
            parts += [Stored(row.compressed_data), b',"pages":']
            parts += _listed(data for _, data in results.page_payloads(connection, row.id))
            parts.append(b"}")
    if not rows:
        raise NotFound("Results are unavailable")
    return [*parts, b"]"]


def read_pages(
    backend: Backend, user: User, job_id: str, estimator: str, ranges: Sequence[tuple[int, int]]
) -> list[Part]:
    """The pages of one estimator in the inclusive `ranges`, as the parts of a JSON list; raises NotFound."""
    with backend.database.reading() as connection:
        rows = results.estimators(connection, owned(connection, user, job_id).id, estimator)
        pages = results.page_payloads(connection, rows[0].id, ranges) if rows else []
    if not pages:
        raise NotFound("Results are unavailable")
    return list(_listed(data for _, data in pages))


def _listed(payloads: Iterator[bytes]) -> Iterator[Part]:
    glue = b"["
    for data in payloads:
        yield glue
        yield Stored(data)
        glue = b","
    yield b"]" if glue == b"," else b"[]"

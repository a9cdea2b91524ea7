"""Results: take them in whole or not at all, and give them out as they were stored."""

import hashlib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Annotated, Any, cast

import msgspec
from sqlalchemy import Connection

from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.codec import Stored
from yaptide.persistence.engine import retried
from yaptide.persistence.models.simulations import EDITOR
from yaptide.persistence.payload import AnyPayload, LargePayload, NewEstimator, NewPage, Payload, pieces
from yaptide.persistence.queries import moves, results, simulations
from yaptide.persistence.queries.moves import Cause, Locked
from yaptide.persistence.queries.users import User
from yaptide.persistence.result_files import ResultFile
from yaptide.services import lifecycle
from yaptide.services.access import owned
from yaptide.services.backend import Backend, now
from yaptide.services.slimming import Slim, slim
from yaptide.simulators import find_output

_MAX_NAME = 500
#: Payloads of more bytes than this are not read all at once, and no more than so many of one payload.
_AT_ONCE = 16 << 20
_SLICE = 8 << 20
_ENDS = 64


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


def post(backend: Backend, body: bytes) -> str:
    """Store the results that a worker sends, and end the simulation; the same results again change nothing.

    Returns the job's public name. The pages are checked and then stored byte for byte as they came. Raises InvalidInput
    for a wrong key or for results that cannot be shown (no numbers, wrong lengths, two pages of one number), Conflict
    if the simulation has other results or has failed or been canceled.
    """
    return _post(backend, Slim(body), None)


def post_file(backend: Backend, file: IO[bytes]) -> str:
    """The same for a body too large to be held in memory, which waits in a file; returns the job's public name."""
    file.flush()
    return _post(backend, slim(pieces(file, 0, os.fstat(file.fileno()).st_size)), file)


@retried
def _post(backend: Backend, body: Slim, file: IO[bytes] | None) -> str:
    with _readable(body.text):
        parsed = _BODY.decode(body.text)
    job_id = check_key(backend, parsed)
    if not parsed.estimators:
        raise InvalidInput("There are no estimators in the results")
    with tempfile.TemporaryFile(dir=backend.data_dir) if file else nullcontext() as aside:
        source = _Source(body, file, aside)
        found = [_estimator(estimator, source) for estimator in parsed.estimators]
        _keep(backend, parsed, found)
    return job_id


def _keep(backend: Backend, parsed: "_Body", found: Sequence[NewEstimator]) -> None:
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
        found = _named_as_in_project(connection, simulation, found)
    check_unique(found)
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
    unpacked = _unpacked(file, opened)
    found = []
    for e, entry in enumerate(opened.estimators):
        _check_text(entry.name, "An estimator's name")
        _check_text(entry.file_name, "An estimator's file name")
        metadata, text = _payload(opened.metadata(e))
        with _readable(text):
            _OBJECT.decode(text)
        pages = []
        for p in range(len(entry.pages)):
            body, payload = _next_page(unpacked)
            pages.append(NewPage(*_checked_page(body.text, body, p, entry.name), payload))
        if not pages:
            raise InvalidInput(f"Estimator {entry.name!r} has no pages")
        found.append(NewEstimator(entry.name, entry.file_name, metadata, tuple(pages)))
    if not found:
        raise InvalidInput("There are no estimators in the results")
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    """A body, the file that holds the whole of it if it is a large one, and a file for large payloads made of it."""

    body: Slim
    file: IO[bytes] | None
    aside: IO[bytes] | None

    def original(self, part: msgspec.Raw) -> Iterator[bytes]:
        """A part of the body as it came, piece by piece."""
        return self.body.original(memoryview(part), self.file) if self.file else iter([bytes(part)])

    def payload(self, part: msgspec.Raw) -> AnyPayload:
        """A part of the body as a payload."""
        if self.aside is None:
            return codec.encode_text(memoryview(part))
        return codec.encode_pieces(self.original(part), self.aside)


def _payload(data: bytes) -> tuple[Payload, bytes]:
    """A payload that was made elsewhere, and its text."""
    codec.check_ends(data[:_ENDS], data[-_ENDS:])
    text = codec.decode_text(data)
    return Payload(data, len(text), hashlib.sha256(text).hexdigest()), text


def _unpacked(file: IO[bytes], opened: ResultFile) -> Iterator[bytes | AnyPayload]:
    """The text of each page that a worker sent, piece by piece, and after it the page as a payload."""
    for e, entry in enumerate(opened.estimators):
        for p in range(len(entry.pages)):
            start, length = opened.page(e, p)
            last = start + length - _ENDS
            codec.check_ends(b"".join(pieces(file, start, _ENDS)), b"".join(pieces(file, last, _ENDS)))
            digest, size = hashlib.sha256(), 0
            for piece in codec.inflated(pieces(file, start, length)):
                digest.update(piece)
                size += len(piece)
                yield piece
            whole = LargePayload(file, start, length, size, digest.hexdigest())
            yield whole if length > codec.LARGE else Payload(b"".join(whole.chunks()), size, whole.sha256)


def _next_page(unpacked: Iterator[bytes | AnyPayload]) -> tuple[Slim, AnyPayload]:
    payload: AnyPayload | None = None

    def text() -> Iterator[bytes]:
        nonlocal payload
        for piece in unpacked:
            if not isinstance(piece, bytes):
                payload = piece
                return
            yield piece

    body = slim(text())
    return body, cast("AnyPayload", payload)


def _estimator(estimator: _Estimator, source: _Source) -> NewEstimator:
    _check_text(estimator.name, "An estimator's name", source.body)
    metadata = b"".join(source.original(estimator.metadata))
    with _readable(metadata):
        _OBJECT.decode(metadata)
    if not estimator.pages:  # nobody could look at it
        raise InvalidInput(f"Estimator {estimator.name!r} has no pages")
    pages = tuple(_page(raw, position, estimator.name, source) for position, raw in enumerate(estimator.pages))
    return NewEstimator(estimator.name, estimator.name, codec.encode_text(metadata), pages)


def _page(raw: msgspec.Raw, position: int, estimator: str, source: _Source) -> NewPage:
    if source.file is None:  # a few numbers at a time are read sooner than all of them
        body = slim([memoryview(raw)])
        text: bytes | memoryview = body.text
    else:
        body, text = source.body, memoryview(raw)
    return NewPage(*_checked_page(text, body, position, estimator), source.payload(raw))


def _checked_page(text: bytes | memoryview, body: Slim, position: int, estimator: str) -> tuple[int, str, int]:
    """Number, name and dimensions of the page that a part of a body is; raises InvalidInput."""
    with _readable(text):
        str(text, "utf-8")  # the decoder does not look into text that it skips
        page = _ONE_PAGE.decode(text)
    number = _page_number(page.metadata.get("page_number", position))
    where = f"Page {number} of estimator {estimator!r}"
    _check_shape(page, where, body)
    name = str(page.metadata.get("name", page.data.name))
    _check_text(name, f"The name of page {number} of estimator {estimator!r}", body)
    return number, name, page.dimensions


def _page_number(value: object) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidInput(f"{text[:40]!r} is no page number")
    return int(text)


def _check_shape(page: _Page, where: str, body: Slim) -> None:
    axes = (page.axis_dim1, page.axis_dim2, page.axis_dim3, page.axis_dim4, page.axis_dim5)
    if not 0 <= page.dimensions <= len(axes):
        raise InvalidInput(f"{where} has {page.dimensions} dimensions; there may be 0 to {len(axes)}")
    used = axes[: page.dimensions]
    if None in used:
        raise InvalidInput(f"{where} has {page.dimensions} dimensions, but not as many axes (axis_dim1, ...)")
    expected = math.prod(body.count(axis.values) for axis in used if axis is not None)
    count = body.count(page.data.values)
    if count != expected or not expected:
        raise InvalidInput(f"{where} has {count} values, its axes ask for {expected}")


def _check_text(text: str, what: str, body: Slim | None = None) -> None:
    if not text or len(text) > _MAX_NAME or "\0" in text or not (body is None or body.is_whole(text)):
        raise InvalidInput(f"{what} must have 1 to {_MAX_NAME} characters")


def check_unique(found: Sequence[NewEstimator]) -> None:
    """Raise InvalidInput for two estimators of one name, or two pages of one number."""
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
    connection: Connection, simulation: Locked, found: Sequence[NewEstimator]
) -> list[NewEstimator]:
    """Give the estimators of an editor's project the names and the order of its outputs."""
    data = simulations.input_of(connection, simulation.id)
    project = codec.decode(data)["input_json"] if data else {}
    names = _output_names(project)
    placed = [(find_output(simulation.sim_type, estimator.file_name, names), estimator) for estimator in found]
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


@dataclass(frozen=True, slots=True)
class Document:
    """Parts for `codec.stitch`; `length` is that of what it gives, where the parts are read while they are sent."""

    parts: Iterable[codec.Part]
    length: int | None

    def __iter__(self) -> Iterator[codec.Part]:
        """Go through the parts, once."""
        return iter(self.parts)


def read(
    backend: Backend, user: User, job_id: str, estimator: str | None = None, around: tuple[bytes, bytes] = (b"", b"")
) -> Document:
    """All results of a simulation (or those of one estimator), a JSON list, with text `around` it.

    Raises NotFound if there are none.
    """
    rows, found = _found(backend, user, job_id, estimator)
    if not rows:
        raise NotFound("Results are unavailable")
    pages: dict[int, list[Any]] = {row.id: [] for row in rows}
    for page in found:
        pages[page.estimator_id].append(page)
    plan: list[Any] = [around[0]]
    for row in rows:
        head = b"," if row is not rows[0] else b"["
        plan.append(head + b'{"name":' + msgspec.json.encode(row.name) + b',"metadata":')
        plan += [Stored(row.compressed_data), b',"pages":', *_listed(pages[row.id]), b"}"]
    return _document(backend, [*plan, b"]" + around[1]])


def read_pages(
    backend: Backend,
    user: User,
    job_id: str,
    estimator: str,
    ranges: Sequence[tuple[int, int]],
    around: tuple[bytes, bytes] = (b"", b""),
) -> Document:
    """The pages of one estimator in the inclusive `ranges`, a JSON list, with text `around` it; raises NotFound."""
    _, found = _found(backend, user, job_id, estimator, ranges)
    if not found:
        raise NotFound("Results are unavailable")
    return _document(backend, [around[0], *_listed(found), around[1]])


def _found(
    backend: Backend, user: User, job_id: str, estimator: str | None, ranges: Sequence[tuple[int, int]] | None = None
) -> tuple[list[Any], list[Any]]:
    """Rows of `results.estimators` and of `results.pages`; the latter without payloads if they are to be streamed.

    Results never change: that they are read by one statement after the other shows only if they are deleted meanwhile.
    """
    with backend.database.glancing() as connection:
        rows = results.estimators(connection, owned(connection, user, job_id).id, estimator)
        ids = [row.id for row in rows]
        found = results.pages(connection, ids, ranges, _AT_ONCE)
        if not found:
            owned(connection, user, job_id)
        elif found[0].compressed_data is None and not _is_ours(connection, found):
            found = results.pages(connection, ids, ranges)  # what has to be written anew is not streamed
    return rows, found


def _is_ours(connection: Connection, pages: Sequence[Any]) -> bool:
    return all(map(codec.written_here, results.page_heads(connection, [page.id for page in pages], _ENDS)))


def _listed(pages: Sequence[Any]) -> Iterator[Any]:
    """Pages as a list: rows of `results.pages` and what stands between them."""
    glue = b"["
    for page in pages:
        yield glue
        yield page
        glue = b","
    yield b"]" if pages else b"[]"


def _document(backend: Backend, plan: Sequence[Any]) -> Document:
    """The document of a plan: glue, payloads, and rows of `results.pages`, which bring theirs or have it read."""
    if all(part.compressed_data is not None for part in plan if not isinstance(part, bytes | Stored)):
        return Document([p if isinstance(p, bytes | Stored) else Stored(p.compressed_data) for p in plan], None)
    ours = all(codec.written_here(part.data) for part in plan if isinstance(part, Stored))
    lengths = (part if isinstance(part, bytes) else _length(part) for part in plan)
    return Document(_streamed(backend, plan), codec.stitched_length(lengths) if ours else None)


def _length(part: Any) -> int:
    return len(part.data) if isinstance(part, Stored) else part.length


def _streamed(backend: Backend, plan: Sequence[Any]) -> Iterator[codec.Part]:
    for part in plan:
        yield part if isinstance(part, bytes | Stored) else codec.Streamed(_sliced(backend, part), part.length)


def _sliced(backend: Backend, page: Any) -> Iterator[bytes]:
    """A payload, each slice in a transaction of its own: whoever reads slowly holds nothing up."""
    start = 0
    while start < page.length:
        with backend.database.reading() as connection:
            piece = results.page_slice(connection, page.id, start, _SLICE)
        if not piece:
            raise NotFound("The results were deleted while they were read")
        yield piece
        start += len(piece)

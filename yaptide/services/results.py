"""Results: store them completely or not at all, and return them as stored."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, cast

import msgspec
from sqlalchemy import Connection

from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.estimators import RefusedPage, refused_metadata
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.codec import Stored
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.models.simulations import EDITOR
from yaptide.persistence.payload import AnyPayload, LargePayload, NewEstimator, NewPage, Payload, read_pieces
from yaptide.persistence.queries import results, simulations, transitions
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.persistence.queries.users import User
from yaptide.persistence.result_files import ResultFile
from yaptide.services import lifecycle
from yaptide.services.access import find_readable
from yaptide.services.backend import Backend, utc_now
from yaptide.services.large_json import LargeJson, Read, slim_json
from yaptide.services.pages import (
    MAX_NAME,
    ORDER,
    OTHER_ORDER,
    OUR_ORDER,
    check_page,
    check_text,
    explain_unreadable,
    number_of,
    write_anew,
)
from yaptide.simulators import find_output

#: Payloads of more bytes in total are streamed, in slices of _SLICE bytes.
_AT_ONCE = 16 << 20
_SLICE = 8 << 20
_ENDS = 64
#: Maximum number of axes of pages that the front end can draw.
_MOST_DRAWN = 2
#: Limits for decompressed text: of all payloads in a worker's file, and of one estimator's metadata.
_MOST_TEXT = 4 << 30
_MOST_METADATA = 16 << 20
_MAX_RANGES = 500  # SQLite accepts at most 1000 alternatives
_MAX_SPAN = 10_000

#: Maximum number of rejected pages that are listed, and listed in the history.
_MOST_NAMED = 1000
_MOST_IN_HISTORY = 20
_MOST_REASON = 300


class _Estimator(msgspec.Struct):
    name: str
    pages: list[msgspec.Raw]
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Key(msgspec.Struct):
    """The simulation of a report, and its update key."""

    simulation_id: _Number
    update_key: str


class JobKey(Key):
    """The same with the field names of `POST /jobs`."""

    simulation_id: _Number = msgspec.field(name="sim_id")


class _Body(Key):
    estimators: list[_Estimator]


_BODY = msgspec.json.Decoder(_Body)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def key_of(body: bytes | memoryview, kind: type[Key] = Key) -> Key:
    """Return the key in the body of a report without decoding the rest; raise InvalidInput."""
    with explain_unreadable():
        return msgspec.json.decode(body, type=kind)


def check_key(backend: Backend, key: Key) -> str:
    """Return the job_id of the simulation with this update key; called before a large body is read.

    Raises InvalidInput for any other key.
    """
    with backend.database.reading() as connection:
        simulation = transitions.find_simulation(connection, key.simulation_id)
        return lifecycle.check_update_key(backend, simulation, key.update_key).job_id


@dataclass(frozen=True, slots=True)
class Posted:
    """The simulation whose results were stored, and the rejected pages."""

    job_id: str
    refused: Sequence[RefusedPage]


def post_results(backend: Backend, body: bytes | IO[bytes]) -> Posted:
    """Store the results from a worker, and end the simulation; repeats change nothing.

    A body too large for memory is in a file. An invalid page (no numbers, wrong lengths, duplicate number) is left out
    alone, and listed in the history. The others are stored as they are, or converted by `yaptide.services.pages`.
    Raises InvalidInput for a wrong key or if no page is valid, Conflict if the simulation has other results or has
    failed or been canceled.
    """
    with ExitStack() as files:
        posted, source = _parse_body(backend, body, files)
        job_id = check_key(backend, posted)
        estimators, refused = _check_estimators(posted.estimators, source)
        _store_posted(backend, posted, estimators)
    return Posted(job_id, refused[:_MOST_NAMED])


def _parse_body(backend: Backend, body: bytes | IO[bytes], files: ExitStack) -> tuple[_Body, "_Source"]:
    """Return the body without the numbers of its pages, and their source, also if it has NaN or infinities.

    `files` closes the temporary files.
    """
    source = _open_source(backend, body, files)
    try:
        return _decode_body(source), source
    except InvalidInput:
        if not codec.holds_other_words([source.body.text]):
            raise
    source = _open_source(backend, _in_json_words(backend, body, files), files)
    return _decode_body(source), source


def _open_source(backend: Backend, body: bytes | IO[bytes], files: ExitStack) -> "_Source":
    if isinstance(body, bytes):
        return _Source(LargeJson(body), None, None, backend.data_dir)
    blob_file = _temporary_file(backend, files)
    return _Source(slim_json(_read_file(body)), body, blob_file, backend.data_dir)


def _decode_body(source: "_Source") -> _Body:
    with explain_unreadable():
        return _BODY.decode(source.body.text)


def _in_json_words(backend: Backend, body: bytes | IO[bytes], files: ExitStack) -> bytes | IO[bytes]:
    if isinstance(body, bytes):
        return b"".join(codec.json_words([body]))
    copy = _temporary_file(backend, files)
    copy.writelines(codec.json_words(_read_file(body)))
    return copy


def _temporary_file(backend: Backend, files: ExitStack) -> IO[bytes]:
    return files.enter_context(tempfile.TemporaryFile(dir=backend.data_dir))


def _read_file(file: IO[bytes]) -> Iterator[bytes]:
    file.flush()
    return read_pieces(file, 0, os.fstat(file.fileno()).st_size)


def _check_estimators(
    posted: Sequence[_Estimator], source: "_Source"
) -> tuple[Sequence[NewEstimator], Sequence[RefusedPage]]:
    """Return the estimators with their valid pages as payloads, and the rejected pages.

    Raises InvalidInput if no page is valid.
    """
    if not posted:
        raise InvalidInput("The results have no estimators")
    estimators = _estimators(posted, source)
    refused = [page for estimator in estimators for page in estimator.refused]
    if not any(estimator.pages for estimator in estimators):
        raise InvalidInput(f"No page of the results is valid: {refused[0]}")
    return estimators, refused


@retry_contended
def _store_posted(backend: Backend, key: Key, estimators: Sequence[NewEstimator]) -> None:
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, key.simulation_id)
        simulation = lifecycle.check_update_key(backend, locked, key.update_key)
        store_results(connection, simulation, estimators, Audit(lifecycle.WORKER, utc_now()))


def store_results(connection: Connection, simulation: Locked, estimators: Sequence[NewEstimator], audit: Audit) -> None:
    """Store results and end the simulation (COMPLETED only if no task failed) in the current transaction.

    Tasks whose last report was lost are completed, because their results are here. Raises Conflict if the simulation
    has other results, or has failed or been canceled; repeats change nothing.
    """
    valid = [estimator for estimator in estimators if estimator.pages]
    if simulation.input_type == EDITOR:
        valid = _named_as_in_project(connection, simulation, valid)
    check_unique(valid)
    digests = results.page_digests(connection, simulation.id)
    if digests:
        if digests != _digests(valid):
            raise Conflict("The simulation already has other results, which are kept")
        return
    if simulation.job_state in (EntityState.FAILED, EntityState.CANCELED):
        raise Conflict(f"The simulation is {simulation.job_state}; its results are no longer accepted")
    add_results(connection, simulation, valid)
    _name_refused(connection, simulation, [page for estimator in estimators for page in estimator.refused], audit)
    lifecycle.end_simulation(connection, simulation, EntityState.COMPLETED, audit)


def _name_refused(connection: Connection, simulation: Locked, refused: Sequence[RefusedPage], audit: Audit) -> None:
    """Record the rejected pages and the reasons: in the history, and for `GET /jobs`."""
    if not refused:
        return
    named = "; ".join(map(str, refused[:_MOST_IN_HISTORY]))
    more = f"; and {len(refused) - _MOST_IN_HISTORY} more" if len(refused) > _MOST_IN_HISTORY else ""
    transitions.add_audit_note(connection, simulation.id, Audit(audit.actor, audit.time, f"left out: {named}{more}"))
    text = msgspec.json.encode([page._asdict() for page in refused[:_MOST_NAMED]]).decode()
    simulations.set_values(connection, simulation.id, {"refused_pages": text})


def add_results(connection: Connection, simulation: Locked, estimators: Sequence[NewEstimator]) -> None:
    """Insert results in the current transaction, unless there are some."""
    if not results.page_digests(connection, simulation.id):
        simulations.count_bytes(connection, simulation.id, results.add_results(connection, simulation.id, estimators))


def read_file(file: IO[bytes]) -> list[NewEstimator]:
    """Validate the results in a worker's file, whose payloads are stored unchanged.

    See `yaptide.persistence.result_files`. Raises InvalidInput for results that cannot be displayed.
    """
    opened = ResultFile(file)
    unpacked = _unpacked(file, opened)
    estimators = []
    for e, entry in enumerate(opened.estimators):
        check_text(entry.name, "An estimator's name")
        check_text(entry.file_name, "An estimator's file name")
        metadata, text = _payload(opened.metadata(e))
        with explain_unreadable():
            _OBJECT.decode(text)
        new = (_page_of_worker(unpacked, p, entry.name) for p in range(len(entry.pages)))
        refused = tuple(
            RefusedPage(entry.name, page.page, page.reason[:_MOST_REASON]) for page in entry.refused[:_MOST_NAMED]
        )
        estimators.append(NewEstimator(entry.name, entry.file_name, metadata, tuple(new), refused))
        if not (estimators[-1].pages or refused):
            raise InvalidInput(f"Estimator {entry.name!r} has no pages")
    if not any(estimator.pages for estimator in estimators):
        raise InvalidInput("The results have no pages")
    return estimators


def _page_of_worker(unpacked: Iterator[bytes | AnyPayload], position: int, estimator: str) -> NewPage:
    body, payload = _next_page(unpacked)
    try:
        page = check_page(body.text, body, position, OUR_ORDER)
        if page.written_anew:
            raise InvalidInput("it is not in the form that yaptide writes")  # noqa: TRY301 - to add the page to the message
    except InvalidInput as error:
        raise InvalidInput(f"Page {number_of(body.text, position)} of estimator {estimator!r}: {error}") from error
    return NewPage(page.number, page.name, page.dimension, payload)


@dataclass(frozen=True, slots=True)
class _Source:
    """A body, its file if it is large, and a file for large payloads made from it."""

    body: LargeJson
    file: IO[bytes] | None
    aside: IO[bytes] | None
    folder: Path

    def original(self, part: msgspec.Raw) -> Iterator[bytes]:
        """Yield a part of the body as it was sent, in pieces."""
        return self.body.original(memoryview(part), self.file) if self.file else iter([bytes(part)])

    def slimmed(self, part: msgspec.Raw) -> tuple[bytes | memoryview, LargeJson, Read]:
        """Return a part of the body without most numbers, the pieces left out, and a function to read them."""
        if self.file is not None:
            file = self.file
            return memoryview(part), self.body, lambda start, length: b"".join(read_pieces(file, start, length))
        whole = memoryview(part)  # reading a few numbers at a time is faster
        body = slim_json([whole])
        return body.text, body, lambda start, length: bytes(whole[start : start + length])

    def as_it_came(self, part: msgspec.Raw) -> AnyPayload:
        """Return a part of the body as a payload."""
        if self.aside is None:
            return codec.encode_text(memoryview(part))
        return codec.encode_pieces(self.original(part), self.aside)

    def payload(self, text: Iterable[bytes]) -> AnyPayload:
        """Return JSON text as a payload."""
        return codec.encode_text(b"".join(text)) if self.aside is None else codec.encode_pieces(text, self.aside)


def _payload(data: bytes) -> tuple[Payload, bytes]:
    """Return a payload that was made elsewhere, and its text."""
    codec.check_ends(data[:_ENDS], data[-_ENDS:])
    text = b"".join(_bounded(codec.inflate_pieces([data]), _MOST_METADATA, "The metadata of an estimator have"))
    return Payload(data, len(text), hashlib.sha256(text).hexdigest()), text


def _bounded(text: Iterator[bytes], most: int, what: str) -> Iterator[bytes]:
    """Yield the same text; raise InvalidInput as soon as it has more than `most` bytes."""
    for piece in text:
        most -= len(piece)
        if most < 0:
            raise InvalidInput(f"{what} too much text")
        yield piece


def _unpacked(file: IO[bytes], opened: ResultFile) -> Iterator[bytes | AnyPayload]:
    """Yield the text of each page from a worker in pieces, followed by the page as a payload."""
    room = _MOST_TEXT
    for e, entry in enumerate(opened.estimators):
        for p in range(len(entry.pages)):
            start, length = opened.page(e, p)
            last = start + length - _ENDS
            codec.check_ends(b"".join(read_pieces(file, start, _ENDS)), b"".join(read_pieces(file, last, _ENDS)))
            digest, size = hashlib.sha256(), 0
            text = codec.inflate_pieces(read_pieces(file, start, length))
            for piece in _bounded(text, room, "The results have"):
                digest.update(piece)
                size += len(piece)
                yield piece
            room -= size
            whole = LargePayload(file, start, length, size, digest.hexdigest())
            yield whole if length > codec.LARGE else Payload(b"".join(whole.chunks()), size, whole.sha256)


def _next_page(unpacked: Iterator[bytes | AnyPayload]) -> tuple[LargeJson, AnyPayload]:
    payload: AnyPayload | None = None

    def text() -> Iterator[bytes]:
        nonlocal payload
        for piece in unpacked:
            if not isinstance(piece, bytes):
                payload = piece
                return
            yield piece

    body = slim_json(text())
    return body, cast("AnyPayload", payload)


def _estimators(parsed: Sequence[_Estimator], source: _Source) -> list[NewEstimator]:
    by_name = dict[str, NewEstimator]()
    duplicates = []
    for estimator in parsed:
        if estimator.name in by_name:
            duplicates.append(_refused(estimator, "there is another one of this name"))
            continue
        try:
            by_name[estimator.name] = _estimator(estimator, source)
        except InvalidInput as error:
            by_name[estimator.name] = _refused(estimator, str(error))
    return [*by_name.values(), *duplicates]


def _refused(estimator: _Estimator, reason: str) -> NewEstimator:
    """Return an estimator without any valid page."""
    refused = RefusedPage(estimator.name[:MAX_NAME], None, reason[:_MOST_REASON])
    return NewEstimator(estimator.name, estimator.name, codec.encode_payload({}), (), (refused,))


def _estimator(estimator: _Estimator, source: _Source) -> NewEstimator:
    check_text(estimator.name, "An estimator's name", source.body)
    text = b"".join(source.original(estimator.metadata))
    with explain_unreadable():
        metadata = _OBJECT.decode(text)
    if not estimator.pages:  # it could not be displayed
        raise InvalidInput("it has no pages")
    order = str(metadata.get(ORDER, OUR_ORDER))
    pages, refused = _pages(estimator, order, source)
    changes = ({ORDER: OUR_ORDER} if order == OTHER_ORDER else {}) | refused_metadata(refused)
    payload = codec.encode_payload(metadata | changes) if changes else codec.encode_text(text)
    return NewEstimator(estimator.name, estimator.name, payload, tuple(pages), tuple(refused))


def _pages(estimator: _Estimator, order: str, source: _Source) -> tuple[list[NewPage], list[RefusedPage]]:
    kept, refused = dict[int, NewPage](), list[RefusedPage]()
    for position, raw in enumerate(estimator.pages):
        text, body, read = source.slimmed(raw)
        try:
            page = check_page(text, body, position, order, kept)
            if page.written_anew:
                payload = source.payload(write_anew(text, body, read, order, source.folder))
            else:
                payload = source.as_it_came(raw)
            kept[page.number] = NewPage(page.number, page.name, page.dimension, payload)
        except InvalidInput as error:
            refused.append(RefusedPage(estimator.name, number_of(text, position), str(error)[:_MOST_REASON]))
    return list(kept.values()), refused


def check_unique(estimators: Sequence[NewEstimator]) -> None:
    """Raise InvalidInput for duplicate names of estimators, or duplicate numbers of pages."""
    names = [estimator.name for estimator in estimators]
    pages = [(estimator.name, page.number) for estimator in estimators for page in estimator.pages]
    for kind, keys in (("estimator", names), ("page", pages)):
        if len(set(keys)) != len(keys):
            raise InvalidInput(f"The results have a duplicate {kind}")


def _digests(estimators: Sequence[NewEstimator]) -> dict[tuple[str, int], str]:
    whole = {(estimator.name, -1): estimator.payload.sha256 for estimator in estimators}
    pages = {(e.name, page.number): page.payload.sha256 for e in estimators for page in e.pages}
    return whole | pages


def _named_as_in_project(
    connection: Connection, simulation: Locked, estimators: Sequence[NewEstimator]
) -> list[NewEstimator]:
    """Return the estimators of an editor's project with the names and in the order of its outputs."""
    data = simulations.input_of(connection, simulation.id)
    project = codec.decode_payload(data)["input_json"] if data else {}
    names = _output_names(project)
    placed = [(find_output(simulation.sim_type, estimator.file_name, names), estimator) for estimator in estimators]
    placed.sort(key=lambda pair: len(names) if pair[0] is None else pair[0])
    return [replace(e, name=e.name if index is None else names[index]) for index, e in placed]


def _output_names(project: object) -> list[str]:
    manager = project.get("scoringManager") if isinstance(project, Mapping) else None
    outputs = manager.get("outputs") if isinstance(manager, Mapping) else None
    if not isinstance(outputs, list):
        return []
    names = [output.get("name") if isinstance(output, Mapping) else None for output in outputs]
    return [name if isinstance(name, str) else "" for name in names]


def pages_metadata(backend: Backend, user: User, job_id: str) -> list[dict[str, Any]]:
    """Return names, numbers and dimensions of all pages by estimator; raise NotFound without results."""
    with backend.database.reading() as connection:
        rows = results.pages_metadata(connection, find_readable(connection, user, job_id).id)
    if not rows:
        raise NotFound("Pages metadata not found")
    by_estimator: dict[str, list[dict[str, Any]]] = {}
    for name, number, page_name, dimension in rows:
        page = {"page_number": number, "page_name": page_name, "page_dimension": dimension}
        by_estimator.setdefault(name, []).append(page)
    return [{"name": name, "pages_metadata": pages} for name, pages in by_estimator.items()]


#: Returns the URL for downloading a page, given its number.
Address = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Document:
    """Parts for `codec.stitch_gzip`; `length` is that of its output, if the parts are read while they are sent."""

    parts: Iterable[codec.Part]
    length: int | None

    def __iter__(self) -> Iterator[codec.Part]:
        """Iterate over the parts, once."""
        return iter(self.parts)


def read_answer(
    backend: Backend,
    user: User,
    job_id: str,
    estimator: str | None = None,
    page_numbers: str | None = None,
    address: Address | None = None,
) -> Document:
    """Return the response of `GET /results`: all results, those of one estimator, or its pages, such as `0-2,5`.

    For `page_numbers`, `address` is passed to `read_pages`. Raises NotFound if there are none, InvalidInput for invalid
    ranges.
    """
    if page_numbers is None:
        return read_results(backend, user, job_id, estimator, (b'{"message":"Results","estimators":', b"}"))
    if estimator is None:
        raise InvalidInput("page_numbers needs an estimator_name")
    around = (b'{"message":"Results","pages":', b"}")
    return read_pages(backend, user, job_id, estimator, parse_page_numbers(page_numbers), around, address)


def parse_page_numbers(text: str) -> list[tuple[int, int]]:
    """Return sorted, disjoint, inclusive ranges of page numbers from text like `0-2,5`; raise InvalidInput."""
    ranges = list[tuple[int, int]]()
    for part in text.split(",", _MAX_RANGES):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InvalidInput(f"page_numbers: {part[:40]!r} is not a range of pages: use e.g. 0-2,5")
        if last - first >= _MAX_SPAN:
            raise InvalidInput(f"page_numbers: a range may span at most {_MAX_SPAN} pages")
        ranges.append((first, last))
    merged = list[tuple[int, int]]()
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def read_results(
    backend: Backend, user: User, job_id: str, estimator: str | None = None, around: tuple[bytes, bytes] = (b"", b"")
) -> Document:
    """Return all results of a simulation (or those of one estimator) as a JSON list, with text `around` it.

    Raises NotFound if there are none.
    """
    rows, page_rows = _query_rows(backend, user, job_id, estimator)
    if not rows:
        raise NotFound("Results are unavailable")
    pages: dict[int, list[Any]] = {row.id: [] for row in rows}
    for page in page_rows:
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
    address: Address | None = None,
) -> Document:
    """Return pages of one estimator in the inclusive `ranges` as a JSON list, with text `around` it; raise NotFound.

    If `address`, which returns the download URL of a page, is given, pages that the front end cannot draw have this URL
    instead of their numbers, which may be hundreds of megabytes.
    """
    most_axes = results.ANY_AXES if address is None else _MOST_DRAWN
    _, page_rows = _query_rows(backend, user, job_id, estimator, ranges, most_axes)
    if not page_rows:
        raise NotFound("Results are unavailable")
    shown = [_reference(page, address) if address and page.page_dimension > most_axes else page for page in page_rows]
    return _document(backend, [around[0], *_listed(shown), around[1]])


def _reference(page: Any, address: Address) -> bytes:
    """Return a page without its numbers for the front end, given a row of `results.list_pages`."""
    metadata = {"page_number": str(page.page_number), "name": page.page_name}
    reference = {"dimensions": page.page_dimension, "results_url": address(page.page_number), "metadata": metadata}
    return msgspec.json.encode(reference)


def _query_rows(
    backend: Backend,
    user: User,
    job_id: str,
    estimator: str | None,
    ranges: Sequence[tuple[int, int]] | None = None,
    most_axes: int = results.ANY_AXES,
) -> tuple[list[Any], list[Any]]:
    """Return rows of `results.list_estimators` and `results.list_pages`, without payloads if they must be streamed.

    Pages with more than `most_axes` axes never have a payload.

    Results never change: reading them in several statements matters only if they are deleted meanwhile.
    """
    with backend.database.read_committed() as connection:
        rows = results.list_estimators(connection, find_readable(connection, user, job_id).id, estimator)
        ids = [row.id for row in rows]
        page_rows = results.list_pages(connection, ids, ranges, _AT_ONCE, most_axes)
        drawable = [page for page in page_rows if page.page_dimension <= most_axes]
        if not page_rows:
            find_readable(connection, user, job_id)
        elif drawable and drawable[0].compressed_data is None and not _is_ours(connection, drawable):
            # Pages that must be converted are not streamed.
            page_rows = results.list_pages(connection, ids, ranges, most_axes=most_axes)
    return rows, page_rows


def _is_ours(connection: Connection, pages: Sequence[Any]) -> bool:
    return all(map(codec.written_here, results.page_heads(connection, [page.id for page in pages], _ENDS)))


def _listed(pages: Sequence[Any]) -> Iterator[Any]:
    """Yield pages as a list: rows of `results.list_pages`, and the JSON text between them."""
    glue = b"["
    for page in pages:
        yield glue
        yield page
        glue = b","
    yield b"]" if pages else b"[]"


def _document(backend: Backend, plan: Sequence[Any]) -> Document:
    """Return the document of a plan of glue, payloads, and rows of `results.list_pages` with or without payload."""
    if all(part.compressed_data is not None for part in plan if not isinstance(part, bytes | Stored)):
        parts = (p if isinstance(p, bytes | Stored) else Stored(p.compressed_data, p.content_size) for p in plan)
        return Document(list(parts), None)
    ours = all(codec.written_here(part.data) for part in plan if isinstance(part, Stored))
    lengths = (part if isinstance(part, bytes) else _length(part) for part in plan)
    return Document(_streamed(backend, plan), codec.stitched_length(lengths) if ours else None)


def _length(part: Any) -> int:
    return len(part.data) if isinstance(part, Stored) else part.length


def _streamed(backend: Backend, plan: Sequence[Any]) -> Iterator[codec.Part]:
    for part in plan:
        if isinstance(part, bytes | Stored):
            yield part
        else:
            yield codec.Streamed(stream_page(backend, part), part.length, part.content_size)


def stream_page(backend: Backend, page: Any) -> Iterator[bytes]:
    """Yield the payload of a page (a row with `id` and `length`) in slices; raises NotFound if it was deleted.

    Each slice has its own transaction, so that slow readers block nothing.
    """
    start = 0
    while start < page.length:
        with backend.database.reading() as connection:
            piece = results.page_slice(connection, page.id, start, _SLICE)
        if not piece:
            raise NotFound("The results were deleted while they were being read")
        yield piece
        start += len(piece)

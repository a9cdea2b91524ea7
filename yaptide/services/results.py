"""Results: take them in whole or not at all, and give them out as they were stored."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
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

#: Payloads of more bytes than this are not read all at once, and no more than so many of one payload.
_AT_ONCE = 16 << 20
_SLICE = 8 << 20
_ENDS = 64
#: The front end draws pages with so many axes.
_MOST_DRAWN = 2
#: Text that the payloads of a worker's file may be inflated to, in all, and that of one estimator's metadata.
_MOST_TEXT = 4 << 30
_MOST_METADATA = 16 << 20
_MAX_RANGES = 500  # SQLite takes no more than 1000 alternatives
_MAX_SPAN = 10_000

#: So many pages that cannot be kept are named, and so many of them in the history.
_MOST_NAMED = 1000
_MOST_IN_HISTORY = 20
_MOST_REASON = 300


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
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def key_of(body: bytes | memoryview, kind: type[Key] = Key) -> Key:
    """The key in the body of a report, found without making objects of the rest; raises InvalidInput."""
    with explain_unreadable():
        return msgspec.json.decode(body, type=kind)


def check_key(backend: Backend, key: Key) -> str:
    """Public name of the simulation whose update key this is: asked before a large body is read and parsed.

    Raises InvalidInput for any other key.
    """
    with backend.database.reading() as connection:
        found = transitions.find_simulation(connection, key.simulation_id)
        return lifecycle.check_update_key(backend, found, key.update_key).job_id


@dataclass(frozen=True, slots=True)
class Posted:
    """Whose results were stored, and which pages of them could not be kept."""

    job_id: str
    refused: Sequence[RefusedPage]


def post_results(backend: Backend, body: bytes) -> Posted:
    """Store the results that a worker sends, and end the simulation; the same results again change nothing.

    A page that cannot be shown (no numbers, wrong lengths, the number of another) is left out alone, and named in the
    history. The others are stored as they came, or in the form that `yaptide.services.pages` tells of. Raises
    InvalidInput for a wrong key or if nothing can be kept, Conflict if the simulation has other results or has failed
    or been canceled.
    """
    try:
        return _post(backend, LargeJson(body), None)
    except _OtherWords:
        return _post(backend, LargeJson(b"".join(codec.json_words([body]))), None)


def post_file(backend: Backend, file: IO[bytes]) -> Posted:
    """The same for a body too large to be held in memory, which waits in a file."""
    file.flush()
    size = os.fstat(file.fileno()).st_size
    try:
        return _post(backend, slim_json(read_pieces(file, 0, size)), file)
    except _OtherWords:
        with tempfile.TemporaryFile(dir=backend.data_dir) as copy:
            copy.writelines(codec.json_words(read_pieces(file, 0, size)))
            copy.flush()
            return _post(backend, slim_json(read_pieces(copy, 0, copy.tell())), copy)


class _OtherWords(InvalidInput):
    """A body may hold numbers that JSON has no word for."""


@retry_contended
def _post(backend: Backend, body: LargeJson, file: IO[bytes] | None) -> Posted:
    parsed = _parsed(body)
    job_id = check_key(backend, parsed)
    if not parsed.estimators:
        raise InvalidInput("There are no estimators in the results")
    with tempfile.TemporaryFile(dir=backend.data_dir) if file else nullcontext() as aside:
        source = _Source(body, file, aside, backend.data_dir)
        found = _estimators(parsed.estimators, source)
        refused = [page for estimator in found for page in estimator.refused]
        if not any(estimator.pages for estimator in found):
            raise InvalidInput(f"Nothing of the results can be kept: {refused[0]}")
        _keep(backend, parsed, found)
    return Posted(job_id, refused[:_MOST_NAMED])


def _parsed(body: LargeJson) -> _Body:
    try:
        with explain_unreadable():
            return _BODY.decode(body.text)
    except InvalidInput as error:
        raise (_OtherWords(str(error)) if codec.holds_other_words([body.text]) else error) from error


def _keep(backend: Backend, parsed: "_Body", found: Sequence[NewEstimator]) -> None:
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, parsed.simulation_id)
        simulation = lifecycle.check_update_key(backend, locked, parsed.update_key)
        store_results(connection, simulation, found, Audit(lifecycle.WORKER, utc_now()))


def store_results(connection: Connection, simulation: Locked, found: Sequence[NewEstimator], cause: Audit) -> None:
    """Add results and end the simulation (COMPLETED only if no task failed) in the running transaction.

    Tasks whose last report got lost are completed: their scores are here. Raises Conflict if the simulation has other
    results, or has failed or been canceled; sending the same results again changes nothing.
    """
    kept = [estimator for estimator in found if estimator.pages]
    if simulation.input_type == EDITOR:
        kept = _named_as_in_project(connection, simulation, kept)
    check_unique(kept)
    digests = results.page_digests(connection, simulation.id)
    if digests:
        if digests != _digests(kept):
            raise Conflict("The simulation has other results already; they are kept")
        return
    if simulation.job_state in (EntityState.FAILED, EntityState.CANCELED):
        raise Conflict(f"The simulation is {simulation.job_state}; its results are no longer accepted")
    add_results(connection, simulation, kept)
    _name_refused(connection, simulation, [page for estimator in found for page in estimator.refused], cause)
    lifecycle.end_simulation(connection, simulation, EntityState.COMPLETED, cause)


def _name_refused(connection: Connection, simulation: Locked, refused: Sequence[RefusedPage], cause: Audit) -> None:
    """Note which pages were left out, and why: in the history, and where `GET /jobs` finds it."""
    if not refused:
        return
    named = "; ".join(map(str, refused[:_MOST_IN_HISTORY]))
    more = f"; and {len(refused) - _MOST_IN_HISTORY} more" if len(refused) > _MOST_IN_HISTORY else ""
    transitions.add_audit_note(connection, simulation.id, Audit(cause.actor, cause.time, f"left out: {named}{more}"))
    text = msgspec.json.encode([page._asdict() for page in refused[:_MOST_NAMED]]).decode()
    simulations.set_values(connection, simulation.id, {"refused_pages": text})


def add_results(connection: Connection, simulation: Locked, found: Sequence[NewEstimator]) -> None:
    """Add results in the running transaction, unless there are some."""
    if not results.page_digests(connection, simulation.id):
        simulations.count_bytes(connection, simulation.id, results.add_results(connection, simulation.id, found))


def read_file(file: IO[bytes]) -> list[NewEstimator]:
    """Check the results in a worker's file (`yaptide.persistence.result_files`), whose payloads are stored as they are.

    Raises InvalidInput for results that cannot be shown.
    """
    opened = ResultFile(file)
    unpacked = _unpacked(file, opened)
    found = []
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
        found.append(NewEstimator(entry.name, entry.file_name, metadata, tuple(new), refused))
        if not (found[-1].pages or refused):
            raise InvalidInput(f"Estimator {entry.name!r} has no pages")
    if not any(estimator.pages for estimator in found):
        raise InvalidInput("There are no pages in the results")
    return found


def _page_of_worker(unpacked: Iterator[bytes | AnyPayload], position: int, estimator: str) -> NewPage:
    body, payload = _next_page(unpacked)
    try:
        page = check_page(body.text, body, position, OUR_ORDER)
        if page.written_anew:
            raise InvalidInput("it is not written as yaptide does it")  # noqa: TRY301 - it is to be named as well
    except InvalidInput as error:
        raise InvalidInput(f"Page {number_of(body.text, position)} of estimator {estimator!r}: {error}") from error
    return NewPage(page.number, page.name, page.dimension, payload)


@dataclass(frozen=True, slots=True)
class _Source:
    """A body, the file that holds the whole of it if it is a large one, and a file for large payloads made of it."""

    body: LargeJson
    file: IO[bytes] | None
    aside: IO[bytes] | None
    folder: Path

    def original(self, part: msgspec.Raw) -> Iterator[bytes]:
        """A part of the body as it came, piece by piece."""
        return self.body.original(memoryview(part), self.file) if self.file else iter([bytes(part)])

    def slimmed(self, part: msgspec.Raw) -> tuple[bytes | memoryview, LargeJson, Read]:
        """A part of the body without most of its numbers, what knows of them, and how to read them."""
        if self.file is not None:
            file = self.file
            return memoryview(part), self.body, lambda start, length: b"".join(read_pieces(file, start, length))
        whole = memoryview(part)  # a few numbers at a time are read sooner than all of them
        body = slim_json([whole])
        return body.text, body, lambda start, length: bytes(whole[start : start + length])

    def as_it_came(self, part: msgspec.Raw) -> AnyPayload:
        """A part of the body as a payload."""
        if self.aside is None:
            return codec.encode_text(memoryview(part))
        return codec.encode_pieces(self.original(part), self.aside)

    def payload(self, text: Iterable[bytes]) -> AnyPayload:
        """JSON text as a payload."""
        return codec.encode_text(b"".join(text)) if self.aside is None else codec.encode_pieces(text, self.aside)


def _payload(data: bytes) -> tuple[Payload, bytes]:
    """A payload that was made elsewhere, and its text."""
    codec.check_ends(data[:_ENDS], data[-_ENDS:])
    text = b"".join(_bounded(codec.inflate_pieces([data]), _MOST_METADATA, "The metadata of an estimator have"))
    return Payload(data, len(text), hashlib.sha256(text).hexdigest()), text


def _bounded(text: Iterator[bytes], most: int, what: str) -> Iterator[bytes]:
    """The same text; raises InvalidInput as soon as it has more than `most` bytes, however little it was packed."""
    for piece in text:
        most -= len(piece)
        if most < 0:
            raise InvalidInput(f"{what} too much text")
        yield piece


def _unpacked(file: IO[bytes], opened: ResultFile) -> Iterator[bytes | AnyPayload]:
    """The text of each page that a worker sent, piece by piece, and after it the page as a payload."""
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
    found = dict[str, NewEstimator]()
    again = []
    for estimator in parsed:
        if estimator.name in found:
            again.append(_refused(estimator, "there is another one of this name"))
            continue
        try:
            found[estimator.name] = _estimator(estimator, source)
        except InvalidInput as error:
            found[estimator.name] = _refused(estimator, str(error))
    return [*found.values(), *again]


def _refused(estimator: _Estimator, reason: str) -> NewEstimator:
    """An estimator of which nothing can be kept."""
    refused = RefusedPage(estimator.name[:MAX_NAME], None, reason[:_MOST_REASON])
    return NewEstimator(estimator.name, estimator.name, codec.encode_payload({}), (), (refused,))


def _estimator(estimator: _Estimator, source: _Source) -> NewEstimator:
    check_text(estimator.name, "An estimator's name", source.body)
    text = b"".join(source.original(estimator.metadata))
    with explain_unreadable():
        metadata = _OBJECT.decode(text)
    if not estimator.pages:  # nobody could look at it
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
    project = codec.decode_payload(data)["input_json"] if data else {}
    names = _output_names(project)
    placed = [(find_output(simulation.sim_type, estimator.file_name, names), estimator) for estimator in found]
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
    """Names, numbers and dimensions of all pages by estimator; raises NotFound if there are no results."""
    with backend.database.reading() as connection:
        rows = results.pages_metadata(connection, find_readable(connection, user, job_id).id)
    if not rows:
        raise NotFound("Pages metadata not found")
    found: dict[str, list[dict[str, Any]]] = {}
    for name, number, page_name, dimension in rows:
        page = {"page_number": number, "page_name": page_name, "page_dimension": dimension}
        found.setdefault(name, []).append(page)
    return [{"name": name, "pages_metadata": pages} for name, pages in found.items()]


#: Where a page can be downloaded, by its number.
Address = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Document:
    """Parts for `codec.stitch_gzip`; `length` is that of its output, if the parts are read while they are sent."""

    parts: Iterable[codec.Part]
    length: int | None

    def __iter__(self) -> Iterator[codec.Part]:
        """Go through the parts, once."""
        return iter(self.parts)


def read_answer(
    backend: Backend,
    user: User,
    job_id: str,
    estimator: str | None = None,
    page_numbers: str | None = None,
    address: Address | None = None,
) -> Document:
    """What `GET /results` answers: all results, those of one estimator, or its pages in a text like `0-2,5`.

    For pages that are asked for by number, `address` is that of `read_pages`. Raises NotFound if there are none,
    InvalidInput for what is no range of pages.
    """
    if page_numbers is None:
        return read_results(backend, user, job_id, estimator, (b'{"message":"Results","estimators":', b"}"))
    if estimator is None:
        raise InvalidInput("page_numbers needs an estimator_name")
    around = (b'{"message":"Results","pages":', b"}")
    return read_pages(backend, user, job_id, estimator, parse_page_numbers(page_numbers), around, address)


def parse_page_numbers(text: str) -> list[tuple[int, int]]:
    """Inclusive ranges of page numbers in a text like `0-2,5`, in order, none overlapping; raises InvalidInput."""
    found = list[tuple[int, int]]()
    for part in text.split(",", _MAX_RANGES):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InvalidInput(f"page_numbers: {part[:40]!r} is no range of pages; write ranges like 0-2,5")
        if last - first >= _MAX_SPAN:
            raise InvalidInput(f"page_numbers: a range may span {_MAX_SPAN} pages at most")
        found.append((first, last))
    apart = list[tuple[int, int]]()
    for first, last in sorted(found):
        if apart and first <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(last, apart[-1][1]))
        else:
            apart.append((first, last))
    return apart


def read_results(
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
    address: Address | None = None,
) -> Document:
    """The pages of one estimator in the inclusive `ranges`, a JSON list, with text `around` it; raises NotFound.

    With `address`, which tells where a page of this number can be downloaded, pages that the front end cannot draw come
    as that address instead of their numbers, which may be hundreds of megabytes.
    """
    most_axes = results.ANY_AXES if address is None else _MOST_DRAWN
    _, found = _found(backend, user, job_id, estimator, ranges, most_axes)
    if not found:
        raise NotFound("Results are unavailable")
    shown = [_reference(page, address) if address and page.page_dimension > most_axes else page for page in found]
    return _document(backend, [around[0], *_listed(shown), around[1]])


def _reference(page: Any, address: Address) -> bytes:
    """A page as the front end shows it without its numbers: of a row of `results.list_pages`."""
    metadata = {"page_number": str(page.page_number), "name": page.page_name}
    reference = {"dimensions": page.page_dimension, "results_url": address(page.page_number), "metadata": metadata}
    return msgspec.json.encode(reference)


def _found(
    backend: Backend,
    user: User,
    job_id: str,
    estimator: str | None,
    ranges: Sequence[tuple[int, int]] | None = None,
    most_axes: int = results.ANY_AXES,
) -> tuple[list[Any], list[Any]]:
    """Rows of `results.list_estimators` and of `results.list_pages`; without payloads if they are to be streamed.

    Pages with more than `most_axes` axes are without a payload in any case.

    Results never change: that they are read by one statement after the other shows only if they are deleted meanwhile.
    """
    with backend.database.read_committed() as connection:
        rows = results.list_estimators(connection, find_readable(connection, user, job_id).id, estimator)
        ids = [row.id for row in rows]
        found = results.list_pages(connection, ids, ranges, _AT_ONCE, most_axes)
        whole = [page for page in found if page.page_dimension <= most_axes]
        if not found:
            find_readable(connection, user, job_id)
        elif whole and whole[0].compressed_data is None and not _is_ours(connection, whole):
            # What has to be written anew is not streamed.
            found = results.list_pages(connection, ids, ranges, most_axes=most_axes)
    return rows, found


def _is_ours(connection: Connection, pages: Sequence[Any]) -> bool:
    return all(map(codec.written_here, results.page_heads(connection, [page.id for page in pages], _ENDS)))


def _listed(pages: Sequence[Any]) -> Iterator[Any]:
    """Pages as a list: rows of `results.list_pages` and what stands between them."""
    glue = b"["
    for page in pages:
        yield glue
        yield page
        glue = b","
    yield b"]" if pages else b"[]"


def _document(backend: Backend, plan: Sequence[Any]) -> Document:
    """The document of a plan: glue, payloads, and rows of `results.list_pages`, which bring theirs or have it read."""
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
    """The payload of a page (a row with `id` and `length`), piece by piece; raises NotFound if it was deleted.

    Each piece is read in a transaction of its own: a slow reader holds nothing up.
    """
    start = 0
    while start < page.length:
        with backend.database.reading() as connection:
            piece = results.page_slice(connection, page.id, start, _SLICE)
        if not piece:
            raise NotFound("The results were deleted while they were read")
        yield piece
        start += len(piece)

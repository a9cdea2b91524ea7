"""Results from workers: check the key, then every page, and pass them to `yaptide.services.results_storage`."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, cast

import msgspec

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import RefusedPage, refused_metadata
from yaptide.persistence import codec
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.payload import AnyPayload, LargePayload, NewEstimator, NewPage, Payload, read_pieces
from yaptide.persistence.queries import transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.persistence.result_files import ResultFile
from yaptide.services import lifecycle, results_storage
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

#: Bytes at the beginning and end of a payload that show how it was encoded.
_ENDS = 64
#: Limits for decompressed text: of all payloads in a worker's file, and of one estimator's metadata.
_MOST_TEXT = 4 << 30
_MOST_METADATA = 16 << 20
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
    return Posted(job_id, refused[: results_storage.MOST_NAMED])


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
        results_storage.store_results(connection, simulation, estimators, Audit(lifecycle.WORKER, utc_now()))


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
            RefusedPage(entry.name, page.page, page.reason[:_MOST_REASON])
            for page in entry.refused[: results_storage.MOST_NAMED]
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

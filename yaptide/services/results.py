"""Reading results: payloads are returned as they are stored."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.persistence import codec
from yaptide.persistence.codec import Stored
from yaptide.persistence.queries import results
from yaptide.persistence.queries.users import User
from yaptide.services.access import find_readable
from yaptide.services.backend import Backend

#: Payloads of more bytes in total are streamed, in slices of _SLICE bytes.
_AT_ONCE = 16 << 20
_SLICE = 8 << 20
#: Bytes at the beginning of a payload that show how it was encoded.
_HEAD = 64
#: Maximum number of axes of pages that the front end can draw.
_MOST_DRAWN = 2
_MAX_RANGES = 500  # SQLite accepts at most 1000 alternatives
_MAX_SPAN = 10_000


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
    return all(map(codec.written_here, results.page_heads(connection, [page.id for page in pages], _HEAD)))


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

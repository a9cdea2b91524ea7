"""Follows simulations on a server with one request for all of them, and shows their progress."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

from yaptide_client.errors import NotFound, Unavailable
from yaptide_client.states import FINAL_STATES
from yaptide_client.terminal import format_line

#: Simulations of one request of `GET /watch`.
_AT_ONCE = 100
#: Seconds between two requests: a twentieth of the time since the first, so that an end is noticed soon; at most these.
_PART, LONGEST_PAUSE = 20, 15.0
#: Seconds without a response after which following gives up.
PATIENCE = 6 * 3600.0


class Watcher(Protocol):
    """What follows simulations: a client."""

    def read_progress(self, job_ids: Sequence[str], etag: str | None, patience: float) -> tuple[Any, str | None]:
        """Return the simulations of `GET /watch`, or None if nothing has changed since `etag`; and the new ETag."""


def watch_progress(
    client: Watcher, job_ids: Iterable[str], timeout: float, every: float, patience: float
) -> Iterator[dict[str, Any]]:
    """Yield the progress of simulations, as `GET /watch` returns it, at first and whenever it changes, until all end.

    Raises NotFound if one does not exist, Unavailable after `timeout` seconds or `patience` seconds without a response.
    """
    start = time.monotonic()
    known: dict[str, dict[str, Any] | None] = dict.fromkeys(job_ids)
    etags: dict[tuple[str, ...], str | None] = {}
    while left := [job_id for job_id, shown in known.items() if not _has_ended(shown)]:
        for part in (tuple(left[first : first + _AT_ONCE]) for first in range(0, len(left), _AT_ONCE)):
            remaining = max(0.0, timeout - (time.monotonic() - start))
            rows, etags[part] = client.read_progress(part, etags.get(part), min(patience, remaining))
            yield from _changes(part, rows, known)
        elapsed = time.monotonic() - start
        pause = min(max(every, elapsed / _PART), max(every, LONGEST_PAUSE))
        left = [job_id for job_id in left if not _has_ended(known[job_id])]
        if left and elapsed + pause > timeout:
            raise Unavailable(_describe_rest(left, known, timeout))
        if left:
            time.sleep(pause)


def _changes(
    part: Sequence[str], rows: Iterable[dict[str, Any]] | None, known: dict[str, dict[str, Any] | None]
) -> Iterator[dict[str, Any]]:
    if rows is None:
        return
    shown = {row["job_id"]: row for row in rows}
    for job_id in part:
        if job_id not in shown:
            raise NotFound(f"No such simulation of yours: {job_id}")
        if known[job_id] != shown[job_id]:
            known[job_id] = shown[job_id]
            yield shown[job_id]


def _has_ended(shown: Mapping[str, Any] | None) -> bool:
    return shown is not None and shown["job_state"] in FINAL_STATES


def _describe_rest(left: Sequence[str], known: Mapping[str, Any], timeout: float) -> str:
    first = known[left[0]]
    more = f", and {len(left) - 1} more have not ended," if len(left) > 1 else ""
    reason = f": {format_line(first['waiting'])}" if first.get("waiting") else ""
    return f"{left[0]} is {first['job_state']}{more} after {timeout:g} seconds{reason}"


def show_progress(out: IO[str] | None = None) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that shows a row of `watch_progress`: a bar on a terminal, otherwise a line now and then."""
    stream = sys.stderr if out is None else out
    is_terminal = stream.isatty()
    last: list[object] = [None]

    def show(row: Mapping[str, Any]) -> None:
        wanted = row["requested_primaries"]
        part = row["simulated_primaries"] / wanted if wanted else 0.0
        # What follows the reason, such as the position in a queue, changes often.
        step = (row["job_state"], (row.get("waiting") or "").partition(";")[0], int(10 * part))
        text = f"{row['job_id']}: {row['job_state']}, {part:.0%} of {wanted:,} primaries"
        if is_terminal:
            done = round(20 * part)
            ends = "\n" if _has_ended(row) else ""
            stream.write(f"\r\x1b[K[{'#' * done}{'.' * (20 - done)}] {text}{ends}")
        elif step != last[0]:
            reason = row.get("reason") or row.get("waiting")
            stream.write(f"{text}{f': {format_line(reason)}' if reason else ''}\n")
        last[0] = step
        stream.flush()

    return show

"""Output of SLURM's commands: states, job numbers, and the lists that `squeue` and `sacct` print. Pure functions.

A list begins with its header, which proves that it is complete: an empty list means that there are no jobs, and no list
means that nothing is known. Text around its rows is skipped.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from yaptide.domain.errors import ClusterUnavailable
from yaptide.domain.states import EntityState
from yaptide.platforms.batch.schedulers.base import JobInfo
from yaptide.platforms.batch.schedulers.slurm.reasons import explain_wait

MOST_TASKS = 1_000_000
TIME_LIMIT = "it reached its time limit; give it more with --time"

_JOB = re.compile(r"([0-9]{1,10})(?:_(?:([0-9]{1,7})|\[([0-9,:%-]+)\]))?", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?", re.ASCII)
_EXIT = re.compile(r"([0-9]{1,3}):([0-9]{1,3})", re.ASCII)
_CANCELED_BY = re.compile(r"CANCELLED by ([0-9]{1,10})", re.ASCII)
_SUBMITTED = re.compile(
    r"\s*(?:([0-9]{1,10})(?:;\S*)?|Submitted batch job ([0-9]{1,10})(?: on cluster \S+)?)\s*", re.ASCII
)
_WAITING_ROW = re.compile(r"^\s*([0-9]{1,10})\|(\S+)\|([0-9]{1,10})\s*$", re.ASCII | re.MULTILINE)
_FIRST_TASK = re.compile(r"\.([0-9]{1,7})$", re.ASCII)
_KILLED = 9
_NOT_STARTED = 53
#: What shells mean by these exit codes of the job script.
_EXIT_CODES = {
    126: ": its node cannot execute python3",
    127: ": there is no python3 on its node, or the prologue does not find a program; tell the cluster's administrator",
}

# States. A job that SLURM requeues has not ended.

_WAITING = {
    "PENDING": None,
    "CONFIGURING": "its nodes are being started",
    "REQUEUED": "it was put back into the queue",
    "REQUEUE_FED": "it was put back into the queue",
    "REQUEUE_HOLD": "it was put back into the queue, and is held there",
    "SPECIAL_EXIT": "it was put back into the queue, and is held there",
    "RESV_DEL_HOLD": "its reservation was deleted; it is held",
}
_RUNNING = {
    "RUNNING": None,
    "COMPLETING": None,
    "RESIZING": None,
    "SIGNALING": None,
    "STAGE_OUT": None,
    "STOPPED": "it is stopped",
    "SUSPENDED": "it is suspended",
}
_FAILED = {
    "FAILED": "it failed",
    "TIMEOUT": TIME_LIMIT,
    "OUT_OF_MEMORY": "it needed more memory than it had; give it more with --mem",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "a job of higher priority took its place",
    "BOOT_FAIL": "its node could not be started",
    "DEADLINE": "it could not end before its deadline",
    "LAUNCH_FAILED": "it could not be started on its node",
    "REVOKED": "the cluster gave it to another one",
}


def map_state(word: str, exit_code: str = "", why: str = "") -> tuple[EntityState, str | None]:
    """The state in yaptide and the reason for a state in SLURM, such as ``CANCELLED by 1000``.

    `exit_code` is ``code:signal``, `why` the reason as SLURM names it. An unknown state becomes UNKNOWN.
    """
    word = word.strip().rstrip("+")
    if word in _WAITING:
        return EntityState.PENDING, _WAITING[word] or explain_wait(why)
    if word in _RUNNING:
        return EntityState.RUNNING, _RUNNING[word]
    if word == "COMPLETED":
        return EntityState.COMPLETED, None
    if word.startswith("CANCELLED"):
        by = _CANCELED_BY.fullmatch(word)
        return EntityState.CANCELED, "it was canceled on the cluster" + (f" by user number {by[1]}" if by else "")
    if word in _FAILED:
        return EntityState.FAILED, _explain_failure(exit_code, why) if word == "FAILED" else _FAILED[word]
    return EntityState.UNKNOWN, f"the cluster reports the unknown state {word[:40]!r}"


def _explain_failure(exit_code: str, why: str) -> str:
    if why.strip() == "BadConstraints":  # the job is listed, although sbatch rejected it
        return "no node of the cluster has what it asks for"
    parsed = _EXIT.fullmatch(exit_code.strip())
    code, signal = (int(parsed[1]), int(parsed[2])) if parsed else (0, 0)
    if signal == _KILLED:
        return "it was killed, usually because it needed more memory than it had; see --mem"
    if signal == _NOT_STARTED:
        return "its node could not start it: its folder or its log could not be opened there"
    if signal:
        return f"it was ended by signal {signal}"
    if code:
        return f"it ended with exit code {code}" + _EXIT_CODES.get(code, "")
    word = why.strip()
    return _FAILED["FAILED"] + (f": {word[:40]}" if word not in ("", "None", "NonZeroExitCode") else "")


def expand_indices(text: str) -> tuple[int, list[int]]:
    """Job number and array indices in ``12_[3-7,9%2]``, ``12_3`` or ``12`` (no index); raises ValueError for others."""
    parsed = _JOB.fullmatch(text.strip())
    if parsed is None:
        raise ValueError(f"invalid job number {text[:60]!r}")
    if parsed[3] is None:
        return int(parsed[1]), [int(parsed[2])] if parsed[2] else []
    ranges, _, _ = parsed[3].partition("%")
    indices: list[int] = []
    for part in ranges.split(","):
        ends = _RANGE.fullmatch(part)
        if ends is None:
            raise ValueError(f"invalid job number {text[:60]!r}")
        expanded = range(int(ends[1]), int(ends[2] or ends[1]) + 1, int(ends[3] or 1) or 1)
        if not expanded or len(indices) + len(expanded) > MOST_TASKS:
            raise ValueError(f"no tasks, or too many, in {text[:60]!r}")
        indices += expanded
    return int(parsed[1]), indices


def read_queue(text: str) -> list[JobInfo]:
    """The jobs in the output of `squeue`; raises ClusterUnavailable if it is not a list of jobs."""
    return _read_rows(text, "ARRAY_JOB_ID", 7, _read_queue_row)


def read_accounting(text: str) -> list[JobInfo]:
    """The jobs in the output of `sacct`, waiting tasks one by one; raises ClusterUnavailable as `read_queue`."""
    # A task that has started has a row of its own, which for a while contradicts the row of the waiting tasks.
    infos = _read_rows(text, "JobID", 6, _read_accounting_row, lambda row: "[" not in row)
    return list({(info.job, info.index): info for info in infos}.values())


def read_submitted(text: str) -> int | None:
    """The job number in the output of `sbatch --parsable`, or of a wrapper; None if there is none, or more than one."""
    numbers = {int(number[1] or number[2]) for number in map(_SUBMITTED.fullmatch, text.splitlines()) if number}
    return numbers.pop() if len(numbers) == 1 else None


def read_positions(text: str) -> dict[int, tuple[int, int]]:
    """Position of each job among the waiting jobs of its partition, and their number, by job number.

    `text` has rows of job number, partition and priority, ``12|main|4294901760``; other text is skipped.
    """
    partitions: dict[str, list[tuple[int, int]]] = {}
    for number, partition, priority in map(re.Match.groups, _WAITING_ROW.finditer(text)):
        partitions.setdefault(partition, []).append((-int(priority), int(number)))
    positions = {}
    for jobs in partitions.values():
        ordered = sorted(set(jobs))
        positions.update({number: (place, len(ordered)) for place, (_, number) in enumerate(ordered, 1)})
    return positions


def _read_rows(
    text: str,
    header: str,
    columns: int,
    read_row: Callable[..., Iterator[JobInfo]],
    order: Callable[[str], bool] | None = None,
) -> list[JobInfo]:
    lines = text.splitlines()
    begin = next((place for place, line in enumerate(lines) if _is_header(line, header, columns)), None)
    if begin is None:
        said = " ".join(text.split())[:80]
        raise ClusterUnavailable(f"The cluster's answer about its jobs cannot be read: {said!r}")
    rows = [line for line in lines[begin + 1 :] if line.count("|") >= columns - 1]
    infos: list[JobInfo] = []
    for row in sorted(rows, key=order) if order else rows:
        try:
            infos += read_row(*(value.strip() for value in row.split("|", columns - 1)))
        except (TypeError, ValueError):
            raise ClusterUnavailable(f"The cluster's answer about its jobs cannot be read: {row[:80]!r}") from None
    return infos


def _is_header(line: str, header: str, columns: int) -> bool:
    return line.lstrip().startswith(header) and line.count("|") == columns - 1


def _read_queue_row(
    job: str, index: str, word: str, exit_code: str, why: str, start: str, name: str
) -> Iterator[JobInfo]:
    status = int(exit_code) & 0xFFFF  # encoded as by wait(2)
    signal = status & 0x7F
    state, reason = map_state(word, f"{0 if signal else status >> 8}:{signal}", why)
    number = int(index) + _offset(name) if index not in ("N/A", "") else None
    yield JobInfo(int(job), number, state, reason, _read_time(start), name)


def _read_accounting_row(names: str, word: str, exit_code: str, why: str, start: str, name: str) -> Iterator[JobInfo]:
    job, indices = expand_indices(names)
    state, reason = map_state(word, exit_code, why)
    for index in indices or (None,):
        number = None if index is None else index + _offset(name)
        yield JobInfo(job, number, state, reason, _read_time(start), name)


def _offset(name: str) -> int:
    """What to add to the indices of an array to get the numbers of its tasks; its name ends in the first of them."""
    first = _FIRST_TASK.search(name)
    return int(first[1]) - 1 if first else 0


def _read_time(text: str) -> datetime | None:
    return None if text in ("N/A", "Unknown", "None", "") else datetime.fromisoformat(text).replace(tzinfo=UTC)

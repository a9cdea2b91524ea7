"""Output of SLURM's commands: states, job numbers, and the lists that `squeue` and `sacct` print. Pure functions."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from yaptide.domain.errors import ClusterRefused
from yaptide.domain.states import EntityState
from yaptide.platforms.batch.schedulers.base import JobInfo

MOST_TASKS = 1_000_000
TIME_LIMIT = "it reached its time limit; give it more with --time"

_JOB = re.compile(r"([0-9]{1,10})(?:_(?:([0-9]{1,7})|\[([0-9,:%-]+)\]))?", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?", re.ASCII)
_EXIT = re.compile(r"([0-9]{1,3}):([0-9]{1,3})", re.ASCII)
_CANCELED_BY = re.compile(r"CANCELLED by ([0-9]{1,10})", re.ASCII)
_KILLED = 9
_NOT_STARTED = 53

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
_WAITS_FOR = {
    "AssocGrpCPUMinutesLimit": "the account's grant is used up",
    "AssocMaxJobsLimit": "the account may not run more jobs at once",
    "BeginTime": "its earliest start time has not come",
    "Dependency": "other jobs must end first",
    "JobArrayTaskLimit": "the limit of tasks that run at once is reached",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is held",
    "PartitionDown": "the partition is down",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "Priority": "other jobs have higher priority",
    "QOSMaxJobsPerUserLimit": "its user may not run more jobs at once",
    "ReqNodeNotAvail": "the requested nodes are not available",
    "Resources": "no nodes are free",
}


def map_state(word: str, exit_code: str = "", why: str = "") -> tuple[EntityState, str | None]:
    """The state in yaptide and the reason for a state in SLURM, such as ``CANCELLED by 1000``.

    `exit_code` is ``code:signal``, `why` the reason as SLURM names it. An unknown state becomes UNKNOWN.
    """
    word = word.strip().rstrip("+")
    if word in _WAITING:
        return EntityState.PENDING, _WAITING[word] or _explain_wait(why)
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


def _explain_wait(why: str) -> str | None:
    word = why.strip().strip("()")
    return _WAITS_FOR.get(word, f"the cluster says {word[:40]}") if word not in ("", "None", "null") else None


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
        return f"it ended with exit code {code}"
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
    """The jobs in the output of `squeue`; raises ClusterRefused if it cannot be parsed."""
    return _read_lines(text, 6, _read_queue_line)


def read_accounting(text: str) -> list[JobInfo]:
    """The jobs in the output of `sacct`, waiting tasks one by one; raises ClusterRefused if it cannot be parsed."""
    # A task that has started has a line of its own, which for a while contradicts the line of the waiting tasks.
    lines = sorted(text.split("\n"), key=lambda line: "[" not in line)
    infos = _read_lines("\n".join(lines), 5, _read_accounting_line)
    return list({(info.job, info.index): info for info in infos}.values())


def _read_lines(text: str, columns: int, read_line: Callable[..., Iterator[JobInfo]]) -> list[JobInfo]:
    infos: list[JobInfo] = []
    for line in filter(str.strip, text.split("\n")):
        try:
            infos += read_line(*(value.strip() for value in line.split("|", columns - 1)))
        except (TypeError, ValueError):
            raise ClusterRefused(f"The cluster's answer about its jobs cannot be read: {line[:80]!r}") from None
    return infos


def _read_queue_line(job: str, index: str, word: str, exit_code: str, why: str, start: str) -> Iterator[JobInfo]:
    status = int(exit_code) & 0xFFFF  # encoded as by wait(2)
    signal = status & 0x7F
    state, reason = map_state(word, f"{0 if signal else status >> 8}:{signal}", why)
    yield JobInfo(int(job), int(index) if index not in ("N/A", "") else None, state, reason, _read_time(start))


def _read_accounting_line(names: str, word: str, exit_code: str, why: str, start: str) -> Iterator[JobInfo]:
    job, indices = expand_indices(names)
    state, reason = map_state(word, exit_code, why)
    for index in indices or (None,):
        yield JobInfo(job, index, state, reason, _read_time(start))


def _read_time(text: str) -> datetime | None:
    return None if text in ("N/A", "Unknown", "None", "") else datetime.fromisoformat(text).replace(tzinfo=UTC)

"""What is said to SLURM, and what its answers mean.

The functions that make scripts and read answers are pure; those that take a `Shell` run one command each. Jobs carry
the public name of their simulation, so that they are found again when an answer got lost.
"""

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from yaptide.platforms.batch.schedulers.slurm import options as sbatch
from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, InvalidInput
from yaptide.domain.states import EntityState

_MOST_TASKS = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_JOB = re.compile(r"([0-9]{1,10})(?:_(?:([0-9]{1,7})|\[([0-9,:%-]+)\]))?", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?", re.ASCII)
_SUBMITTED = re.compile(r"([0-9]{1,10})(?:;[^\s]*)?\s*", re.ASCII)
_EXIT = re.compile(r"([0-9]{1,3}):([0-9]{1,3})", re.ASCII)
_CANCELED_BY = re.compile(r"CANCELLED by ([0-9]{1,10})", re.ASCII)
#: Nothing is cut short, and times are in UTC.
_PLAIN = ("env", "SLURM_BITSTR_LEN=0", "SLURM_TIME_FORMAT=standard", "TZ=UTC")
_QUEUE_FORMAT = "ArrayJobID:12|,ArrayTaskID:9|,State:15|,exit_code:9|,Reason:40|,StartTime:20"
_PASSING = ("Unable to contact slurm", "Socket timed out", "Transport endpoint", "Connection refused", "try again")
#: SLURM tells a script, and with it the program that takes its place, that its time limit is so many seconds away.
_WARNING = "--signal=B:USR1@30"
_KILLED = 9
_NOT_STARTED = 53


class Answer(Protocol):
    """What became of a command."""

    @property
    def exit_code(self) -> int:
        """0 where nothing went wrong."""

    @property
    def text(self) -> str:
        """Its standard output."""

    @property
    def complaint(self) -> str:
        """What it said went wrong."""


class Shell(Protocol):
    """Where commands are run, such as `yaptide.platforms.batch.ssh.SshSession`."""

    def run(self, *words: str) -> Answer:
        """Run a command, given as words that no shell looks at."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What SLURM says of a job or, with an `index`, of a task of an array.

    `reason` says why, where there is more to say than the state; `start` is when it began or is expected to.
    """

    job: int
    index: int | None
    state: EntityState
    reason: str | None = None
    start: datetime | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What to submit: the public name of the simulation, its folder on the cluster, checked options of sbatch."""

    name: str
    folder: str
    options: Mapping[str, str]


# States. What SLURM itself undoes (a job that is requeued) is not an end; what is, tells why.

_WAITING = {
    "PENDING": None,
    "CONFIGURING": "its nodes are being started",
    "REQUEUED": "it was put back into the queue",
    "REQUEUE_FED": "it was put back into the queue",
    "REQUEUE_HOLD": "it was put back into the queue, and is held there",
    "SPECIAL_EXIT": "it was put back into the queue, and is held there",
    "RESV_DEL_HOLD": "its reservation was deleted; it is held",
}
_AT_WORK = {
    "RUNNING": None,
    "COMPLETING": None,
    "RESIZING": None,
    "SIGNALING": None,
    "STAGE_OUT": None,
    "STOPPED": "it is stopped",
    "SUSPENDED": "it is suspended",
}
_ENDED_BADLY = {
    "FAILED": "it failed",
    "TIMEOUT": "it reached its time limit; give it more with --time",
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
    "BeginTime": "it may not begin yet",
    "Dependency": "other jobs have to end first",
    "JobArrayTaskLimit": "other tasks of it are running, and not more may at once",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is held",
    "PartitionDown": "the partition is down",
    "PartitionTimeLimit": "it asks for more time than the partition gives",
    "Priority": "others are before it",
    "QOSMaxJobsPerUserLimit": "its user may not run more jobs at once",
    "ReqNodeNotAvail": "the nodes that it asks for are not available",
    "Resources": "no nodes are free",
}

#: Of a job that SLURM no longer knows: it ended some time ago, or is a task of an array that was canceled while it
#: waited. What it reported before it ended counts; nothing more will come.
FORGOTTEN = "the cluster no longer knows it"


def map_state(word: str, exit_code: str = "", why: str = "") -> tuple[EntityState, str | None]:
    """Our state and the reason for a state of SLURM, such as ``CANCELLED by 1000``.

    `exit_code` is ``code:signal``, `why` SLURM's own word for the reason. A state that is not known here is UNKNOWN.
    """
    word = word.strip().rstrip("+")
    if word in _WAITING:
        return EntityState.PENDING, _WAITING[word] or _waits_for(why)
    if word in _AT_WORK:
        return EntityState.RUNNING, _AT_WORK[word]
    if word == "COMPLETED":
        return EntityState.COMPLETED, None
    if word.startswith("CANCELLED"):
        by = _CANCELED_BY.fullmatch(word)
        return EntityState.CANCELED, "it was canceled on the cluster" + (f" by user number {by[1]}" if by else "")
    if word in _ENDED_BADLY:
        return EntityState.FAILED, _failure(exit_code, why) if word == "FAILED" else _ENDED_BADLY[word]
    return EntityState.UNKNOWN, f"the cluster calls its state {word[:40]!r}"


def _waits_for(why: str) -> str | None:
    word = why.strip().strip("()")
    return _WAITS_FOR.get(word, f"the cluster says {word[:40]}") if word not in ("", "None", "null") else None


def _failure(exit_code: str, why: str) -> str:
    if why.strip() == "BadConstraints":  # it is listed, though sbatch refused it
        return "no node of the cluster has what it asks for"
    found = _EXIT.fullmatch(exit_code.strip())
    code, signal = (int(found[1]), int(found[2])) if found else (0, 0)
    if signal == _KILLED:
        return "it was killed, which is what happens to a job that needs more memory than it has; see --mem"
    if signal == _NOT_STARTED:
        return "its node could not start it: its folder or its log could not be opened there"
    if signal:
        return f"it was ended by signal {signal}"
    if code:
        return f"it ended with exit code {code}"
    word = why.strip()
    return _ENDED_BADLY["FAILED"] + (f": {word[:40]}" if word not in ("", "None", "NonZeroExitCode") else "")


# Numbers of jobs and of tasks.


def expand_indices(text: str) -> tuple[int, list[int]]:
    """Job and array indices that ``12_[3-7,9%2]``, ``12_3`` or ``12`` (no index) mean; raises ValueError for others."""
    found = _JOB.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:60]!r} is no number of a job")
    if found[3] is None:
        return int(found[1]), [int(found[2])] if found[2] else []
    listed, _, _ = found[3].partition("%")
    indices: list[int] = []
    for part in listed.split(","):
        ends = _RANGE.fullmatch(part)
        if ends is None:
            raise ValueError(f"{text[:60]!r} is no number of a job")
        found_here = range(int(ends[1]), int(ends[2] or ends[1]) + 1, int(ends[3] or 1) or 1)
        if not found_here or len(indices) + len(found_here) > _MOST_TASKS:
            raise ValueError(f"{text[:60]!r} names no tasks, or too many")
        indices += found_here
    return int(found[1]), indices


def compress_indices(job: int, indices: Collection[int]) -> str:
    """The shortest name for tasks of an array, ``12_[3-7,9]``: what `expand_indices` takes apart."""
    parts: list[list[int]] = []
    for index in sorted(set(indices)):
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return f"{job}_[{','.join(str(a) if a == b else f'{a}-{b}' for a, b in parts)}]"


# Scripts, and how they are submitted.


def job_script(job: Job, command: Sequence[str], prologue: str | None = None) -> str:
    """A script that runs the administrator's `prologue`, and then `command` in the folder of the job.

    The command takes the place of the shell: signals for the job reach it.
    """
    lines = ["#!/bin/bash -l", *([prologue.rstrip("\n")] if prologue else [])]
    lines += [f"cd -- {shlex.quote(job.folder)} || exit 1", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def array_command(job: Job, path: str, tasks: int, most_at_once: int | None = None) -> list[str]:
    """The command that submits the script at `path` once for each of the tasks 1 to `tasks`."""
    if not 1 <= tasks <= _MOST_TASKS:
        raise InvalidInput(f"A job has 1 to {_MOST_TASKS} tasks")
    limit = f"%{most_at_once}" if most_at_once else ""
    return [
        *_sbatch(job, "task-%a.log"),
        _WARNING,
        f"--array=1-{tasks}{limit}",
        *sbatch.sbatch_arguments(job.options),
        path,
    ]


def collect_command(job: Job, path: str, after: int) -> list[str]:
    """The command that submits the script at `path`, to run when all tasks of the array `after` have ended, however."""
    return [*_sbatch(job, "collect.log"), f"--dependency=afterany:{after}", *sbatch.sbatch_arguments(job.options), path]


def single_command(job: Job, path: str) -> list[str]:
    """The command that submits the script at `path` as a job by itself."""
    return [*_sbatch(job, "job.log"), *sbatch.sbatch_arguments(job.options), path]


def _sbatch(job: Job, log: str) -> list[str]:
    if not _NAME.fullmatch(job.name):
        raise InvalidInput(f"{job.name[:60]!r} cannot be the name of a job on a cluster")
    # Options on a command line win over those of the environment. The log's name may hold no part of the folder's: a %
    # in it would be replaced.
    return ["sbatch", "--parsable", f"--job-name={job.name}", f"--chdir={job.folder}", f"--output={log}"]


# Commands.


def submit_job(shell: Shell, command: Sequence[str]) -> int:
    """Submit by one of the commands above; the number of the job.

    Raises ClusterRefused where SLURM says no, and why. After ClusterUnavailable the job may be there: `find_jobs`
    tells.
    """
    return parse_job_number(shell.run(*command))


def parse_job_number(answer: Answer) -> int:
    """The number of the job, from the answer to one of the commands above; raises what `submit_job` does."""
    found = _SUBMITTED.fullmatch(answer.text) if answer.exit_code == 0 else None
    if found is None:
        raise _refusal("did not take the job", answer)
    return int(found[1])


def find_jobs(shell: Shell, name: str) -> list[Seen]:
    """The user's jobs of this name that SLURM knows, lowest number first; one that it refused is FAILED among them."""
    return sorted(_queue(shell, f"--name={name}"), key=lambda seen: (seen.job, seen.index or 0))


def query_queue(shell: Shell) -> list[Seen]:
    """All jobs of the user that wait, run, or ended a short time ago: one query, however many there are."""
    return _queue(shell)


def query_accounting(shell: Shell, jobs: Iterable[int]) -> list[Seen] | None:
    """What the accounting says of jobs, also of those that ended long ago; None where a cluster keeps no accounts."""
    wanted = ",".join(map(str, jobs))
    answer = shell.run(*_PLAIN, "sacct", "-X", "-P", "-n", "-o", "JobID,State,ExitCode,Reason,Start", "-j", wanted)
    if answer.exit_code and "disabled" in answer.complaint:
        return None
    if answer.exit_code:
        raise _refusal("does not tell about its jobs", answer)
    return read_accounts(answer.text)


def cancel_job(shell: Shell, job: int, indices: Collection[int] = ()) -> None:
    """Cancel a job, or some tasks of an array; those that have ended are left as they are."""
    answer = shell.run("scancel", compress_indices(job, indices) if indices else str(job))
    if answer.exit_code and "nvalid job id" not in answer.complaint and "already comple" not in answer.complaint:
        raise _refusal(f"does not cancel job {job}", answer)


def _queue(shell: Shell, *options: str) -> list[Seen]:
    words = ("squeue", "--noheader", "--array", "--all", "--states=all", "--me", f"--Format={_QUEUE_FORMAT}", *options)
    answer = shell.run(*_PLAIN, *words)
    if answer.exit_code:
        raise _refusal("does not tell about its jobs", answer)
    return read_queue(answer.text)


def _refusal(what: str, answer: Answer) -> ClusterRefused | ClusterUnavailable:
    passing = any(words in answer.complaint for words in _PASSING)
    return (ClusterUnavailable if passing else ClusterRefused)(f"The cluster {what}: {answer.complaint}")


# Answers.


def read_queue(text: str) -> list[Seen]:
    """What `squeue` says; raises ClusterRefused for an answer that cannot be read."""
    return _read(text, 6, _queue_line)


def read_accounts(text: str) -> list[Seen]:
    """What `sacct` says, tasks that wait one by one; raises ClusterRefused for an answer that cannot be read."""
    # A task that was started has a line of its own; the line of those that wait may tell of it for a while yet.
    lines = sorted(text.split("\n"), key=lambda line: "[" not in line)
    found = _read("\n".join(lines), 5, _accounts_line)
    return list({(one.job, one.index): one for one in found}.values())


def _read(text: str, columns: int, read_line: Callable[..., Iterator[Seen]]) -> list[Seen]:
    found: list[Seen] = []
    for line in filter(str.strip, text.split("\n")):
        try:
            found += read_line(*(value.strip() for value in line.split("|", columns - 1)))
        except (TypeError, ValueError):
            raise ClusterRefused(f"The cluster's answer about its jobs cannot be read: {line[:80]!r}") from None
    return found


def _queue_line(job: str, index: str, word: str, exit_code: str, why: str, start: str) -> Iterator[Seen]:
    status = int(exit_code) & 0xFFFF  # as wait() tells it
    signal = status & 0x7F
    state, reason = map_state(word, f"{0 if signal else status >> 8}:{signal}", why)
    yield Seen(int(job), int(index) if index not in ("N/A", "") else None, state, reason, _time(start))


def _accounts_line(names: str, word: str, exit_code: str, why: str, start: str) -> Iterator[Seen]:
    job, indices = expand_indices(names)
    state, reason = map_state(word, exit_code, why)
    for index in indices or (None,):
        yield Seen(job, index, state, reason, _time(start))


def _time(text: str) -> datetime | None:
    return None if text in ("N/A", "Unknown", "None", "") else datetime.fromisoformat(text).replace(tzinfo=UTC)

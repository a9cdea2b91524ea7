"""Jobs in SLURM: scripts, and the commands that submit, query and cancel."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, InvalidInput
from yaptide.platforms.batch.schedulers.base import RUN_VARIABLE, TASK_VARIABLE, Answer, JobInfo, JobRequest, Shell
from yaptide.platforms.batch.schedulers.slurm import options
from yaptide.platforms.batch.schedulers.slurm.answers import MOST_TASKS, TIME_LIMIT, read_accounting, read_queue

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_SUBMITTED = re.compile(r"([0-9]{1,10})(?:;[^\s]*)?\s*", re.ASCII)
#: Lists of tasks are not shortened, and times are in UTC.
_PLAIN = ("env", "SLURM_BITSTR_LEN=0", "SLURM_TIME_FORMAT=standard", "TZ=UTC")
_QUEUE_FORMAT = "ArrayJobID:12|,ArrayTaskID:9|,State:15|,exit_code:9|,Reason:40|,StartTime:20"
_TRANSIENT = ("Unable to contact slurm", "Socket timed out", "Transport endpoint", "Connection refused", "try again")
#: 30 s before its time limit, the script gets this signal, and so does the program that has replaced it by `exec`.
_WARNING = "--signal=B:USR1@30"
_IDENTITY = (
    f'export {TASK_VARIABLE}="$SLURM_ARRAY_TASK_ID" '
    f'{RUN_VARIABLE}="slurm-${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID-${{SLURM_RESTART_COUNT:-0}}"'
)


class Slurm:
    """Implements `yaptide.platforms.batch.schedulers.base.Scheduler`, which describes the methods."""

    name = "slurm"
    title = "SLURM"
    version_command: tuple[str, ...] = ("sbatch", "--version")
    oldest_version = (20, 11)
    time_limit_reason = TIME_LIMIT

    def check_options(self, given: Mapping[str, object]) -> dict[str, str]:
        """See `Scheduler`."""
        return options.check_options(given)

    def read_header(self, header: str) -> dict[str, str]:
        """See `Scheduler`."""
        return options.read_header(header)

    def job_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """See `Scheduler`; the command replaces the shell, so it gets the signals."""
        return _make_script(request, command, prologue, [])

    def array_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """See `Scheduler`."""
        return _make_script(request, command, prologue, [_IDENTITY])

    def array_command(self, request: JobRequest, path: str, tasks: int, most_at_once: int | None = None) -> list[str]:
        """See `Scheduler`; raises InvalidInput for an invalid name or number of tasks."""
        if not 1 <= tasks <= MOST_TASKS:
            raise InvalidInput(f"A job has 1 to {MOST_TASKS} tasks")
        limit = f"%{most_at_once}" if most_at_once else ""
        return _sbatch(request, "task-%a.log", path, _WARNING, f"--array=1-{tasks}{limit}")

    def collect_command(self, request: JobRequest, path: str, after: int) -> list[str]:
        """See `Scheduler`."""
        return _sbatch(request, "collect.log", path, f"--dependency=afterany:{after}")

    def single_command(self, request: JobRequest, path: str) -> list[str]:
        """See `Scheduler`."""
        return _sbatch(request, "job.log", path)

    def parse_job_number(self, answer: Answer) -> int:
        """See `Scheduler`."""
        number = _SUBMITTED.fullmatch(answer.text) if answer.exit_code == 0 else None
        if number is None:
            raise _make_error("did not accept the job", answer)
        return int(number[1])

    def find_jobs(self, shell: Shell, name: str) -> list[JobInfo]:
        """See `Scheduler`; a job that SLURM has rejected may be listed as FAILED."""
        return sorted(_query_queue(shell, f"--name={name}"), key=lambda info: (info.job, info.index or 0))

    def query_queue(self, shell: Shell) -> list[JobInfo]:
        """See `Scheduler`."""
        return _query_queue(shell)

    def query_accounting(self, shell: Shell, jobs: Iterable[int]) -> list[JobInfo] | None:
        """See `Scheduler`."""
        numbers = ",".join(map(str, jobs))
        words = ("sacct", "-X", "-P", "-n", "-o", "JobID,State,ExitCode,Reason,Start", "-j", numbers)
        answer = shell.run_command(*_PLAIN, *words)
        if answer.exit_code and "disabled" in answer.complaint:
            return None
        if answer.exit_code:
            raise _make_error("did not list its jobs", answer)
        return read_accounting(answer.text)

    def cancel_job(self, shell: Shell, job: int) -> None:
        """See `Scheduler`."""
        answer = shell.run_command("scancel", str(job))
        if answer.exit_code and "nvalid job id" not in answer.complaint and "already comple" not in answer.complaint:
            raise _make_error(f"did not cancel job {job}", answer)


def _make_script(request: JobRequest, command: Sequence[str], prologue: str | None, more: Sequence[str]) -> str:
    lines = ["#!/bin/bash -l", *([prologue.rstrip("\n")] if prologue else []), *more]
    lines += [f"cd -- {shlex.quote(request.folder)} || exit 1", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def _sbatch(request: JobRequest, log: str, path: str, *more: str) -> list[str]:
    if not _NAME.fullmatch(request.name):
        raise InvalidInput(f"Invalid name of a job on a cluster: {request.name[:60]!r}")
    # Options on a command line override those of the environment. The log is relative to the folder, whose name may
    # hold a %: sbatch would replace it.
    common = ["sbatch", "--parsable", f"--job-name={request.name}", f"--chdir={request.folder}", f"--output={log}"]
    return [*common, *more, *options.format_arguments(request.options), path]


def _query_queue(shell: Shell, *more: str) -> list[JobInfo]:
    words = ("squeue", "--noheader", "--array", "--all", "--states=all", "--me", f"--Format={_QUEUE_FORMAT}", *more)
    answer = shell.run_command(*_PLAIN, *words)
    if answer.exit_code:
        raise _make_error("did not list its jobs", answer)
    return read_queue(answer.text)


def _make_error(what: str, answer: Answer) -> ClusterRefused | ClusterUnavailable:
    transient = any(words in answer.complaint for words in _TRANSIENT)
    return (ClusterUnavailable if transient else ClusterRefused)(f"The cluster {what}: {answer.complaint}")

"""Jobs in SLURM: scripts, and the commands that submit, query and cancel."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from yaptide.domain.errors import ClusterUnavailable, InvalidInput
from yaptide.platforms.batch.schedulers.base import (
    RUN_VARIABLE,
    TASK_VARIABLE,
    Answer,
    JobInfo,
    JobRequest,
    NoAccounts,
    Shell,
    name_log,
)
from yaptide.platforms.batch.schedulers.slurm import answers, options
from yaptide.platforms.batch.schedulers.slurm.answers import MOST_TASKS, TIME_LIMIT
from yaptide.platforms.batch.schedulers.slurm.refusals import make_refusal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*([0-9]{1,9})\s*$", re.MULTILINE)
#: Lists of tasks are not shortened, and times are in UTC.
_PLAIN = ("env", "SLURM_BITSTR_LEN=0", "SLURM_TIME_FORMAT=standard", "TZ=UTC")
_QUEUE_FORMAT = "ArrayJobID:12|,ArrayTaskID:9|,State:15|,exit_code:9|,Reason:40|,StartTime:20|,Name:80"
#: Seconds for `sacct`, which can wait long for a database that is away.
_ACCOUNTS_TIME = "20"
#: 30 s before its time limit, the script gets this signal, and so does the program that has replaced it by `exec`.
_WARNING = "--signal=B:USR1@30"
_IDENTITY = (
    f'export {TASK_VARIABLE}="$((SLURM_ARRAY_TASK_ID + ${{1:-0}}))" '
    f'{RUN_VARIABLE}="slurm-${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID-${{SLURM_RESTART_COUNT:-0}}"'
)


class Slurm:
    """Implements `yaptide.platforms.batch.schedulers.base.Scheduler`, which describes the methods."""

    name = "slurm"
    title = "SLURM"
    version_command: tuple[str, ...] = ("sbatch", "--version")
    oldest_version = (20, 11)
    time_limit_reason = TIME_LIMIT
    log_prefix = "slurmstepd"

    def check_options(self, given: Mapping[str, object]) -> dict[str, str]:
        """See `Scheduler`."""
        return options.check_options(given)

    def merge_options(self, defaults: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
        """See `Scheduler`."""
        return options.merge_options(defaults, own)

    def read_header(self, header: str) -> dict[str, str]:
        """See `Scheduler`."""
        return options.read_header(header)

    def job_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """See `Scheduler`; the command replaces the shell, so it gets the signals."""
        return _make_script(request, command, prologue, [])

    def array_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """See `Scheduler`."""
        return _make_script(request, command, prologue, [_IDENTITY])

    def array_command(self, request: JobRequest, path: str, tasks: range, most_at_once: int | None = None) -> list[str]:
        """See `Scheduler`; raises InvalidInput for an invalid name or number of tasks.

        Indices of arrays are limited (MaxArraySize), so they begin at 1; the script gets what to add to them.
        """
        if not tasks or tasks[0] < 1 or tasks[-1] > MOST_TASKS:
            raise InvalidInput(f"A job has 1 to {MOST_TASKS} tasks")
        limit = f"%{most_at_once}" if most_at_once else ""
        name = request.name if tasks[0] == 1 else f"{request.name}.{tasks[0]}"
        command = _sbatch(
            request, name_log(tasks[0], "%a"), path, _WARNING, f"--array=1-{len(tasks)}{limit}", name=name
        )
        return [*command, str(tasks[0] - 1)]

    def collect_command(self, request: JobRequest, path: str, after: Sequence[int]) -> list[str]:
        """See `Scheduler`."""
        return _sbatch(request, "collect.log", path, f"--dependency=afterany:{':'.join(map(str, after))}")

    def single_command(self, request: JobRequest, path: str) -> list[str]:
        """See `Scheduler`."""
        return _sbatch(request, "job.log", path)

    def parse_job_number(self, answer: Answer) -> int:
        """See `Scheduler`."""
        if answer.exit_code:
            raise make_refusal(answer)
        number = answers.read_submitted(answer.text)
        if number is None:
            raise ClusterUnavailable(
                "The cluster accepted a job without giving its number; it is searched for by its name: "
                + answer.complaint
            )
        return number

    def find_array_limit(self, shell: Shell) -> int | None:
        """See `Scheduler`."""
        limit = _ARRAY_SIZE.search(shell.run_command("scontrol", "show", "config").text)
        return int(limit[1]) - 1 if limit else None

    def find_jobs(self, shell: Shell, name: str) -> list[JobInfo]:
        """See `Scheduler`."""
        jobs = [info for info in self.query_queue(shell) if info.name == name or info.name.startswith(f"{name}.")]
        return sorted(jobs, key=lambda info: (info.job, info.index or 0))

    def query_queue(self, shell: Shell) -> list[JobInfo]:
        """See `Scheduler`."""
        words = ("squeue", "--array", "--all", "--states=all", "--me", f"--Format={_QUEUE_FORMAT}")
        answer = shell.run_command(*_PLAIN, *words)
        if answer.exit_code:
            raise ClusterUnavailable(f"The cluster did not list its jobs: {answer.complaint}")
        return answers.read_queue(answer.text)

    def query_positions(self, shell: Shell) -> dict[int, tuple[int, int]]:
        """See `Scheduler`."""
        answer = shell.run_command("squeue", "--noheader", "--all", "--states=PENDING", "--format=%F|%P|%Q")
        return answers.read_positions(answer.text) if answer.exit_code == 0 else {}

    def query_accounting(self, shell: Shell, jobs: Iterable[int]) -> list[JobInfo]:
        """See `Scheduler`."""
        numbers = ",".join(map(str, jobs))
        words = ("sacct", "-X", "-P", "-o", "JobID,State,ExitCode,Reason,Start,JobName", "-j", numbers)
        answer = shell.run_command(*_PLAIN, "timeout", _ACCOUNTS_TIME, *words)
        if answer.exit_code:
            raise NoAccounts(
                f"sacct does not work on the cluster, so reasons of ended jobs may be missing: {answer.complaint}"
            )
        try:
            return answers.read_accounting(answer.text)
        except ClusterUnavailable as error:
            raise NoAccounts(f"sacct does not work on the cluster: {error}") from None

    def cancel_job(self, shell: Shell, job: int) -> None:
        """See `Scheduler`."""
        answer = shell.run_command("scancel", str(job))
        if answer.exit_code and "nvalid job id" not in answer.complaint and "already comple" not in answer.complaint:
            raise ClusterUnavailable(f"The cluster did not cancel job {job}: {answer.complaint}")


def _make_script(request: JobRequest, command: Sequence[str], prologue: str | None, more: Sequence[str]) -> str:
    lines = ["#!/bin/bash -l", *([prologue.rstrip("\n")] if prologue else []), *more]
    lines += [f"cd -- {shlex.quote(request.folder)} || exit 1", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def _sbatch(request: JobRequest, log: str, path: str, *more: str, name: str | None = None) -> list[str]:
    if not _NAME.fullmatch(request.name):
        raise InvalidInput(f"Invalid name of a job on a cluster: {request.name[:60]!r}")
    # Options on a command line override those of the environment. The log is relative to the folder, whose name may
    # hold a %: sbatch would replace it.
    common = [
        "sbatch",
        "--parsable",
        f"--job-name={name or request.name}",
        f"--chdir={request.folder}",
        f"--output={log}",
    ]
    return [*common, *more, *options.format_arguments(request.options), path]

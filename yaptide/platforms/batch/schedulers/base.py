"""What yaptide needs from the batch system of a cluster.

A simulation becomes two jobs: an array with one task for each task of the simulation, and a job that starts when the
whole array has ended and collects results that could not be sent. Both jobs have the `job_id` of the simulation as
their name, so they can be found again if the response to their submission was lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from yaptide.domain.states import EntityState

#: Pattern of the name of one run of a task: scheduler, job and task number; how often the task was requeued before.
#: `Scheduler.array_script` makes the name. It is stored as the end of the task's owner.
RUN_NAME = "([a-z]{1,16}-[0-9]{1,10}_[0-9]{1,7})-([0-9]{1,9})"

#: Environment variables in which `Scheduler.array_script` passes a run's task number and its name to the agent.
TASK_VARIABLE = "YAPTIDE_TASK_ID"
RUN_VARIABLE = "YAPTIDE_RUN_NAME"


class Answer(Protocol):
    """The result of a command."""

    @property
    def exit_code(self) -> int:
        """0 on success."""

    @property
    def text(self) -> str:
        """Standard output."""

    @property
    def complaint(self) -> str:
        """The error message."""


class Shell(Protocol):
    """Runs commands on the cluster, such as `yaptide.platforms.batch.ssh.SshSession`."""

    def run_command(self, *words: str) -> Answer:
        """Run a command, given as words that no shell interprets."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to submit: its name, its folder on the cluster, and checked options (`Scheduler.check_options`)."""

    name: str
    folder: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobInfo:
    """The state of a job or, with an `index`, of one task of an array.

    `reason` explains the state in words for the user, if there is more to say. `start` is the actual or expected start.
    """

    job: int
    index: int | None
    state: EntityState
    reason: str | None = None
    start: datetime | None = None


class Scheduler(Protocol):
    """One batch system. All methods may be called by several threads at a time.

    Methods that take a `Shell` run one command. They raise ClusterRefused with the reason if the batch system rejects
    the command, and ClusterUnavailable if a later attempt may succeed.
    """

    name: str
    """Lower-case letters: the beginning of run names (`RUN_NAME`), which are stored."""

    title: str
    """The name as its authors write it."""

    version_command: tuple[str, ...]
    """The command that prints the version."""

    oldest_version: tuple[int, int]
    """The oldest version that works."""

    time_limit_reason: str
    """Tells a user that a task has reached its time limit, and which option gives it more time."""

    def check_options(self, options: Mapping[str, object]) -> dict[str, str]:
        """The options of a user by their long names; raises InvalidInput unless all of them are known and harmless."""

    def read_header(self, header: str) -> dict[str, str]:
        """The options in the header of a job script, checked as by `check_options`; raises InvalidInput otherwise."""

    def job_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """A script that runs the administrator's shell lines `prologue`, then `command` in the folder of the job.

        Signals that are sent to the job must reach the command.
        """

    def array_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """As `job_script`, for the tasks of an array: it also sets `TASK_VARIABLE` and `RUN_VARIABLE`."""

    def array_command(self, request: JobRequest, path: str, tasks: int, most_at_once: int | None = None) -> list[str]:
        """The command that submits the script at `path` once for each of the tasks 1 to `tasks`.

        30 s before its time limit, a task must get the signal SIGUSR1; SIGTERM if it ends early for another reason.
        Output goes to `task-<number>.log` in the folder of the job.
        """

    def collect_command(self, request: JobRequest, path: str, after: int) -> list[str]:
        """The command that submits the script at `path`, to run when all tasks of the array `after` have ended."""

    def single_command(self, request: JobRequest, path: str) -> list[str]:
        """The command that submits the script at `path` as a single job."""

    def parse_job_number(self, answer: Answer) -> int:
        """The job number in the answer to one of the three commands above.

        Raises ClusterRefused and ClusterUnavailable. After ClusterUnavailable the job may exist: see `find_jobs`.
        """

    def find_jobs(self, shell: Shell, name: str) -> list[JobInfo]:
        """The user's jobs of this name, waiting, running or recently ended; lowest number first."""

    def query_queue(self, shell: Shell) -> list[JobInfo]:
        """All jobs of the user that wait, run, or have ended recently, by one query."""

    def query_accounting(self, shell: Shell, jobs: Iterable[int]) -> list[JobInfo] | None:
        """The accounting records of jobs, including jobs that ended long ago; None if the cluster keeps no records."""

    def cancel_job(self, shell: Shell, job: int) -> None:
        """Cancel a job with all its tasks; no error if it has ended."""

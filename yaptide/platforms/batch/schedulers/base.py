"""What yaptide needs from the batch system of a cluster.

A simulation becomes two jobs: an array with one task for each task of the simulation, and a job that starts when the
whole array has ended and collects results that could not be sent. Both jobs have the `job_id` of the simulation as
their name, so they can be found again if the response to their submission was lost. If the cluster does not accept all
tasks at once, there are several arrays: the names of the later ones end in their first task, `<job_id>.301`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from yaptide.domain.errors import ClusterRefused, ClusterUnavailable
from yaptide.domain.states import EntityState

#: Pattern of the name of one run of a task: scheduler, job and task number; how often the task was requeued before.
#: `Scheduler.array_script` makes the name. It is stored as the end of the task's owner.
RUN_NAME = "([a-z]{1,16}-[0-9]{1,10}_[0-9]{1,7})-([0-9]{1,9})"

#: Environment variables in which `Scheduler.array_script` passes a run's task number and its name to the agent.
TASK_VARIABLE = "YAPTIDE_TASK_ID"
RUN_VARIABLE = "YAPTIDE_RUN_NAME"


class QueueFull(ClusterUnavailable):
    """The account may not submit so many jobs for now: fewer may be accepted, and more when others have ended."""


class JobRefused(ClusterRefused):
    """The batch system itself rejects the job, which does not exist: this is final."""


class ArrayTooLarge(JobRefused):
    """The cluster does not accept an array with so many tasks."""


class NoAccounts(ClusterUnavailable):
    """The cluster keeps no accounting records, or they cannot be read."""


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

    `index` is the number of the task in the simulation. `reason` explains the state in words for the user, if there is
    more to say. `start` is the actual or expected start.
    """

    job: int
    index: int | None
    state: EntityState
    reason: str | None = None
    start: datetime | None = None
    name: str = ""


def name_log(first: int, index: int | str) -> str:
    """Name of the log of a task with this index, from 1, in the array whose first task is `first`."""
    return f"task-{index}.log" if first == 1 else f"task-{first - 1}+{index}.log"


class Scheduler(Protocol):
    """One batch system. All methods may be called by several threads at a time.

    Methods that take a `Shell` run one command. They raise ClusterUnavailable if it fails: a later attempt may succeed.
    Only the batch system's own rejection of a job is final (`parse_job_number`).
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

    log_prefix: str
    """How lines of the batch system in the log of a job begin."""

    def check_options(self, options: Mapping[str, object]) -> dict[str, str]:
        """The options of a user by their long names; raises InvalidInput unless all of them are known and harmless."""

    def merge_options(self, defaults: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
        """Checked options of a user with those defaults of the cluster that they neither replace nor exclude."""

    def read_header(self, header: str) -> dict[str, str]:
        """The options in the header of a job script, checked as by `check_options`; raises InvalidInput otherwise."""

    def job_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """A script that runs the administrator's shell lines `prologue`, then `command` in the folder of the job.

        Signals that are sent to the job must reach the command.
        """

    def array_script(self, request: JobRequest, command: Sequence[str], prologue: str | None = None) -> str:
        """As `job_script`, for the tasks of an array: it also sets `TASK_VARIABLE` and `RUN_VARIABLE`."""

    def array_command(self, request: JobRequest, path: str, tasks: range, most_at_once: int | None = None) -> list[str]:
        """The command that submits the script at `path` once for each of these tasks of the simulation.

        30 s before its time limit, a task must get the signal SIGUSR1; SIGTERM if it ends early for another reason.
        Output goes to the file `name_log` in the folder of the job.
        """

    def collect_command(self, request: JobRequest, path: str, after: Sequence[int]) -> list[str]:
        """The command that submits the script at `path`, to run when all tasks of the arrays `after` have ended."""

    def single_command(self, request: JobRequest, path: str) -> list[str]:
        """The command that submits the script at `path` as a single job."""

    def parse_job_number(self, answer: Answer) -> int:
        """The job number in the answer to one of the three commands above.

        Raises JobRefused, which is final, QueueFull, ArrayTooLarge, and ClusterUnavailable. After
        ClusterUnavailable the job may exist: see `find_jobs`.
        """

    def find_array_limit(self, shell: Shell) -> int | None:
        """The most tasks of an array; None if the cluster does not tell."""

    def find_jobs(self, shell: Shell, name: str) -> list[JobInfo]:
        """The user's jobs of this name, waiting, running or recently ended; lowest number first."""

    def query_queue(self, shell: Shell) -> list[JobInfo]:
        """All jobs of the user that wait, run, or have ended recently, by one query."""

    def query_positions(self, shell: Shell) -> dict[int, tuple[int, int]]:
        """Position of waiting jobs among those of all users in their queue, and their number; empty if unknown."""

    def query_accounting(self, shell: Shell, jobs: Iterable[int]) -> list[JobInfo]:
        """The accounting records of jobs, including jobs that ended long ago; raises NoAccounts."""

    def cancel_job(self, shell: Shell, job: int) -> None:
        """Cancel a job with all its tasks; no error if it has ended."""

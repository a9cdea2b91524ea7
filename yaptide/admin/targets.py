"""Where commands on simulations work: on the local data folder, or on a server.

Each command is written once, for the protocol `Target`. A server is used if `--server` or the variable YAPTIDE_URL
names one, or after `yaptide login`; `--server local` means the data folder in any case.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import typer

from yaptide.admin.display import print_message
from yaptide.domain.errors import NotConfigured
from yaptide_client.logins import find_login

#: `--server` for the data folder.
LOCAL = "local"

Server = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        help="Server to use, or `local` for the data folder; default: YAPTIDE_URL, then the one signed in to, "
        "then local.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Request:
    """A simulation to run: a folder of input files or a project, and its owner (empty: the caller).

    `cluster` is the name of a cluster of the server, with options of its scheduler; empty: its own workers.
    """

    path: Path
    tasks: int
    sim_type: str
    title: str = ""
    user: str = ""
    cluster: str = ""
    scheduler_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """A page of the list: simulations of `user` (empty: the caller) or of all users."""

    page: int
    size: int
    title: str
    user: str = ""
    all_users: bool = False


class TaskProgress(NamedTuple):
    """The progress of a task."""

    task_id: int
    task_state: str
    simulated_primaries: int
    requested_primaries: int


#: Shows the state of a simulation and its tasks.
Show = Callable[[str, Sequence[TaskProgress]], None]
#: Given a job id, shows its progress within a block.
Following = Callable[[str], AbstractContextManager[Show]]


class Target(Protocol):
    """Simulations that commands work on. Methods raise the errors of `yaptide.domain.errors`."""

    def run(self, request: Request, following: Following) -> tuple[str, str]:
        """Submit a simulation, follow it until it ends, and return its job id and state."""

    def check(self, path: Path, tasks: int | None, sim_type: str) -> dict[str, Any]:
        """Check an input, and return what `yaptide.services.checks.Checkup.describe` returns."""

    def find_job(self, prefix: str) -> str:
        """Return the job id with this prefix, or `prefix` itself if there is none; raise Conflict if several have."""

    def summarize(self, job_id: str) -> dict[str, Any]:
        """Return what `yaptide.services.summaries.summarize_simulation` returns."""

    def list_simulations(self, selection: Selection) -> dict[str, Any]:
        """Return `simulations_count` and the `simulations` of a page."""

    def describe_owner(self, selection: Selection) -> str:
        """Return whose simulations are selected, in words."""

    def list_pages(self, job_id: str) -> list[dict[str, Any]]:
        """Return estimators with the numbers and dimensions of their pages; raise NotFound without results."""

    def read_results(
        self, job_id: str, estimator: str | None = None, pages: str | None = None, most: int | None = None
    ) -> bytes | None:
        """Return the JSON text of `GET /results`; None if it is longer than `most` bytes."""

    def read_logfiles(self, job_id: str) -> dict[str, str]:
        """Return the log files, name to text; raise NotFound without any."""

    def list_history(self, job_id: str) -> list[dict[str, Any]]:
        """Return every change of state, oldest first."""

    def cancel(self, job_id: str) -> str | None:
        """Cancel a simulation; return None, or the final state in which it already is."""

    def delete(self, job_id: str) -> str | None:
        """Delete a simulation; return None, or the state that prevents it."""


def open_target(server: str) -> Target:
    """Return what commands work on, given the option `--server`; tell if it is not local.

    Raises NotConfigured without a token for the server.
    """
    login = None if server == LOCAL else find_login(server or None)
    if login is None:
        from yaptide.admin.local import LocalTarget  # noqa: PLC0415 - commands on a server need no database

        return LocalTarget.open()
    from yaptide.admin.remote import RemoteTarget  # noqa: PLC0415 - most commands need no HTTP

    if login.token is None:
        raise NotConfigured(
            f"Not signed in to {login.url}: run yaptide login {login.url}, or use --server {LOCAL} for the data folder"
        )
    print_message(f"Server: {login.url}")
    return RemoteTarget.open(login)

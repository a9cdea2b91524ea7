"""Runners and their simulators: runners announce what they can run, and submissions are checked against this.

Runners are executors and workers, which have simulators, and drivers, which submit to clusters (administrators
configure the simulators of a cluster). An announcement is valid as long as its runner sends heartbeats, and for
`runner_lifetime` afterwards, so that submissions are not rejected during a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.persistence.engine import Record, retry_contended
from yaptide.persistence.models.simulations import BATCH, DIRECT, EDITOR
from yaptide.persistence.queries import runners
from yaptide.persistence.queries.runners import Program as Program
from yaptide.services.backend import Backend, utc_now
from yaptide.simulators import get_simulator, is_converter
from yaptide.simulators.base import Installation

__all__ = ["BATCH", "DIRECT"]

#: Seconds between two heartbeats of a runner.
HEARTBEAT = 5.0
_LEAST_LIFE = timedelta(seconds=6 * HEARTBEAT)
_KEPT = timedelta(days=30)
#: Maximum number of stored runners: one that crashes and restarts all day has a new name each time.
_MOST = 1000
FOREIGN_SETTING = "YAPTIDE_FOREIGN_WORKERS"


def runner_lifetime(backend: Backend) -> timedelta:
    """Return how long after its last heartbeat a runner counts as alive."""
    return max(backend.limits.silence, _LEAST_LIFE)


def program_of(installation: Installation) -> Program:
    """Return the announcement of an installed simulator."""
    return Program(installation.version, installation.digest)


class Announcement:
    """The announcement of a runner: repeated when it changes, otherwise renewed by a heartbeat."""

    def __init__(self, backend: Backend, name: str, platform: str) -> None:
        self._backend = backend
        self._name = name
        self._platform = platform
        self._announced: Mapping[str, Program] | None = None

    def tell(self, programs: Mapping[str, Program]) -> None:
        """Announce the runner with these simulators, or send a heartbeat."""
        if programs != self._announced or not keep_runner(self._backend, self._name):
            announce_runner(self._backend, self._name, self._platform, programs)
            self._announced = programs

    def withdraw(self) -> None:
        """Withdraw the announcement for good."""
        withdraw_runner(self._backend, self._name)
        self._announced = None


@retry_contended
def announce_runner(backend: Backend, name: str, platform: str, programs: Mapping[str, Program]) -> None:
    """Store the simulators of a runner, replacing earlier ones.

    Runners without a heartbeat for a month are deleted; until then a rejection can tell when there was one.
    """
    time = utc_now()
    with backend.database.writing() as connection:
        runners.remove_stalled(connection, time - _KEPT, _MOST)
        runners.put_runner(connection, name, platform, programs, time)


def keep_runner(backend: Backend, name: str) -> bool:
    """Record a heartbeat of a runner; False if it is unknown."""
    with backend.database.autocommit() as connection:
        return runners.beat_runner(connection, name, utc_now())


@retry_contended
def withdraw_runner(backend: Backend, name: str) -> None:
    """Delete a runner."""
    with backend.database.writing() as connection:
        runners.remove_runner(connection, name)


def list_programs(backend: Backend) -> list[Record]:
    """Return the programs of live runners; see `queries.runners.all_programs`."""
    with backend.database.probe() as connection:
        return runners.all_programs(connection, utc_now() - runner_lifetime(backend))


@dataclass(frozen=True, slots=True)
class Runner:
    """An executor, worker or cluster driver, with its simulators and their versions as text."""

    name: str
    platform: str
    heartbeat_time: datetime
    simulators: tuple[str, ...]


def list_runners(backend: Backend) -> list[Runner]:
    """Return the runners that send heartbeats, by name, at most `_MOST`."""
    with backend.database.probe() as connection:
        rows = runners.list_runners(connection, utc_now() - runner_lifetime(backend), _MOST)
    listed = []
    for (name, platform, heard), group in groupby(rows, key=lambda row: (row.name, row.platform, row.heartbeat_time)):
        simulators = tuple(f"{row.sim_type} {row.version}".strip() for row in group if row.sim_type is not None)
        listed.append(Runner(name, platform, heard, simulators))
    return listed


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a simulation requires of a runner: simulator, platform, and whether its input is a project.

    `for_external`: it is on a cluster to which external workers submit it.
    """

    sim_type: str
    platform: str
    input_type: str
    for_external: bool = False


def check_runnable(backend: Backend, connection: Connection, required: Requirements) -> str | None:
    """Return why a new simulation must wait for external workers; None if it need not.

    Raises NotConfigured, with a message for the user and the administrator, if neither these nor any runner can run it.
    """
    obstacle = _obstacle(backend, connection, required)
    if obstacle is not None and required.sim_type not in backend.foreign_workers:
        raise NotConfigured(obstacle)
    return obstacle and _waiting_for_external(required)


def why_waiting(backend: Backend, connection: Connection, required: Requirements) -> str | None:
    """Return why no runner can run a PENDING simulation now; None if one can."""
    obstacle = _obstacle(backend, connection, required)
    if obstacle is not None and required.sim_type in backend.foreign_workers:
        return _waiting_for_external(required)
    return obstacle


def has_runner(backend: Backend, connection: Connection, sim_type: str) -> bool:
    """Return whether a live runner of this installation has a simulator."""
    return _is_alive(backend, runners.last_heard(connection, DIRECT, sim_type))


def _waiting_for_external(required: Requirements) -> str:
    return f"Waiting for an external worker with {simulator_title(required.sim_type)}"


def _obstacle(backend: Backend, connection: Connection, required: Requirements) -> str | None:
    """Return why no runner of this installation can run it; None if one can."""
    title = simulator_title(required.sim_type)
    if required.for_external:
        return f"It needs external workers with {title}, but {FOREIGN_SETTING} no longer lists it"
    if required.platform == BATCH:
        if _is_alive(backend, runners.last_heard(connection, BATCH)):
            return _no_conversion(required, title)
        return "No cluster driver is running: an administrator can start one with `yaptide up` or `yaptide work`"
    heartbeat = runners.last_heard(connection, DIRECT, required.sim_type)
    if heartbeat is None:
        return f"{title} is not installed: {_remedy(required.sim_type)}"
    if not _is_alive(backend, heartbeat):
        return (
            f"No runner with {title} has sent a heartbeat since {heartbeat:%Y-%m-%d %H:%M} UTC: an "
            "administrator can start one with `yaptide up`, `yaptide work` or `yaptide worker`"
        )
    return _no_conversion(required, title)


def _no_conversion(required: Requirements, title: str) -> str | None:
    if required.input_type != EDITOR or is_converter(required.sim_type):
        return None
    return f"Projects cannot be converted to input of {title} yet: submit input files of {title}"


def _is_alive(backend: Backend, heartbeat: datetime | None) -> bool:
    return heartbeat is not None and heartbeat > utc_now() - runner_lifetime(backend)


def simulator_title(sim_type: str) -> str:
    """Return the official name of a simulator."""
    try:
        return get_simulator(sim_type).title
    except (InvalidInput, NotConfigured):  # its package was removed
        return sim_type


def _remedy(sim_type: str) -> str:
    try:
        return get_simulator(sim_type).remedy
    except (InvalidInput, NotConfigured):
        return "no installed package provides it"

"""Who can run what just now: runners announce it, and each submission is decided by it.

Runners are executors and workers, which have simulators, and drivers, which submit to clusters; what a cluster has, its
administrator says. An announcement is good for as long as its runner gives signs of life, and `runner_lifetime` longer:
what ran a moment ago is not refused while something is being restarted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

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

#: Seconds between two signs of life of a runner.
HEARTBEAT = 5.0
_LEAST_LIFE = timedelta(seconds=6 * HEARTBEAT)
_KEPT = timedelta(days=30)
#: Runners that are remembered: one that dies and is started again all day has a new name each time.
_MOST = 1000
FOREIGN_SETTING = "YAPTIDE_FOREIGN_WORKERS"


def runner_lifetime(backend: Backend) -> timedelta:
    """For how long after its last sign of life a runner counts as being there."""
    return max(backend.limits.silence, _LEAST_LIFE)


def program_of(installation: Installation) -> Program:
    """What is announced of an installed simulator."""
    return Program(installation.version, installation.digest)


class Announcement:
    """What one runner announces: told anew when it changes, otherwise kept by a sign of life."""

    def __init__(self, backend: Backend, name: str, platform: str) -> None:
        self._backend = backend
        self._name = name
        self._platform = platform
        self._told: Mapping[str, Program] | None = None

    def tell(self, programs: Mapping[str, Program]) -> None:
        """The runner is there, and has these simulators."""
        if programs != self._told or not keep_runner(self._backend, self._name):
            announce_runner(self._backend, self._name, self._platform, programs)
            self._told = programs

    def withdraw(self) -> None:
        """The runner has gone for good."""
        withdraw_runner(self._backend, self._name)
        self._told = None


@retry_contended
def announce_runner(backend: Backend, name: str, platform: str, programs: Mapping[str, Program]) -> None:
    """Tell which simulators a runner has, in place of what it had.

    Who was silent for a month is forgotten with it; until then a refusal can tell when there was somebody.
    """
    time = utc_now()
    with backend.database.writing() as connection:
        runners.remove_silent(connection, time - _KEPT, _MOST)
        runners.put_runner(connection, name, platform, programs, time)


def keep_runner(backend: Backend, name: str) -> bool:
    """Tell that a runner is there, with what it had; False if it is not known."""
    with backend.database.autocommit() as connection:
        return runners.beat_runner(connection, name, utc_now())


@retry_contended
def withdraw_runner(backend: Backend, name: str) -> None:
    """Tell that a runner has gone for good."""
    with backend.database.writing() as connection:
        runners.remove_runner(connection, name)


def list_programs(backend: Backend) -> list[Record]:
    """What the runners have that are there; see `queries.runners.all_programs`."""
    with backend.database.probe() as connection:
        return runners.all_programs(connection, utc_now() - runner_lifetime(backend))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a simulation needs somebody for: the simulator, the platform, and whether its input is a project.

    `for_others`: it is on a cluster, and nothing of ours submits it there.
    """

    sim_type: str
    platform: str
    input_type: str
    for_others: bool = False


def check_runnable(backend: Backend, connection: Connection, wanted: Wanted) -> str | None:
    """Why a simulation that is submitted now has to wait for workers of others; None if it has not.

    Raises NotConfigured, for its user and the administrator, if nobody at all could run it.
    """
    obstacle = _obstacle(backend, connection, wanted)
    if obstacle is not None and wanted.sim_type not in backend.foreign_workers:
        raise NotConfigured(obstacle)
    return obstacle and _waits_for_others(wanted)


def why_waiting(backend: Backend, connection: Connection, wanted: Wanted) -> str | None:
    """Why nobody of ours can take a simulation that is PENDING, as it is now; None if somebody can."""
    obstacle = _obstacle(backend, connection, wanted)
    if obstacle is not None and wanted.sim_type in backend.foreign_workers:
        return _waits_for_others(wanted)
    return obstacle


def _waits_for_others(wanted: Wanted) -> str:
    return f"It waits for a worker of others that has {simulator_title(wanted.sim_type)}"


def _obstacle(backend: Backend, connection: Connection, wanted: Wanted) -> str | None:
    """What keeps all runners of ours from running it; None if one of them can."""
    title = simulator_title(wanted.sim_type)
    if wanted.for_others:
        return f"It is for workers of others that have {title}, and {FOREIGN_SETTING} names it no more"
    if wanted.platform == BATCH:
        if _is_there(backend, runners.last_heard(connection, BATCH)):
            return _no_conversion(wanted, title)
        return "Nothing submits to clusters just now: an administrator can start it with `yaptide up` or `yaptide work`"
    heard = runners.last_heard(connection, DIRECT, wanted.sim_type)
    if heard is None:
        return f"{title} is not installed here: {_remedy(wanted.sim_type)}"
    if not _is_there(backend, heard):
        return (
            f"Nothing here that has {title} was heard of since {heard:%Y-%m-%d %H:%M} UTC: an administrator can start "
            "it again, with `yaptide up`, `yaptide work` or `yaptide worker`"
        )
    return _no_conversion(wanted, title)


def _no_conversion(wanted: Wanted, title: str) -> str | None:
    if wanted.input_type != EDITOR or is_converter(wanted.sim_type):
        return None
    return f"A project cannot be made into input of {title} here yet: submit input files of {title}"


def _is_there(backend: Backend, heard: datetime | None) -> bool:
    return heard is not None and heard > utc_now() - runner_lifetime(backend)


def simulator_title(sim_type: str) -> str:
    """What people call a simulator."""
    try:
        return get_simulator(sim_type).title
    except (InvalidInput, NotConfigured):  # its package was removed
        return sim_type


def _remedy(sim_type: str) -> str:
    try:
        return get_simulator(sim_type).remedy
    except (InvalidInput, NotConfigured):
        return "no installed package knows it any more"

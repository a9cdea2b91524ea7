"""What the operations need of their surroundings, put together once by `yaptide.application`."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from yaptide.persistence.engine import Database


class Dispatcher(Protocol):
    """Hands accepted work to whoever runs it. Always called after the commit: its failure loses nothing."""

    def dispatch(self, simulation_id: int, update_key: str) -> None:
        """Have the tasks of a new simulation run; `update_key` is what a remote worker reports with."""

    def revoke(self, simulation_id: int) -> None:
        """Have whatever still runs of a simulation stopped."""


class NoDispatcher:
    """For processes that run nothing themselves: executors find the work in the database."""

    def dispatch(self, simulation_id: int, update_key: str) -> None:
        """Do nothing."""

    def revoke(self, simulation_id: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    tasks: int = 10_000
    """Tasks of one simulation."""
    logfiles: int = 64 * 2**20
    """Bytes of log text kept with one simulation."""
    attempts: int = 3
    """How often a task is begun before its failing workers count as its own failure."""
    access: timedelta = timedelta(minutes=10)
    """How long an access token is good."""
    refresh: timedelta = timedelta(hours=2)
    """How long a refresh token, and with it a session, is good."""
    update_key: timedelta = timedelta(days=30)
    """How long after the submission workers may report."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The database, the spool for outputs of tasks, the key that signs tokens, the limits, and who runs the work."""

    database: Database
    spool: Path
    signing_key: bytes
    limits: Limits = field(default_factory=Limits)
    dispatcher: Dispatcher = field(default_factory=NoDispatcher)


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)

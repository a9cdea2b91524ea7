"""The dependencies of the operations, created once by `yaptide.application`."""

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from yaptide.persistence.engine import Database
from yaptide.services.last_uses import LastUses
from yaptide.services.passwords import LEAST
from yaptide.services.spool import Spool
from yaptide.services.throttle import Throttle


class Dispatcher(Protocol):
    """Notifies executors about work. They would also find it in the database.

    Always called after the commit; returns quickly.
    """

    def dispatch(self, simulation_id: int) -> None:
        """Notify that a new simulation has waiting tasks."""

    def revoke(self, simulation_id: int) -> None:
        """Request to stop everything that still runs for a simulation."""


class NoDispatcher:
    """For processes that run no tasks."""

    def dispatch(self, simulation_id: int) -> None:
        """Do nothing."""

    def revoke(self, simulation_id: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what one request may ask for."""

    tasks: int = 10_000
    """Maximum number of tasks of one simulation."""
    logfiles: int = 64 * 2**20
    """Maximum bytes of log text of one simulation."""
    attempts: int = 3
    """Number of attempts before a task with crashing workers fails."""
    access: timedelta = timedelta(minutes=10)
    """Lifetime of an access token."""
    refresh: timedelta = timedelta(hours=2)
    """Lifetime of a refresh token, and of its session."""
    update_key: timedelta = timedelta(days=30)
    """Time after the end of a simulation during which its workers may still report."""
    silence: timedelta = timedelta(seconds=60)
    """Time without a heartbeat after which a worker is stalled."""
    output: int = 2**30
    """Maximum bytes of the output of one task."""
    registration: bool = True
    """Whether anyone may register as a user."""
    password: int = LEAST
    """Minimum length of a new password."""


@dataclass(frozen=True, slots=True)
class Keycloak:
    """The realm whose tokens sign users in, and the source of their SSH certificates."""

    issuers: tuple[str, ...]
    """URLs of the realm: one, or both possible ones."""
    clients: frozenset[str]
    """A token must be for one of these clients, or issued to one of them."""
    claim: tuple[str, str] | None = None
    """Name of a claim, and the value that it must contain."""
    certificates: str = ""
    """URL of the certificate service; empty: none."""
    web_client: str = ""
    """Client ID with which pages sign users in; empty: pages offer no sign-in through Keycloak."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The shared objects and settings of an installation, or of one process.

    The database; the staging area for the output of tasks; the key that signs tokens; the limits; the dispatcher; the
    throttle for failed sign-ins; the data folder, where large bodies wait for their check; the keys of the
    `yaptide.services.secrets.Vault`; the Keycloak realm, or None; the simulators that external workers run; the
    simulator that runs converted projects (or `auto`, `off`); the users (provider, name) who see the operator page; and
    the writer of tokens' last uses.
    """

    database: Database
    spool: Spool
    signing_key: bytes = field(repr=False)
    limits: Limits = field(default_factory=Limits)
    dispatcher: Dispatcher = field(default_factory=NoDispatcher)
    throttle: Throttle = field(default_factory=Throttle)
    data_dir: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    keycloak: Keycloak | None = None
    foreign_workers: frozenset[str] = frozenset()
    editor_simulator: str = "auto"
    operators: frozenset[tuple[str, str]] = frozenset()
    last_uses: LastUses = field(default_factory=LastUses)


@dataclass(frozen=True, slots=True)
class Token:
    """A signed token and its expiry."""

    text: str = field(repr=False)
    expires: datetime


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)

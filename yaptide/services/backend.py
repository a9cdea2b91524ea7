"""What the operations need of their surroundings, put together once by `yaptide.application`."""

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from yaptide.persistence.engine import Database
from yaptide.services.passwords import LEAST
from yaptide.services.spool import Spool
from yaptide.services.throttle import Throttle


class Dispatcher(Protocol):
    """Tells whoever runs simulations that there is something to look at. They would find it in the database anyway.

    Always called after the commit, and never takes long.
    """

    def dispatch(self, simulation_id: int) -> None:
        """A new simulation waits for its tasks to be run."""

    def revoke(self, simulation_id: int) -> None:
        """Whatever still runs of a simulation is to be stopped."""


class NoDispatcher:
    """For processes that run nothing themselves."""

    def dispatch(self, simulation_id: int) -> None:
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
    """How long after the end of a simulation its workers may still send what got lost."""
    silence: timedelta = timedelta(seconds=60)
    """After how long without a sign of life a worker counts as dead."""
    output: int = 2**30
    """Bytes of the scores that one task may leave."""
    registration: bool = True
    """Whether people may add themselves as users."""
    password: int = LEAST
    """Characters of a new password at least."""


@dataclass(frozen=True, slots=True)
class Keycloak:
    """Whose tokens sign users in, and where these get SSH certificates."""

    issuers: tuple[str, ...]
    """The realm's URL; where it may be one of two, both."""
    clients: frozenset[str]
    """A token has to be for one of these, or to have been issued to one of them."""
    claim: tuple[str, str] | None = None
    """Name of a claim, and the value that has to be in it."""
    certificates: str = ""
    """URL of the certificate service; empty: there is none."""
    web_client: str = ""
    """Client ID with which pages have users sign in; empty: they cannot there."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What there is one of in an installation, or in a process of it.

    The database, the spool for outputs of tasks, the key that signs tokens, the limits, who runs the work, what is
    remembered of wrong passwords, the data folder, where large bodies wait for their check, the keys of the
    `yaptide.services.secrets.Vault`, the realm of Keycloak, None if nobody signs in through it, the simulators
    whose simulations workers of others take, and the one that runs projects which were made for others (or `auto`,
    `off`).
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


@dataclass(frozen=True, slots=True)
class Token:
    """A text that we have signed, and when it ends."""

    text: str = field(repr=False)
    expires: datetime


def utc_now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)

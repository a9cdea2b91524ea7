"""What unit tests of services and queries share: a store in memory, and a clock that they set."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.storing import copy_into_memory
from yaptide.persistence.engine import Database
from yaptide.services import lifecycle, recovery, results_upload, sessions, simulations, tasks


@pytest.fixture
def database(migrated_file: Path) -> Iterator[Database]:
    """A migrated database in memory: unit tests need no server."""
    database = copy_into_memory(migrated_file)
    yield database
    database.close()


@dataclass
class Clock:
    """The present time, as services see it."""

    time: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time."""
        return self.time

    def later(self, **how_much: float) -> datetime:
        """Go on by so many seconds, minutes, ..., and return the time."""
        self.time += timedelta(**how_much)
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all services; it stands still unless a test moves it."""
    clock = Clock()
    for module in (lifecycle, recovery, results_upload, sessions, simulations, tasks):
        monkeypatch.setattr(module, "utc_now", clock)
    return clock

"""Fixtures that need only the code: mutation testing loads only these, because others are slow to import."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, Phase, settings as hypothesis_settings

from tests.support.storing import FOREIGN, Recorder
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import passwords, runners
from yaptide.services.backend import Backend
from yaptide.services.spool import Folder

# The same examples in every run, so that failures are reproducible. Slow machines are not failures.
hypothesis_settings.register_profile(
    "yaptide",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Mutation testing needs to know whether an example fails, but not the smallest one.
hypothesis_settings.register_profile(
    "mutation", hypothesis_settings.get_profile("yaptide"), phases=(Phase.explicit, Phase.generate)
)
hypothesis_settings.load_profile("yaptide")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "yaptide.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade_tables(database)
    database.close()
    return path


@pytest.fixture
def backend(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The services on `database`, with fast password hashing and a dispatcher that only records.

    An executor with MCsquare and a driver of clusters are announced; external workers run the other simulators.
    """
    monkeypatch.setattr(passwords, "_argon2", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    key = b"a key for tests, 32 bytes or more"
    backend = Backend(
        database,
        Folder(tmp_path / "spool"),
        key,
        dispatcher=Recorder(),
        data_dir=tmp_path,
        foreign_workers=FOREIGN,
    )
    runners.announce_runner(
        backend, "executor-of-tests", runners.DIRECT, {"mcsquare": runners.Program("1.1", "ab" * 32)}
    )
    runners.announce_runner(backend, "driver-of-tests", runners.BATCH, {})
    yield backend
    backend.last_uses.wait()

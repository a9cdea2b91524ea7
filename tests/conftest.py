"""What all tests share."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete

from tests.support import keycloak as keycloak_support, slurm as clusters
from tests.support.api import UI, Job, sign_in, submit
from tests.support.described import CheckedClient
from tests.support.fixtures import backend as backend, migrated_file as migrated_file
from tests.support.postgres import Postgres, PostgresMissing, serve
from tests.support.storing import copy_into_memory
from yaptide.application import create_app
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.persistence.models import ClusterModel, RunnerModel, UserModel
from yaptide.services.backend import Backend
from yaptide.settings import Settings

TESTS = Path(__file__).parent

MEMORY, SQLITE, POSTGRESQL = "memory", "sqlite", "postgresql"

# A shell has what it runs in the background ignore Ctrl-C, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the folder it is in: unit, integration or acceptance; another folder is an error."""
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])


@pytest.fixture(autouse=True)
def not_signed_in_to_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands in tests work on the local data folder, whatever their user has signed in to."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("YAPTIDE_URL", raising=False)
    monkeypatch.delenv("YAPTIDE_TOKEN", raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; take a database of your own with `create_database`."""
    try:
        with serve() as server:
            yield server
    except PostgresMissing as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[clusters.SlurmCluster]:
    """A SLURM cluster for the whole session."""
    try:
        with clusters.serve() as cluster:
            yield cluster
    except clusters.SlurmMissing as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def migrated_url(postgres: Postgres) -> str:
    """The URL of a migrated database on the server, which tests use one after the other."""
    url = postgres.create_database()
    database = Database(url)
    schema.upgrade_tables(database)
    database.close()
    return url


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables, on disk."""
    if request.param == SQLITE:
        database = Database(f"sqlite:///{tmp_path / 'yaptide.db'}")
        yield database
        database.close()
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.create_database()
        database = Database(url)
        yield database
        database.close()
        server.drop_database(url)


@pytest.fixture(params=[MEMORY, SQLITE, POSTGRESQL])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database of each kind, or of those that `parametrize("database", ..., indirect=True)` chooses."""
    if request.param == POSTGRESQL:
        database = Database(request.getfixturevalue("migrated_url"))
        yield database
        with database.writing() as connection:  # a copy of a template for each test would take 0.3 s
            connection.execute(delete(UserModel.__table__))  # and with them everything that is theirs
            connection.execute(delete(ClusterModel.__table__))
            connection.execute(delete(RunnerModel.__table__))
    elif request.param == SQLITE:
        copy = shutil.copy(request.getfixturevalue("migrated_file"), tmp_path)
        database = Database(f"sqlite:///{copy}")
        yield database
    else:
        database = copy_into_memory(request.getfixturevalue("migrated_file"))
        yield database
    database.close()


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The web application without a database of its own: making one takes longer than most tests.

    Its test clients compare every answer with the OpenAPI document.
    """
    folder = tmp_path_factory.mktemp("routes")
    origins = f"{UI},http://127.0.0.1:3000"
    small = {"max_body_mib": 1, "max_results_mib": 16}
    made = create_app(
        Settings(_env_file=None, database_uri="sqlite://", data_dir=folder, cors_origins=origins, **small)
    )
    made.test_client_class = CheckedClient
    return made


@pytest.fixture
def app(routes: Flask, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The web application over `backend`, with small limits for bodies."""
    monkeypatch.setitem(routes.extensions, "yaptide", backend)
    monkeypatch.setitem(routes.extensions, "sqlalchemy", backend.database)
    return routes


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Somebody who is not signed in."""
    return app.test_client()


@pytest.fixture
def signed_in(app: Flask) -> FlaskClient:
    """Somebody who is signed in."""
    return sign_in(app, "alice")


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    """Somebody else who is signed in."""
    return sign_in(app, "mallory")


@pytest.fixture
def job(signed_in: FlaskClient) -> Job:
    """A simulation of `signed_in` with two tasks of 500 primaries and the outputs `dose` and `dose2`, PENDING."""
    return submit(signed_in)


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[keycloak_support.Server]:
    """A Keycloak for the whole session, and for all processes that run tests at once; it takes a while to start."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "keycloak"
    folder.mkdir(exist_ok=True)
    try:
        with keycloak_support.shared(folder) as server:
            yield server
    except keycloak_support.KeycloakMissing as missing:
        pytest.fail(str(missing), pytrace=False)

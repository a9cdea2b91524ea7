"""Fixtures of the tests of the production platform."""

from collections.abc import Iterator

import pytest

from tests.support.brokers import Broker, redis
from tests.support.processes import beam, place
from tests.support.production import PRIMARIES, TASKS, Production, installed


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Broker]:
    """A Redis for the whole session."""
    with redis() as broker:
        yield broker


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A beam whose tasks each take a second or two."""
    return beam(tmp_path_factory.mktemp("source") / "beam", PRIMARIES)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, source):
    """The JSON text of the embedded system's results of `source`."""
    with place(tmp_path_factory.mktemp("embedded") / "place") as there:
        done = there.run("run", source, "--tasks", TASKS, "--json")
        assert done.code == 0, done.err
        return there.run("results", done.json["job_id"], "--json").out.removesuffix("\n")


@pytest.fixture
def production(tmp_path, postgres, redis_server) -> Iterator[Production]:
    """PostgreSQL and Redis for a server and workers that the test starts."""
    redis_server.start()  # another test may have killed it
    with installed(tmp_path, postgres, redis_server) as made:
        yield made

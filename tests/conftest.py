"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Postgres, PostgresMissing, serve

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the folder it is in: unit, integration or acceptance; another folder is an error."""
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; take a database of your own with `create_database`."""
    try:
        with serve() as server:
            yield server
    except PostgresMissing as missing:
        pytest.fail(str(missing), pytrace=False)

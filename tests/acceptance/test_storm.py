"""A short storm over each database; `make stress` is a long one."""

from pathlib import Path

import pytest

from tests.stress.storm import DEEDS, run_storm
from tests.support.postgres import Postgres

SECONDS = 8.0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_is_lost_or_wrong_when_everything_happens_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'yaptide.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.create_database()
    report = run_storm(url, tmp_path / "storm", SECONDS, seed=7)
    assert report["wrong"] == []
    assert report["acknowledged"].keys() >= DEEDS

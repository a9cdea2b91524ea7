"""A database of each revision that was ever released is kept, and can still be brought to the newest one.

The kept databases are backups (docs/backup.md), which do not depend on the kind of database. For a new revision, make
one with `python -m tests.integration.test_released_revisions` before it is released, and never change it afterwards.
"""

import sys
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Integer, select
from sqlalchemy.orm import Session

from tests.support import stores
from tests.support.api import contents
from yaptide.persistence import codec, schema
from yaptide.persistence.engine import Database
from yaptide.persistence.models import PageModel, SimulationModel, UserModel
from yaptide.persistence.queries import simulations
from yaptide.persistence.schema import HEAD, known_revisions
from yaptide.services import backups

KEPT = Path(__file__).parents[1] / "fixtures"


def kept(revision: str) -> Path:
    return KEPT / f"revision-{revision}.backup"


def test_a_database_of_every_revision_is_kept() -> None:
    assert {path.name for path in KEPT.glob("*.backup")} == {kept(revision).name for revision in known_revisions()}


@pytest.mark.parametrize("revision", known_revisions())
def test_an_old_database_is_brought_up_to_date_with_all_its_data(revision: str, empty: Database) -> None:
    backups.restore_backup(empty, kept(revision))
    schema.require_current(empty)
    assert schema.schema_differences(empty) == []
    with Session(empty.engine) as session:
        users = {(user.username, user.auth_provider) for user in session.scalars(select(UserModel))}
        assert {("alice", "YaptideUser"), ("alice", "KeycloakUser")} <= users
        jobs = {result.job_id: result for result in session.scalars(select(SimulationModel))}
        assert {stores.DIRECT_JOB, stores.BATCH_JOB, stores.OPEN_JOB} <= jobs.keys()
        direct = jobs[stores.DIRECT_JOB]
        assert (direct.start_time, direct.end_time) == (stores.START, stores.END)
        assert codec.decode_payload(direct.input.compressed_data) == stores.INPUT
        assert max(task.requested_primaries for task in direct.tasks) == stores.MANY
        assert len(direct.history) > 1
        assert simulations.count_by_state(session.connection(), None) == dict.fromkeys(stores.STATES, 1)
        pages = list(session.scalars(select(PageModel)))
        assert pages
        assert all(isinstance(codec.decode_payload(page.compressed_data), dict) for page in pages)


def test_the_newest_kept_database_is_that_of_today(empty: Database, tmp_path: Path) -> None:
    """If this fails, the tables have changed and a revision is missing."""
    schema.upgrade_tables(empty)
    stores.fill(empty)
    before = contents(empty)
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    backups.restore_backup(other, kept(HEAD))
    assert contents(other) == before
    other.close()


def test_the_way_back_to_an_older_version_loses_only_what_it_does_not_know(empty: Database) -> None:
    schema.upgrade_tables(empty)
    stores.fill(empty)
    before = contents(empty)
    schema.downgrade_tables(empty, "0001")
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []
    after = contents(empty)
    assert after.keys() == before.keys()
    lost = {name for name in before if after[name] != before[name]}
    of_clusters = {"BatchArray", "BatchSimulation", "Cluster", "Runner", "RunnerSimulator"}
    assert lost == of_clusters | {"KeycloakUser", "YaptideUser", "Session", "SubmissionKey", "Token"}


def test_a_table_that_is_made_anew_keeps_what_refers_to_it(empty: Database) -> None:
    """SQLite changes a column by making the table anew, and dropping the old one would delete its children."""
    schema.upgrade_tables(empty)
    stores.fill(empty)
    before = contents(empty)
    with empty.migrating() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("Simulation", recreate="auto") as table:
            table.alter_column("stored_bytes", existing_type=Integer(), nullable=False, server_default="1")
    assert contents(empty) == before


if __name__ == "__main__":
    database = Database("sqlite://")
    schema.upgrade_tables(database)
    stores.fill(database)
    backups.write_backup(database, kept(HEAD))
    sys.exit()

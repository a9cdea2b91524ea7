"""Lists of any length reach the database: PostgreSQL takes 65,535 parameters, SQLite 32,766 or 250,000."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from tests.support import stores
from tests.support.storing import submitted
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.engine import Database
from yaptide.persistence.models import CeleryTaskModel, PageModel, SimulationModel, TaskModel
from yaptide.persistence.queries import blobs, outbox, results, retention, simulations
from yaptide.services import outbox as outbox_service
from yaptide.services.backend import Backend

MANY = 260_000
LARGE = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
NAMES = [f"{number:036}" for number in range(MANY)]


def page_ids(database: Database) -> list[int]:
    with database.reading() as connection:
        return list(connection.scalars(select(PageModel.id)))


@LARGE
def test_a_broker_that_lost_very_many_messages(backend: Backend, database: Database) -> None:
    submitted(backend, 3)
    (letter,) = outbox_service.list_unsent(backend, 10)
    lost, kept = letter.names[:2], letter.names[2]
    outbox_service.forget_sent(backend, NAMES + lost)
    with database.reading() as connection:
        assert outbox.list_sent(connection, "shieldhit") == {kept}
    (again,) = outbox_service.list_unsent(backend, 10)
    assert len(again.tasks) == len(lost)


@LARGE
def test_the_message_of_a_task_that_runs_keeps_its_name(backend: Backend, database: Database) -> None:
    submitted(backend, 1)
    (letter,) = outbox_service.list_unsent(backend, 10)
    with database.writing() as connection:
        connection.execute(TaskModel.__table__.update().values(task_state=EntityState.RUNNING))
    outbox_service.forget_sent(backend, letter.names)
    with database.reading() as connection:
        assert connection.scalars(select(CeleryTaskModel.celery_id)).all() == letter.names


@LARGE
def test_the_message_about_a_merge_is_sent_again(backend: Backend, database: Database) -> None:
    submitted(backend, 1)
    (number,) = backend.dispatcher.dispatched
    with database.writing() as connection:
        connection.execute(SimulationModel.__table__.update().values(job_state=EntityState.MERGING_QUEUED))
        name = outbox.name_merge(connection, number)
        assert outbox.name_merge(connection, number) is None
        outbox.forget_named(connection, [*NAMES, name])
        assert outbox.name_merge(connection, number)


@LARGE
def test_states_of_very_many_simulations(database: Database) -> None:
    stores.fill(database)
    with database.reading() as connection:
        result = simulations.states_by_job(connection, [*NAMES, stores.DIRECT_JOB, stores.OPEN_JOB])
        assert result == {stores.DIRECT_JOB: EntityState.COMPLETED, stores.OPEN_JOB: EntityState.RUNNING}
        assert simulations.states_by_job(connection, []) == {}


@LARGE
def test_pages_of_very_many_estimators(database: Database) -> None:
    stores.fill(database)
    ids = page_ids(database)
    others = range(max(ids) + 1, max(ids) + MANY)
    with database.reading() as connection:
        loaded = results.list_pages(connection, [*others, 4])
        assert [(page.id, page.page_number) for page in loaded] == [(ids[0], 0), (ids[1], 1)]
        (second,) = results.list_pages(connection, [*others, 4], [(1, 1)])
        assert codec.decode_payload(second.compressed_data) == {"values": [1e-300] * 50}


@LARGE
def test_heads_of_very_many_pages(database: Database) -> None:
    stores.fill(database)
    ids = page_ids(database)
    with database.reading() as connection:
        others = range(max(ids) + 1, max(ids) + (1000 if database.is_sqlite else MANY))  # each is opened there
        heads = blobs.read_heads(connection, [*others, *ids], 2)
        assert [head for head in heads if head] == [b"\x1f\x8b"] * 2


@LARGE
def test_very_many_old_simulations(database: Database) -> None:
    stores.fill(database)
    old = retention.Old(datetime.now(UTC), (EntityState.COMPLETED,))
    with database.writing() as connection:
        (result,) = retention.lock_old(connection, old, [*NAMES, stores.DIRECT_JOB])
        assert result.job_id == stores.DIRECT_JOB
        ids = [*range(1000, 1000 + MANY), result.id]
        retention.remove_outputs(connection, ids)
        assert results.list_estimators(connection, result.id) == []
        assert simulations.remove_all(connection, ids) == 1

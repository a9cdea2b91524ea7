"""Every wait for the database has a limit, and its error names the reason."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text

from tests.support.api import submit
from tests.support.postgres import Postgres
from yaptide.domain.errors import Contended, Unavailable
from yaptide.persistence import engine, schema
from yaptide.persistence.engine import Database
from yaptide.persistence.models import SimulationModel

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

_TABLE = SimulationModel.__table__
_IDLE = "idle_in_transaction_session_timeout"


@pytest.fixture
def impatient(database, monkeypatch):
    """Another process at the same database, with little patience."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.2)
    monkeypatch.setattr(engine, "IDLE_TIMEOUT", 0.2)
    result = Database(database.engine.url.render_as_string(hide_password=False))
    yield result
    result.close()


def lock_all(connection):
    connection.execute(select(_TABLE.c.id).with_for_update()).all()


def test_a_lock_that_is_held_for_too_long_is_not_waited_for(signed_in, database, impatient):
    submit(signed_in)
    with database.writing() as holder:
        lock_all(holder)
        with (
            pytest.raises(Unavailable, match=r"held a lock for 0\.2 s; try again") as refused,
            impatient.writing() as other,
        ):
            lock_all(other)
        assert not isinstance(refused.value, Contended)  # which is tried again at once
    with impatient.writing() as other:
        lock_all(other)


def test_who_falls_asleep_with_a_lock_loses_it(signed_in, database, impatient):
    submit(signed_in)

    def sleep():
        with impatient.writing() as sleeper:
            lock_all(sleeper)
            with database.writing() as other:  # waits until the sleeper has lost it
                lock_all(other)
            sleeper.execute(text("SELECT 1"))

    with pytest.raises(Unavailable, match="idle-in-transaction"):
        sleep()
    with impatient.writing() as again:
        lock_all(again)


def test_a_client_is_told_to_try_again(app, backend, job, database, impatient, monkeypatch):
    monkeypatch.setitem(app.extensions, "yaptide", replace(backend, database=impatient))
    with database.writing() as holder:
        lock_all(holder)
        answer = job.post_results()
    assert answer.status_code == 503
    assert answer.json == {"message": "The server is temporarily unavailable; try again later"}
    assert job.state == "PENDING"


def test_a_migration_may_take_its_time_between_statements(impatient, postgres: Postgres):
    with impatient.migrating() as connection:
        asked = {name: connection.scalar(text(f"SHOW {name}")) for name in ("lock_timeout", _IDLE)}
        assert asked == {"lock_timeout": "200ms", _IDLE: "0"}
    with impatient.reading() as connection:
        assert connection.scalar(text(f"SHOW {_IDLE}")) == "200ms"
    assert schema.schema_condition(impatient) is schema.Condition.CURRENT

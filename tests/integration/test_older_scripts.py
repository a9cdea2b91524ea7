"""Scripts that use the models of the older backend work on the same tables, and follow the rules of the server."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.legacy import Old, page
from yaptide.domain.errors import Conflict, Contended, InvalidInput, NotConfigured
from yaptide.persistence import database as module
from yaptide.persistence.database import db
from yaptide.persistence.engine import Database
from yaptide.persistence.models import (
    CelerySimulationModel,
    CeleryTaskModel,
    EstimatorModel,
    InputModel,
    PageModel,
    SimulationModel,
    TaskModel,
    UserModel,
    YaptideUserModel,
)
from yaptide.services import adoption, integrity, secrets
from yaptide.services.secrets import Vault
from yaptide.utils.enums import EntityState

STARTED = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.fixture
def adopted(empty: Database, monkeypatch: pytest.MonkeyPatch):
    """An adopted database, to which scripts are connected."""
    url = empty.engine.url.render_as_string(hide_password=False)
    with Old(url).filling() as filler:
        number = filler.simulation("old", filler.user("alice", "correct horse", "pbkdf2:sha256:1"))
        filler.task(number)
        filler.input(number)
        filler.estimator(number, "dose", page(0))
    options = {"stale_after": timedelta(days=7), "progress": lambda *_: None}
    adoption.adopt_database(empty, Vault([secrets.new_key()]), dry_run=False, **options)
    monkeypatch.setenv(module.VARIABLE, url)
    yield empty
    db.session.remove()
    module._open_engine(url).dispose()


def new_simulation() -> SimulationModel:
    user = YaptideUserModel.query.filter_by(username="alice").one()
    values = {"title": "t", "input_type": "FILES", "sim_type": "fluka", "job_state": EntityState.PENDING.value}
    simulation = CelerySimulationModel(job_id="new", user_id=user.id, start_time=STARTED, **values)
    db.session.add(simulation)
    db.session.commit()
    db.session.add(InputModel(simulation_id=simulation.id, data={"input_files": {"a.inp": "TITLE"}}))
    for number in range(2):
        db.session.add(CeleryTaskModel(simulation_id=simulation.id, task_id=number, requested_primaries=500))
    db.session.commit()
    return simulation


def test_rows_of_the_older_backend_are_read_and_changed(adopted: Database):
    user = db.session.query(YaptideUserModel).filter_by(username="alice").first()
    assert user.check_password("correct horse")
    assert not user.check_password("battery staple")
    user.set_password("battery staple")
    db.session.commit()
    assert UserModel.query.filter_by(username="alice").first().check_password("battery staple")
    with pytest.raises(InvalidInput, match="at least 8 characters"):
        user.set_password("short")

    simulation = SimulationModel.query.filter_by(job_id="old").one()
    estimator = EstimatorModel.query.filter_by(simulation_id=simulation.id, name="dose").first()
    assert estimator.data["name"] == "dose_"
    stored = PageModel.query.filter_by(estimator_id=estimator.id).one()
    assert stored.data == page(0)
    stored.data = page(0, value=float("nan"))
    db.session.commit()
    assert stored.data["data"]["missing"] == [[0, 1]]
    stored.data = page(0, value=7.0)
    db.session.add(
        PageModel(estimator_id=estimator.id, page_number=1, page_name="LET", page_dimension=1, data=page(1, "LET"))
    )
    db.session.commit()
    assert [entry.data["data"]["values"][0] for entry in estimator.pages] == [7.0, 0.1]
    assert integrity.check_store(adopted) == []


def test_a_simulation_from_its_first_row_to_its_end(adopted: Database):
    simulation = new_simulation()
    first, second = TaskModel.query.filter_by(simulation_id=simulation.id).order_by(TaskModel.task_id).all()
    assert first.task_state == EntityState.PENDING.value
    assert first.update_state({"task_state": EntityState.RUNNING.value, "start_time": "2026-03-01 10:00:00.250000"})
    assert first.start_time == STARTED + timedelta(milliseconds=250)
    assert not first.update_state({"simulated_primaries": 200, "estimated_time": 9, "celery_id": "c"})
    assert not first.update_state({"simulated_primaries": 100})
    assert (first.simulated_primaries, first.estimated_time, first.celery_id) == (200, 9, "c")
    assert simulation.update_state({"job_state": EntityState.RUNNING.value})
    first.update_state({"task_state": "COMPLETED"})
    second.update_state({"task_state": EntityState.COMPLETED})
    assert (first.simulated_primaries, first.end_time is None) == (500, False)
    estimator = EstimatorModel(simulation_id=simulation.id, name="dose", file_name="dose_", data={"name": "dose_"})
    db.session.add(estimator)
    db.session.flush()
    db.session.add(
        PageModel(estimator_id=estimator.id, page_number=0, page_name="DOSE", page_dimension=1, data=page(0))
    )
    assert simulation.update_state({"job_state": "COMPLETED", "end_time": datetime.now(UTC)})
    db.session.commit()
    assert [(entry.to_state, entry.actor) for entry in simulation.history if entry.task_id is None] == [
        (state, "script") for state in ("PENDING", "RUNNING", "COMPLETED")
    ]
    assert simulation.stored_bytes > 0
    assert integrity.check_store(adopted) == []


def test_a_forbidden_transition_raises_and_says_so(adopted: Database):
    simulation = SimulationModel.query.filter_by(job_id="old").one()
    with pytest.raises(Conflict, match="simulation old from COMPLETED to RUNNING is forbidden"):
        simulation.update_state({"job_state": EntityState.RUNNING.value})
    assert not simulation.update_state({"job_state": "COMPLETED"})
    task = simulation.tasks[0]
    with pytest.raises(Conflict, match="from COMPLETED to PENDING is forbidden"):
        task.update_state({"task_state": EntityState.PENDING.value})
    for row, update in ((task, {"task_state": "HUNG"}), (task, {"colour": 1}), (simulation, {"colour": 1})):
        with pytest.raises(InvalidInput):
            row.update_state(update)
    task.task_state = EntityState.RUNNING
    with pytest.raises(Conflict, match="update_state"):
        db.session.commit()
    db.session.rollback()
    assert integrity.check_store(adopted) == []


def test_a_script_that_changes_what_is_out_of_date_is_told(adopted: Database):
    if not adopted.is_sqlite:
        return  # PostgreSQL locks the row instead
    simulation = SimulationModel.query.one()
    with adopted.writing() as connection:
        connection.exec_driver_sql("""UPDATE "Simulation" SET title = 'other'""")
    simulation.title = "mine"
    with pytest.raises(Contended, match=r"call db\.session\.rollback\(\), and try again"):
        db.session.commit()
    db.session.rollback()
    simulation.title = "mine"
    db.session.commit()


def test_the_address_of_the_database_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(module.VARIABLE, raising=False)
    with pytest.raises(NotConfigured, match=module.VARIABLE):
        db.session.query(UserModel).all()
    db.session.remove()

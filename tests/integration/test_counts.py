"""How many simulations a list tells of: as many as there are, whatever happens to them, at once and at any moment."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event, func, insert, select, text

from tests.support.api import submit
from tests.support.invariants import QUERIES, broken_invariants
from tests.support.storing import submitted
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence import engine, schema
from yaptide.persistence.engine import Database
from yaptide.persistence.models import SimulationCountModel, SimulationModel, UserModel
from yaptide.persistence.queries import transitions, users as user_queries
from yaptide.persistence.queries.administration import Holdings
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import administration, counters, recovery, retention, simulations, tasks
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.backend import utc_now
from yaptide.services.retention import Old
from yaptide.services.tasks import Update

ON_DISK = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
ON_A_SERVER = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
STATES = [str(state) for state in EntityState]


def told(client) -> dict[str, int]:
    """How many simulations the list tells of in each state, and in all of them together."""

    def ask(states: str) -> int:
        return client.get("/user/simulations", query_string={"job_state": states}).json["simulations_count"]

    assert ask("") == ask(",".join(STATES)) == sum(map(ask, STATES))
    return {state: number for state in STATES if (number := ask(state))}


def number_of_rows(database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(SimulationCountModel)).scalar_one()


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to the database meanwhile."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)  # progress has connections of its own
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def test_a_list_tells_of_what_there_is(signed_in, stranger, backend, database):
    jobs = [submit(signed_in) for _ in range(6)]
    assert told(signed_in) == {"PENDING": 6}
    jobs[0].report_task(0, task_state="RUNNING")
    jobs[1].bring_to("CANCELED")
    jobs[2].bring_to("COMPLETED")
    jobs[3].bring_to("MERGING_RUNNING")
    jobs[4].report(job_state="RUNNING")
    jobs[4].report(job_state="PENDING")  # which is not taken
    found = {"PENDING": 1, "RUNNING": 2, "CANCELED": 1, "COMPLETED": 1, "MERGING_RUNNING": 1}
    assert told(signed_in) == found
    assert jobs[0].delete("/user/simulations").status_code == 403  # it has to be canceled first
    assert told(signed_in) == found
    jobs[1].delete("/user/simulations")
    seen = administration.count_contents(database, jobs[0].job_id)
    administration.remove_simulation(database, jobs[0].job_id, seen, force=True)
    assert told(signed_in) == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1, "MERGING_RUNNING": 1}
    old = Old(utc_now() + timedelta(days=1), tuple(FINAL_STATES))
    retention.purge_simulations(database, backend.spool, old, [job.job_id for job in jobs])
    assert told(signed_in) == {"PENDING": 1, "RUNNING": 1, "MERGING_RUNNING": 1}
    assert told(stranger) == {}
    assert broken_invariants(database) == []


def test_who_may_see_all_simulations_is_told_of_all(signed_in, stranger, backend):
    submit(signed_in), submit(stranger).bring_to("FAILED")
    page = simulations.Page(states=(EntityState.FAILED,))
    assert simulations.list_simulations(backend, ADMINISTRATOR, page)[0] == 1
    assert simulations.list_simulations(backend, ADMINISTRATOR, simulations.Page())[0] == 2


def test_progress_counts_nothing_and_a_submission_once(backend, database):
    with statements() as sent:
        _, job = submitted(backend, 2)
    assert len([statement for statement in sent if "SimulationCount" in statement]) == 1
    tasks.report_task(backend, job.simulation_id, 0, job.update_key, Update(task_state=EntityState.RUNNING))
    for update in (Update(simulated_primaries=7), Update(task_state=EntityState.RUNNING, simulated_primaries=8)):
        with statements() as sent:
            tasks.report_task(backend, job.simulation_id, 0, job.update_key, update)
        assert sent
        assert not [statement for statement in sent if "SimulationCount" in statement]


def test_many_rows_become_one_for_each_state(signed_in, stranger, backend, database):
    for state in ("PENDING", "RUNNING", "COMPLETED", "COMPLETED"):
        submit(signed_in).bring_to(state)
    submit(stranger)
    rows, found = number_of_rows(database), told(signed_in)
    counters.fold_counts(database, most=rows - 1)
    assert number_of_rows(database) == rows
    counters.fold_counts(database, most=rows - 2)  # all but the stranger's one
    assert told(signed_in) == found == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 2}
    assert (number_of_rows(database), told(stranger)) == (4, {"PENDING": 1})
    for state in ("FAILED", "CANCELED"):
        submit(signed_in).bring_to(state)
    counters.fold_counts(database, most=0)
    assert told(signed_in) == found | {"FAILED": 1, "CANCELED": 1}
    assert broken_invariants(database) == []


def test_keeping_house_adds_up_what_has_become_many(backend, database):
    user, _ = submitted(backend, 1)
    row = {"user_id": user.id, "job_state": EntityState.PENDING}
    with database.writing() as connection:
        connection.execute(
            insert(SimulationCountModel), [row | {"number": number} for number in [1, -1] * counters.MOST]
        )
    recovery.keep_house(backend)
    assert number_of_rows(database) == 1
    assert broken_invariants(database) == []


@ON_DISK
def test_adding_up_while_others_write_loses_nothing(backend, database):
    """At each moment that somebody looks, the numbers are those of the simulations that they see."""
    user, _ = submitted(backend, 1)
    writers, done, seen = 4, threading.Event(), Counter()

    def write(_number: int) -> None:
        for _ in range(12):
            _, job = submitted(backend, 1)
            for state in (EntityState.RUNNING, EntityState.COMPLETED):
                tasks.report_task(backend, job.simulation_id, 0, job.update_key, Update(task_state=state))
            simulations.cancel_simulation(backend, user, job.job_id)
            simulations.delete_simulation(backend, user, job.job_id)

    def fold() -> None:
        while not done.is_set():
            counters.fold_counts(database, most=1)
            seen["fold"] += 1

    def look() -> None:
        while not done.is_set():
            with database.autocommit() as connection:
                wrong = connection.execute(text(QUERIES["the simulations are counted wrong"])).all()
            assert wrong == []
            seen["look"] += 1

    with ThreadPoolExecutor(writers + 3) as pool:
        others = [pool.submit(step) for step in (fold, fold, look)]
        try:
            list(pool.map(write, range(writers)))
        finally:
            done.set()
        for other in others:
            other.result()
    assert min(seen["fold"], seen["look"]) > 1
    assert simulations.list_simulations(backend, user, simulations.Page())[0] == 1
    assert broken_invariants(database) == []


@pytest.fixture
def impatient(database, monkeypatch) -> Iterator[Database]:
    """Another process at the same database, which waits for nobody."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.3)
    found = Database(database.engine.url.render_as_string(hide_password=False))
    yield found
    found.close()


def move(connection, simulation_id: int, to: EntityState) -> bool:
    transitions.lock_simulation(connection, simulation_id)
    return transitions.move_simulation(connection, simulation_id, to, Audit("test", utc_now()))


@ON_A_SERVER
def test_writers_of_one_user_do_not_wait_for_one_another(backend, database, impatient):
    (user, first), (_, second), (_, third) = (submitted(backend, 1) for _ in range(3))
    with database.writing() as one:
        assert move(one, first.simulation_id, EntityState.RUNNING)
        with impatient.writing() as other:
            assert move(other, second.simulation_id, EntityState.RUNNING)
        counters.fold_counts(impatient, most=0)
        with impatient.writing() as other:
            assert user_queries.lock_user(other, user.id)  # as whoever submits, and whoever adds up
            assert move(one, third.simulation_id, EntityState.RUNNING)
    assert broken_invariants(database) == []


@ON_A_SERVER
def test_users_are_removed_while_their_rows_are_added_up(database):
    """Neither fails, nor do they meet in a circle."""
    before, done = deadlocks(database), threading.Event()

    def fold() -> None:
        while not done.is_set():
            counters.fold_counts(database, most=0)

    with ThreadPoolExecutor(2) as pool:
        folding = [pool.submit(fold) for _ in range(2)]
        try:
            for number in range(40):
                user = administration.add_user(database, f"user {number}", None)
                row = {"user_id": user.id, "job_state": EntityState.PENDING, "number": 1}
                with database.writing() as connection:
                    connection.execute(insert(SimulationCountModel), [row] * 50)
                administration.remove_user(database, user, Holdings(0, 0, 0))
        finally:
            done.set()
        for folder in folding:
            folder.result()
    assert number_of_rows(database) == 0
    assert deadlocks(database) == before


def deadlocks(database: Database) -> int:
    """How often PostgreSQL had to end one of two that waited for each other."""
    database.close()  # what a connection has seen is known for certain when it has ended
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    with database.autocommit() as connection:
        return connection.execute(query).scalar_one()


def test_an_upgrade_counts_what_there_is(empty):
    schema.upgrade_tables(empty, "0002")
    columns = "(job_id, user_id, start_time, title, platform, input_type, sim_type, job_state)"
    with empty.writing() as connection:
        for user in (1, 2, 3):
            values = {"id": user, "username": f"user {user}", "auth_provider": "YaptideUser"}
            connection.execute(insert(UserModel.__table__), values)
        states = ["PENDING"] * 2 + ["COMPLETED"] * 3 + ["FAILED"]
        for number, (user, state) in enumerate([*((1, state) for state in states), (2, "FAILED")]):
            connection.execute(
                text(f"""INSERT INTO "Simulation" {columns} VALUES (:job, :user, '2026-03-01 10:00:00', 't', 'DIRECT',
                         'FILES', 'fluka', :state)"""),
                {"job": str(number), "user": user, "state": state},
            )
    schema.upgrade_tables(empty)
    with empty.reading() as connection:
        query = select(SimulationCountModel.user_id, SimulationCountModel.job_state, SimulationCountModel.number)
        found = connection.execute(query.order_by(SimulationCountModel.id)).all()
        assert connection.execute(select(func.count()).select_from(SimulationModel)).scalar_one() == len(states) + 1
    assert list(map(tuple, found)) == [(1, "COMPLETED", 3), (1, "FAILED", 1), (1, "PENDING", 2), (2, "FAILED", 1)]

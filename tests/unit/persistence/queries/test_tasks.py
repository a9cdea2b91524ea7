"""Queries about tasks: whose reports count, that progress only grows, and who gets which task."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from tests.support.storing import rows_of, submitted
from yaptide.domain.states import FINAL_STATES, TASK_STATES, EntityState
from yaptide.persistence.models import SimulationModel, TaskModel
from yaptide.persistence.queries import tasks
from yaptide.persistence.queries.tasks import Lease
from yaptide.services import lifecycle

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = BEGIN + timedelta(hours=1)
ME, OTHER = "host/place/me", "host/elsewhere/me"


@pytest.fixture
def job(backend, clock):
    """A simulation of three tasks with 100 primaries each, and another one of two."""
    _, job = submitted(backend, 3)
    submitted(backend, 2)
    return job


@pytest.fixture
def put(database, job):
    """Set columns of a task of the first simulation, or of all of them, or of the simulation."""

    def setting(task_id=None, **values):
        table = TaskModel.__table__
        these = table.c.simulation_id == job.simulation_id
        if task_id is not None:
            these &= table.c.task_id == task_id
        with database.writing() as connection:
            connection.execute(update(table).where(these).values(values))

    return setting


@pytest.fixture
def put_simulation(database, job):
    def setting(number=job.simulation_id, **values):
        table = SimulationModel.__table__
        with database.writing() as connection:
            connection.execute(update(table).where(table.c.id == number).values(values))

    return setting


@pytest.fixture
def ask(database):
    """Do something in a transaction."""

    def asking(query, *args, **kwargs):
        with database.writing() as connection:
            return query(connection, *args, **kwargs)

    return asking


def row(database, task_id=0):
    return rows_of(database, "Task")[task_id]


def key_of(job):
    return lifecycle.hash_update_key(job.update_key)


def report_by_key(ask, job, simulated=30, estimated=7, **changes):
    values = {"simulation": job.simulation_id, "task": 0, "key": key_of(job), "now": NOW}
    return ask(tasks.progress_by_key, **(values | {"simulated": simulated, "estimated": estimated} | changes))


def leased(job, owner=ME, task=0):
    return Lease(job.simulation_id, task, owner)


def test_new_tasks_wait_and_have_simulated_nothing(database, job):
    for number, task in enumerate(rows_of(database, "Task")[:3]):
        assert (task["task_id"], task["task_state"], task["platform"]) == (number, "PENDING", "DIRECT")
        assert (task["requested_primaries"], task["simulated_primaries"], task["attempts"]) == (100, 0, 0)
        assert task["seed"] > 0


def test_progress_with_the_key_is_that_of_a_running_task_that_nobody_of_ours_has(database, ask, job, put):
    put(task_state=EntityState.RUNNING)
    assert report_by_key(ask, job)
    task = row(database)
    assert (task["simulated_primaries"], task["estimated_time"]) == (30, 7)
    assert (task["last_update_time"], task["heartbeat_time"]) == (NOW, NOW)
    assert [row["simulated_primaries"] for row in rows_of(database, "Task")] == [30, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "why", ["another key", "no such task", "no such simulation", "it waits", "it has ended", "it is leased"]
)
def test_otherwise_it_changes_nothing(database, ask, job, put, why):
    states = {"it waits": EntityState.PENDING, "it has ended": EntityState.FAILED}
    put(task_state=states.get(why, EntityState.RUNNING), owner=ME if why == "it is leased" else None)
    changes = {"another key": {"key": "0" * 64}, "no such task": {"task": 9}, "no such simulation": {"simulation": 9}}
    before = rows_of(database, "Task")
    assert not report_by_key(ask, job, **changes.get(why, {}))
    assert rows_of(database, "Task") == before


@pytest.mark.parametrize("state", EntityState)
def test_nothing_is_reported_by_key_after_the_end_of_the_simulation(ask, job, put, put_simulation, state):
    put(task_state=EntityState.RUNNING)
    put_simulation(job_state=state)
    assert report_by_key(ask, job) is (state not in FINAL_STATES)


def test_the_key_of_another_simulation_does_not_fit(database, ask, job, put, put_simulation):
    put(task_state=EntityState.RUNNING)
    put_simulation(number=2, update_key_hash="f" * 64)
    assert not report_by_key(ask, job, key="f" * 64)


def test_the_owner_reports_and_nobody_else(database, ask, job, put):
    """Each half of the fence: the name alone, or the task alone, is not enough."""
    put(task_state=EntityState.RUNNING, owner=ME)
    before = rows_of(database, "Task")
    for lease in (leased(job, OTHER), leased(job, ""), leased(job, task=9), Lease(2, 0, ME)):
        assert not ask(tasks.progress_by_owner, lease, 30, 7, NOW)
    assert rows_of(database, "Task") == before
    assert ask(tasks.progress_by_owner, leased(job), 30, 7, NOW)
    assert [task["simulated_primaries"] for task in rows_of(database, "Task")] == [30, 0, 0, 0, 0]
    assert (row(database)["estimated_time"], row(database)["heartbeat_time"]) == (7, NOW)


@pytest.mark.parametrize("state", sorted({*FINAL_STATES, EntityState.PENDING}))
def test_a_task_that_does_not_run_is_nobodys_to_report(ask, job, put, state):
    put(task_state=state, owner=ME)
    assert not ask(tasks.progress_by_owner, leased(job), 30, 7, NOW)
    assert not ask(tasks.progress_by_owner, leased(job), 30, 7, NOW, {"key": key_of(job)})


def test_an_owner_elsewhere_needs_the_lease_and_the_key(database, ask, job, put, put_simulation):
    put(task_state=EntityState.RUNNING, owner=ME)
    before = rows_of(database, "Task")
    assert not ask(tasks.progress_by_owner, leased(job), 30, 7, NOW, {"key": "0" * 64}), "the lease alone"
    assert not ask(tasks.progress_by_owner, leased(job, OTHER), 30, 7, NOW, {"key": key_of(job)}), "the key alone"
    assert rows_of(database, "Task") == before
    assert ask(tasks.progress_by_owner, leased(job), 30, 7, NOW, {"key": key_of(job)})
    put_simulation(job_state=EntityState.CANCELED)
    assert not ask(tasks.progress_by_owner, leased(job), 40, 7, NOW, {"key": key_of(job)})


@pytest.mark.parametrize(
    ("before", "message", "after"),
    [(0, 30, 30), (30, 29, 30), (30, 30, 30), (30, 31, 31), (30, 100, 100), (30, 101, 100)],
)
def test_progress_grows_up_to_what_was_asked_for(database, ask, job, put, before, message, after):
    put(task_state=EntityState.RUNNING, simulated_primaries=before)
    report_by_key(ask, job, message)
    assert row(database)["simulated_primaries"] == after
    put(0, simulated_primaries=before)
    ask(tasks.set_values, job.simulation_id, 0, {}, simulated=message)
    assert row(database)["simulated_primaries"] == after
    put(0, simulated_primaries=before)
    ask(tasks.progress_of_many, job.simulation_id, [(0, message, None)], NOW)
    assert row(database)["simulated_primaries"] == after


def test_a_report_without_the_time_left_keeps_the_one_before(database, ask, job, put):
    put(task_state=EntityState.RUNNING, estimated_time=50)
    report_by_key(ask, job, estimated=None)
    assert row(database)["estimated_time"] == 50


def test_progress_of_many_is_that_of_running_tasks_of_one_simulation(database, ask, job, put):
    put(task_state=EntityState.RUNNING)
    put(2, task_state=EntityState.PENDING)
    ask(tasks.progress_of_many, job.simulation_id, [(0, 10, 1), (1, 20, None), (2, 30, 3)], NOW)
    ask(tasks.progress_of_many, job.simulation_id, [], NOW)
    assert [task["simulated_primaries"] for task in rows_of(database, "Task")] == [10, 20, 0, 0, 0]
    assert [task["estimated_time"] for task in rows_of(database, "Task")] == [1, None, None, None, None]


def test_fewer_primaries_than_were_simulated_are_not_asked_for(database, ask, job, put):
    for requested, after in ((60, (60, 40)), (40, (40, 40)), (39, (40, 40)), (41, (41, 40))):
        put(0, requested_primaries=100, simulated_primaries=40)
        ask(tasks.set_values, job.simulation_id, 0, {}, requested=requested)
        assert (row(database)["requested_primaries"], row(database)["simulated_primaries"]) == after
    ask(tasks.set_values, job.simulation_id, 0, {}, requested=200, simulated=150)
    assert (row(database)["requested_primaries"], row(database)["simulated_primaries"]) == (200, 150)


def test_other_columns_are_set_of_one_task(database, ask, job):
    ask(tasks.set_values, job.simulation_id, 1, {"estimated_time": 5})
    ask(tasks.set_celery_id, job.simulation_id, 1, "a name")
    assert [task["estimated_time"] for task in rows_of(database, "Task")] == [None, 5, None, None, None]
    assert [task["celery_id"] for task in rows_of(database, "CeleryTask")] == [None, "a name", None, None, None]


def test_a_heartbeat_is_that_of_the_leases_that_are_named(database, ask, job, put):
    put(task_state=EntityState.RUNNING, owner=ME, heartbeat_time=BEGIN)
    put(2, task_state=EntityState.PENDING)
    ask(tasks.beat_leases, [leased(job), leased(job, OTHER, 1), leased(job, task=2)], NOW)
    ask(tasks.beat_leases, [], NOW)
    assert [task["heartbeat_time"] for task in rows_of(database, "Task")[:3]] == [NOW, BEGIN, BEGIN]


def test_what_the_user_wants_to_know_comes_by_number(ask, job, put):
    put(1, task_state=EntityState.RUNNING, simulated_primaries=20, estimated_time=9, start_time=BEGIN)
    result = ask(tasks.list_status, job.simulation_id)
    assert [task.task_id for task in result] == [0, 1, 2]
    running = result[1]
    assert (running.task_state, running.requested_primaries, running.simulated_primaries) == ("RUNNING", 100, 20)
    assert (running.estimated_time, running.start_time, running.end_time) == (9, BEGIN, None)


def test_what_is_only_written_down_is_the_same_without_types(ask, job, put):
    put(1, task_state=EntityState.RUNNING, start_time=BEGIN)
    polled = ask(tasks.list_polled, job.simulation_id)[1]
    assert polled._fields == ask(tasks.list_status, job.simulation_id)[1]._fields
    assert type(polled.task_state) is str
    assert polled.task_state == "RUNNING"
    assert polled.start_time.replace(tzinfo=UTC) == BEGIN
    assert polled.end_time is None


def test_one_task_with_its_owner(ask, job, put):
    put(1, owner=ME)
    assert [ask(tasks.find_task, job.simulation_id, number).owner for number in range(3)] == [None, ME, None]
    assert ask(tasks.find_task, job.simulation_id, 3) is None
    assert ask(tasks.find_task, 9, 0) is None


def test_states_of_a_simulations_tasks(ask, job, put):
    put(1, task_state=EntityState.RUNNING, owner=ME)
    put(2, task_state=EntityState.COMPLETED, simulated_primaries=70)
    each = {0: "PENDING", 1: "RUNNING", 2: "COMPLETED"}
    assert ask(tasks.state_of_each, job.simulation_id) == each
    assert ask(tasks.states_and_leases, job.simulation_id) == (each, {1})
    assert ask(tasks.count_states, job.simulation_id) == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1}
    assert ask(tasks.count_states, 2) == {"PENDING": 2}
    put(0, task_state=EntityState.COMPLETED, simulated_primaries=80)
    assert ask(tasks.list_completed, job.simulation_id) == [(0, 80), (2, 70)]


def test_primaries_are_summed_over_the_tasks_of_each_simulation(ask, database, job, put):
    put(1, simulated_primaries=30)
    put(2, simulated_primaries=70)
    first, second = (row["job_id"] for row in rows_of(database, "Simulation"))
    assert sorted(map(tuple, ask(tasks.sum_primaries, [first, second, "unknown"]))) == sorted(
        [(first, 100, 300), (second, 0, 200)]
    )
    assert [row.job_id for row in ask(tasks.sum_primaries, [second])] == [second]


def test_a_claimed_task_and_who_holds_it(ask, job, put):
    put(1, task_state=EntityState.RUNNING, owner=ME, start_time=BEGIN, attempts=2, seed=5)
    assert tuple(ask(tasks.find_held, job.simulation_id, 1)) == ("RUNNING", ME, BEGIN)
    assert ask(tasks.find_held, job.simulation_id, 9) is None
    assert tuple(ask(tasks.find_claimed, job.simulation_id, 1)) == (100, 5, 2)


def test_a_place_is_what_stands_before_the_last_slash():
    assert tasks.place_of("host/spool/executor-1") == "host/spool/"
    assert tasks.place_of("host/") == "host/"


def test_a_simulation_is_run_at_one_place(ask, job, put):
    """Another place lacks the results that its tasks left in the staging area."""

    def elsewhere(owner):
        return ask(tasks.is_run_elsewhere, job.simulation_id, owner)

    assert not elsewhere(ME)
    put(2, owner="host/place/another")
    assert not elsewhere(ME)
    assert elsewhere("host/elsewhere/me")
    assert elsewhere("host/place2/me")
    assert elsewhere("host/plac_/me"), "a name is no pattern"
    assert not ask(tasks.is_run_elsewhere, 2, "host/elsewhere/me"), "that is another simulation"


def next_for(ask, owner=ME, sim_types=("shieldhit",)):
    result = ask(tasks.next_pending, owner, sim_types)
    return None if result is None else tuple(result)


def test_the_task_that_has_waited_longest_is_next(ask, job, put):
    assert next_for(ask) == (1, 0)
    assert next_for(ask, sim_types=("fluka",)) is None
    assert next_for(ask, sim_types=()) is None
    assert next_for(ask, sim_types=("fluka", "shieldhit")) == (1, 0)
    for state in TASK_STATES - {EntityState.PENDING}:
        put(0, task_state=state)
        assert next_for(ask) == (1, 1)


def test_no_task_is_next_of_what_others_run(ask, job, put, put_simulation):
    """Nor of what waits on a cluster, is a project as it was drawn, or does not wait for tasks."""
    put(2, owner=OTHER)
    assert next_for(ask) == (2, 0)
    put(2, owner="host/place/another")
    assert next_for(ask) == (1, 0)
    put(platform="BATCH")
    assert next_for(ask) == (2, 0)
    put(platform="DIRECT")
    put_simulation(input_type="EDITOR")
    assert next_for(ask) == (1, 0), "a project that was converted: its tasks have seeds"
    put(seed=None)
    assert next_for(ask) == (2, 0)
    put_simulation(input_type="FILES")
    for state in EntityState:
        put_simulation(job_state=state)
        assert next_for(ask) == ((1, 0) if state in ("PENDING", "RUNNING") else (2, 0))


def silent(ask, dead_owner=None, since=NOW):
    return [tuple(task) for task in ask(tasks.list_stalled, dead_owner, since)]


def test_silent_is_who_was_not_heard_of_since(ask, job, put):
    put(0, task_state=EntityState.RUNNING, owner=ME, heartbeat_time=NOW - timedelta(seconds=1), attempts=3)
    put(1, task_state=EntityState.RUNNING, owner=ME, heartbeat_time=NOW)
    put(2, task_state=EntityState.RUNNING, owner=None, heartbeat_time=BEGIN)
    assert silent(ask) == [(1, 0, 3, ME)]
    for changes in ({"task_state": EntityState.PENDING}, {"platform": "BATCH"}):
        put(0, **changes)
        assert silent(ask) == []
        put(0, task_state=EntityState.RUNNING, platform="DIRECT")
    assert silent(ask, since=BEGIN) == []


def test_of_a_dead_owner_all_tasks_are_silent(ask, job, put):
    put(task_state=EntityState.RUNNING, heartbeat_time=NOW + timedelta(hours=1), owner="host/one%/1")
    put(2, owner="host/one/1")
    assert [task[1] for task in silent(ask, "host/one%/")] == [0, 1], "a name is no pattern"
    assert silent(ask, "host/other/") == []


def test_attempts_are_counted_by_the_database(database, put):
    """A task that is given back has lost none."""
    for change, after in ((tasks.ONE_MORE_ATTEMPT, 4), (tasks.ONE_ATTEMPT_LESS, 2)):
        put(0, attempts=3)
        put(0, attempts=change)
        assert [task["attempts"] for task in rows_of(database, "Task")[:2]] == [after, 0]


def test_a_statement_is_made_once_for_a_kind_of_database():
    """To make one takes longer than to execute it."""
    for make in (tasks._add, tasks._progress_of_many):
        assert make("sqlite") is make("sqlite")
        assert make("sqlite") is not make("postgresql")


def test_a_claim_is_a_lease_of_its_own():
    claim = tasks.Claim(1, 2, ME, "a job", "shieldhit", 100, 5, 1)
    assert claim != replace(claim, attempt=2)
    assert (claim.job_id, claim.primaries, claim.seed, claim.attempt) == ("a job", 100, 5, 1)


def test_leases_are_equal_only_if_all_of_them_is():
    lease = Lease(1, 2, ME)
    assert lease == Lease(1, 2, ME)
    assert len({lease, replace(lease, owner=OTHER), replace(lease, task_id=3), replace(lease, simulation_id=2)}) == 4
    with pytest.raises(AttributeError):
        lease.owner = OTHER

"""Moves: guarded by the tables of transitions, and each leaves a row in the history."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from tests.support.storing import rows_of, submitted
from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_STATES, TASK_TRANSITIONS, EntityState
from yaptide.persistence.models import SimulationModel, TaskModel
from yaptide.persistence.queries import transitions
from yaptide.persistence.queries.transitions import Audit

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
CAUSE = Audit("somebody", BEGIN + timedelta(hours=1), "because")


@pytest.fixture
def job(backend, clock):
    """A simulation of three tasks with 100 primaries each, and another one that stays unchanged."""
    _, job = submitted(backend, 3)
    submitted(backend, 2)
    return job


def put(database, model, state, **values):
    """Have everything in a table be in a state, as no move would."""
    column = "task_state" if model is TaskModel else "job_state"
    with database.writing() as connection:
        connection.execute(update(model.__table__).values({column: state, **values}))


def move(database, job, to, cause=CAUSE, values=None):
    with database.writing() as connection:
        return transitions.move_simulation(connection, job.simulation_id, to, cause, values)


def move_tasks(database, job, to, values=None, cause=CAUSE, **only):
    with database.writing() as connection:
        return transitions.move_tasks(connection, job.simulation_id, to, cause, values, **only)


def history_since(database, length):
    """The rows of the history that came after the first ones: whose, from, to, time, who, why."""
    names = ("simulation_id", "task_id", "from_state", "to_state", "time", "actor", "reason")
    return [tuple(row[name] for name in names) for row in rows_of(database, "StateHistory")[length:]]


def simulation(database, index=0):
    return rows_of(database, "Simulation")[index]


def tasks(database):
    return rows_of(database, "Task")


def test_a_simulation_moves_as_the_table_says_and_not_otherwise(database, job):
    for before, to in itertools.product(EntityState, EntityState):
        put(database, SimulationModel, before)
        was, length = rows_of(database, "Simulation"), len(rows_of(database, "StateHistory"))
        allowed = to in SIMULATION_TRANSITIONS[before]
        assert move(database, job, to) is allowed
        simulation, untouched = rows_of(database, "Simulation")
        assert simulation["job_state"] is (to if allowed else before)
        row = (job.simulation_id, None, before, to, CAUSE.time, "somebody", "because")
        assert history_since(database, length) == ([row] if allowed else [])
        assert untouched == was[1]
        assert allowed or simulation == was[0]


def test_tasks_move_as_the_table_says_and_not_otherwise(database, job):
    for before, to in itertools.product(sorted(TASK_STATES), EntityState):
        put(database, TaskModel, before)
        was, length = tasks(database), len(rows_of(database, "StateHistory"))
        allowed = to in TASK_TRANSITIONS[before]
        assert move_tasks(database, job, to) == (3 if allowed else 0)
        assert [task["task_state"] for task in tasks(database)[:3]] == [to if allowed else before] * 3
        rows = [(job.simulation_id, n, before, to, CAUSE.time, "somebody", "because") for n in range(3)]
        assert history_since(database, length) == (rows if allowed else [])
        assert tasks(database)[3:] == was[3:], "those of another simulation stay"
        assert allowed or tasks(database) == was


@pytest.mark.parametrize("to", EntityState)
def test_only_the_end_of_a_simulation_has_a_time_and_gives_it_up(database, job, to):
    put(database, SimulationModel, EntityState.MERGING_RUNNING, owner="executor")
    if move(database, job, to):
        ended = to in FINAL_STATES
        assert simulation(database)["end_time"] == (CAUSE.time if ended else None)
        assert simulation(database)["owner"] == (None if ended else "executor")


def test_values_are_set_with_the_move_or_not_at_all(database, job):
    assert move(database, job, EntityState.RUNNING, values={"title": "another"})
    assert simulation(database)["title"] == "another"
    assert not move(database, job, EntityState.PENDING, values={"title": "a third"})
    assert simulation(database)["title"] == "another"


@pytest.mark.parametrize("seconds", [-7200, -1, 0, 1, 7200])
def test_nothing_ends_before_it_begins_whatever_the_clocks_say(database, job, seconds):
    """Of two servers, one may be late: the database would refuse the row, and the simulation never end."""
    cause = Audit("a late clock", BEGIN + timedelta(seconds=seconds))
    put(database, TaskModel, EntityState.RUNNING, start_time=BEGIN)
    assert move_tasks(database, job, EntityState.COMPLETED, cause=cause) == 3
    assert move(database, job, EntityState.COMPLETED, cause)
    expected = BEGIN + timedelta(seconds=max(seconds, 0))
    assert {task["end_time"] for task in tasks(database)[:3]} == {expected}
    assert simulation(database)["end_time"] == expected


def test_a_task_that_was_never_begun_ends_all_the_same(database, job):
    assert move_tasks(database, job, EntityState.CANCELED) == 3
    assert {(task["start_time"], task["end_time"]) for task in tasks(database)[:3]} == {(None, CAUSE.time)}


@pytest.mark.parametrize(
    ("to", "begins"), [("RUNNING", True), ("COMPLETED", True), ("FAILED", False), ("CANCELED", False)]
)
def test_a_task_begins_when_it_is_first_seen_at_work(database, job, to, begins):
    move_tasks(database, job, EntityState(to))
    assert {task["start_time"] for task in tasks(database)[:3]} == {CAUSE.time if begins else None}
    assert {task["last_update_time"] for task in tasks(database)[:3]} == {CAUSE.time}


def test_a_task_that_runs_again_keeps_its_first_beginning(database, job):
    for hours, state in enumerate(
        (EntityState.RUNNING, EntityState.PENDING, EntityState.RUNNING, EntityState.COMPLETED)
    ):
        move_tasks(database, job, state, cause=Audit("x", BEGIN + timedelta(hours=hours)))
    assert {task["start_time"] for task in tasks(database)[:3]} == {BEGIN}
    assert {task["end_time"] for task in tasks(database)[:3]} == {BEGIN + timedelta(hours=3)}


@pytest.mark.parametrize("to", ["RUNNING", "PENDING", "COMPLETED", "FAILED", "CANCELED"])
def test_the_time_left_is_forgotten_unless_the_task_runs(database, job, to):
    before = EntityState.PENDING if to == "RUNNING" else EntityState.RUNNING
    put(database, TaskModel, before, estimated_time=60)
    move_tasks(database, job, EntityState(to))
    assert {task["estimated_time"] for task in tasks(database)[:3]} == {60 if to == "RUNNING" else None}


def test_only_a_completed_task_has_simulated_what_was_asked_for(database, job):
    move_tasks(database, job, EntityState.COMPLETED, task_id=0)
    move_tasks(database, job, EntityState.FAILED, task_id=1)
    assert [task["simulated_primaries"] for task in tasks(database)[:3]] == [100, 0, 0]


def test_who_knows_better_says_what_a_completed_task_has_simulated(database, job):
    put(database, TaskModel, EntityState.RUNNING, simulated_primaries=40)
    move_tasks(database, job, EntityState.COMPLETED, {"simulated_primaries": 90}, task_id=0)
    move_tasks(database, job, EntityState.COMPLETED, transitions.PRIMARIES_AS_REPORTED, task_id=1)
    assert [task["simulated_primaries"] for task in tasks(database)[:2]] == [90, 40]


def test_only_the_tasks_that_are_meant_move(database, job):
    put(database, TaskModel, EntityState.RUNNING, owner="me")
    assert move_tasks(database, job, EntityState.PENDING, task_id=1, owner="somebody else") == 0
    assert move_tasks(database, job, EntityState.PENDING, {"owner": None}, task_id=1, owner="me") == 1
    assert [task["task_state"] for task in tasks(database)[:3]] == ["RUNNING", "PENDING", "RUNNING"]
    assert [task["owner"] for task in tasks(database)[:3]] == ["me", None, "me"]


def test_a_simulation_is_found_by_its_number_and_by_its_name(backend, database, job):
    with database.writing() as connection:
        for result in (
            transitions.find_simulation(connection, job.simulation_id),
            transitions.lock_simulation(connection, job.simulation_id),
            transitions.lock_job(connection, job.job_id),
        ):
            assert (result.id, result.job_id, result.job_state) == (job.simulation_id, job.job_id, "PENDING")
            assert (result.platform, result.sim_type, result.input_type) == ("DIRECT", "shieldhit", "FILES")
            assert (result.start_time, result.end_time, result.owner) == (BEGIN, None, None)
        assert transitions.find_simulation(connection, 999) is None
        assert transitions.lock_simulation(connection, 999) is None
        assert transitions.lock_job(connection, "no such job") is None


def test_the_history_of_a_new_simulation_begins_with_it_and_its_tasks(database, job):
    """The reason is why the simulation waits, and no task's."""
    with database.writing() as connection:
        transitions.begin_history(connection, job.simulation_id, EntityState.PENDING, CAUSE)
    made = (None, EntityState.PENDING, CAUSE.time, "somebody")
    assert history_since(database, 7) == [
        (job.simulation_id, None, *made, "because"),
        *((job.simulation_id, task, *made, None) for task in range(3)),
    ]


def test_a_cause_stays_as_it_is():
    """Several moves have the same."""
    with pytest.raises(AttributeError):
        CAUSE.reason = "another"


def test_a_remark_changes_no_state(database, job):
    before, length = simulation(database), len(rows_of(database, "StateHistory"))
    with database.writing() as connection:
        transitions.add_audit_note(connection, job.simulation_id, CAUSE)
    row = (job.simulation_id, None, "PENDING", "PENDING", CAUSE.time, "somebody", "because")
    assert history_since(database, length) == [row]
    assert simulation(database) == before

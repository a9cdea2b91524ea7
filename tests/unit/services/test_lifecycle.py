"""How the states of a simulation and of its tasks go together, and who may report."""

import base64
from dataclasses import replace

import pytest

from tests.support.storing import rows_of
from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.queries import transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle

S = EntityState


@pytest.fixture
def work(database, job, clock):
    """Do something with the locked simulation."""

    def do(operation, *args, **kwargs):
        with database.writing() as connection:
            simulation = transitions.lock_simulation(connection, job.simulation_id)
            return operation(connection, simulation, *args, **kwargs)

    return do


@pytest.fixture
def run(work, clock):
    """Move a task, and the simulation where its tasks ask for."""

    def move(task, to, reason=None):
        def moved(connection, simulation):
            cause = Audit("somebody", clock(), reason)
            assert transitions.move_tasks(connection, simulation.id, to, cause, task_id=task) == 1
            return lifecycle.settle_simulation(connection, simulation, cause)

        return work(moved)

    return move


def states(database):
    simulation = rows_of(database, "Simulation")[0]
    return simulation["job_state"], [task["task_state"] for task in rows_of(database, "Task")]


def last_reason(database):
    return [row for row in rows_of(database, "StateHistory") if row["task_id"] is None][-1]["reason"]


def test_a_key_has_32_bytes_that_depend_on_the_simulation_and_on_the_signing_key(backend):
    key = lifecycle.update_key(backend, "a job")
    assert len(base64.urlsafe_b64decode(key + "=")) == 32
    assert "=" not in key
    assert key == lifecycle.update_key(backend, "a job")
    others = (
        lifecycle.update_key(backend, "another"),
        lifecycle.update_key(replace(backend, signing_key=b"x"), "a job"),
    )
    assert key not in others


def test_a_worker_with_the_key_may_report(backend, work, job):
    assert work(lambda _, simulation: lifecycle.check_update_key(backend, simulation, job.update_key)).id == 1


@pytest.mark.parametrize("key", ["", "x", "\ud800", "None"])
def test_nobody_else_may(backend, work, key):
    with pytest.raises(InvalidInput, match=r"^Invalid update key$"):
        work(lambda _, simulation: lifecycle.check_update_key(backend, simulation, key))


def test_neither_a_missing_simulation_nor_one_without_a_key_has_one_that_fits(backend, work, job):
    without = work(lambda _, simulation: simulation._replace(update_key_hash=None))
    for key in ("", job.update_key, lifecycle.hash_update_key("")):
        for simulation in (None, without):
            with pytest.raises(InvalidInput, match=r"^Invalid update key$"):
                lifecycle.check_update_key(backend, simulation, key)


def test_long_after_the_end_the_key_is_worth_nothing(backend, work, job, clock):
    work(lambda connection, simulation: lifecycle.end_simulation(connection, simulation, S.FAILED, Audit("x", clock())))

    def check():
        return work(lambda _, simulation: lifecycle.check_update_key(backend, simulation, job.update_key))

    clock.later(days=30)
    assert check().job_state == "FAILED", "an answer may still be on its way"
    clock.later(seconds=1)
    with pytest.raises(InvalidInput, match="Invalid update key"):
        check()


def test_while_a_simulation_goes_on_its_key_is_good_however_long(backend, work, job, clock):
    clock.later(days=1000)
    for state in set(S) - FINAL_STATES:
        open_one = work(lambda _, simulation, state=state: simulation._replace(job_state=state, end_time=clock.time))
        clock.later(days=31)
        assert lifecycle.check_update_key(backend, open_one, job.update_key)


def test_the_known_key_is_sent_again_and_replaced_only_after_another_signing_key(backend, database, work, job):
    def known(with_key):
        return work(lambda connection, simulation: lifecycle.known_update_key(with_key, connection, simulation))

    before = rows_of(database, "Simulation")
    assert known(backend) == job.update_key
    assert rows_of(database, "Simulation") == before
    changed = replace(backend, signing_key=b"another key of 32 bytes or more..")
    renewed = known(changed)
    assert renewed != job.update_key
    work(lambda _, simulation: lifecycle.check_update_key(changed, simulation, renewed))
    with pytest.raises(InvalidInput):
        work(lambda _, simulation: lifecycle.check_update_key(changed, simulation, job.update_key))


def test_a_simulation_goes_where_its_tasks_ask_for(database, run):
    assert run(0, S.RUNNING) == "RUNNING"
    assert states(database) == ("RUNNING", ["RUNNING", "PENDING"])
    assert run(0, S.COMPLETED) == "RUNNING"
    assert run(1, S.FAILED, "the beam missed") == "MERGING_QUEUED", "what was simulated is merged"
    assert states(database) == ("MERGING_QUEUED", ["COMPLETED", "FAILED"])
    assert last_reason(database) is None


def test_it_fails_when_all_tasks_have_and_says_why(database, run):
    run(0, S.FAILED, "the beam missed")
    assert run(1, S.FAILED, "the beam hit") == "FAILED"
    assert last_reason(database) == "2 of 2 tasks failed: the beam missed"


def test_without_a_reason_of_a_task_there_is_none(database, run):
    run(0, S.CANCELED)
    run(1, S.FAILED)
    assert last_reason(database) == "1 of 2 tasks failed"


def test_what_lacks_canceled_tasks_is_no_success_and_says_so(database, work, run, clock):
    """A cluster may cancel some of them; the results of the others arrive all the same."""
    run(0, S.CANCELED, "its reservation ended")
    assert work(lifecycle.end_simulation, S.COMPLETED, Audit("x", clock())) == "FAILED"
    assert last_reason(database) == "1 of 2 tasks were canceled: its reservation ended"


def test_a_failure_that_is_none_of_its_tasks_says_so(database, work, run, clock):
    for task in range(2):
        run(task, S.COMPLETED)
    work(lifecycle.end_simulation, S.FAILED, Audit("x", clock()))
    assert last_reason(database) == "0 of 2 tasks failed"


def test_canceled_tasks_leave_no_failure(database, run):
    run(0, S.CANCELED, "a user said so")
    assert run(1, S.CANCELED) == "CANCELED"
    assert last_reason(database) is None


def test_no_move_is_noted_where_there_is_none(database, run):
    run(0, S.RUNNING)
    before = len(rows_of(database, "StateHistory"))
    run(1, S.RUNNING)
    assert len(rows_of(database, "StateHistory")) == before + 1, "that of the task"


@pytest.mark.parametrize("state", [S.MERGING_QUEUED, S.MERGING_RUNNING, *sorted(FINAL_STATES)])
def test_once_it_merges_its_tasks_say_nothing_any_more(database, work, clock, state):
    def settled(connection, simulation):
        transitions.move_simulation(connection, simulation.id, S.MERGING_QUEUED, Audit("x", clock()))
        if state is not S.MERGING_QUEUED:
            transitions.move_simulation(connection, simulation.id, state, Audit("x", clock()))
        return lifecycle.settle_simulation(connection, simulation._replace(job_state=state), Audit("x", clock()))

    assert work(settled) is state
    assert states(database)[0] == state


def test_settling_tells_the_state_that_is_when_another_may_not_follow(work, run, clock):
    """Tasks that wait again do not bring a running simulation back."""
    run(0, S.RUNNING)

    def settled(connection, simulation):
        transitions.move_tasks(connection, simulation.id, S.PENDING, Audit("x", clock()), task_id=0)
        return lifecycle.settle_simulation(connection, simulation, Audit("x", clock()))

    assert work(settled) == "RUNNING"


@pytest.mark.parametrize("to", sorted(FINAL_STATES))
def test_with_a_simulation_its_tasks_end(database, work, clock, to):
    ended = work(lifecycle.end_simulation, to, Audit("x", clock()), {"title": "another"})
    assert ended is to
    assert states(database) == (to, [to, to])
    assert rows_of(database, "Simulation")[0]["title"] == "another"


def test_it_is_no_success_if_a_task_has_failed(database, work, run, clock):
    run(0, S.FAILED, "the beam missed")
    assert work(lifecycle.end_simulation, S.COMPLETED, Audit("x", clock())) == "FAILED"
    assert states(database) == ("FAILED", ["FAILED", "COMPLETED"])
    assert last_reason(database) == "1 of 2 tasks failed: the beam missed"


def test_the_reason_that_is_given_counts(database, work, clock):
    work(lifecycle.end_simulation, S.FAILED, Audit("x", clock(), "no room"))
    assert last_reason(database) == "no room"


def test_an_end_that_is_no_failure_needs_no_reason(database, work, run, clock):
    run(0, S.FAILED, "the beam missed")
    work(lifecycle.end_simulation, S.CANCELED, Audit("x", clock()))
    assert last_reason(database) is None


@pytest.mark.parametrize("first", sorted(FINAL_STATES))
@pytest.mark.parametrize("second", sorted(FINAL_STATES))
def test_what_has_ended_stays_as_it_is(database, work, clock, first, second):
    work(lifecycle.end_simulation, first, Audit("x", clock()))
    before = [rows_of(database, table) for table in ("Simulation", "Task", "StateHistory")]
    clock.later(hours=1)
    assert work(lifecycle.end_simulation, second, Audit("y", clock()), {"title": "another"}) is first
    assert [rows_of(database, table) for table in ("Simulation", "Task", "StateHistory")] == before


@pytest.mark.parametrize("state", EntityState)
def test_only_what_nobody_runs_is_removed(database, work, state):
    gone = state not in {S.UNKNOWN, S.PENDING, S.RUNNING}
    removed = work(lambda connection, job: lifecycle.remove_simulation(connection, job._replace(job_state=state)))
    assert removed is gone
    assert len(rows_of(database, "Simulation")) == (0 if gone else 1)


def test_why_a_simulation_failed_does_not_take_its_own_reason_for_a_tasks(database, work, run, clock):
    work(lifecycle.end_simulation, S.FAILED, Audit("x", clock(), "no room"))
    assert work(lambda connection, job: lifecycle.failure_reason(connection, job.id)) == "2 of 2 tasks failed: no room"

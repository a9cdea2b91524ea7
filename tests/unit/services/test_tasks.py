"""Tasks: whose word on them is taken, and how an executor claims, follows and ends them."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from tests.support.payloads import shieldhit_files
from tests.support.storing import output, rows_of
from yaptide.domain.errors import Contended, InvalidInput, NotFound
from yaptide.domain.splitting import task_seeds
from yaptide.domain.states import FINAL_STATES, TASK_STATES, EntityState
from yaptide.persistence.models import CeleryTaskModel, SimulationModel, TaskModel
from yaptide.persistence.queries import transitions
from yaptide.services import lifecycle, logfiles, simulations, tasks
from yaptide.services.tasks import Update

S = EntityState
KNOWN = ["shieldhit"]
ME, NEIGHBOUR, STRANGER = "host/place/1", "host/place/2", "host/elsewhere/1"


@pytest.fixture
def report(backend, job):
    def reporting(task=0, key=job.update_key, **values):
        return tasks.report_task(backend, job.simulation_id, task, key, Update(**values))

    return reporting


@pytest.fixture
def report_many(backend, job):
    def reporting(updates, key=job.update_key):
        updates = {number: Update(**values) for number, values in updates.items()}
        return tasks.report_tasks(backend, job.simulation_id, key, updates)

    return reporting


@pytest.fixture
def claim(backend, job):
    """Claim the next task, as one executor."""
    return lambda owner=ME: tasks.claim_task(backend, owner, KNOWN)


@pytest.fixture
def put(database):
    """Set columns of all rows of a table."""

    def setting(model, **values):
        with database.writing() as connection:
            connection.execute(update(model.__table__).values(values))

    return setting


def row(database, task=0):
    return rows_of(database, "Task")[task]


def everything(database):
    return [rows_of(database, table) for table in ("Simulation", "Task", "CeleryTask", "StateHistory", "Logfiles")]


def states(database):
    return [rows_of(database, "Simulation")[0]["job_state"], *(t["task_state"] for t in rows_of(database, "Task"))]


def last_change(database):
    last = rows_of(database, "StateHistory")[-1]
    return last["task_id"], last["from_state"], last["to_state"], last["actor"], last["reason"]


@pytest.fixture
def giving_way(monkeypatch):
    """Have the next lock on a simulation be one for which the transaction has to give way to another."""

    def arrange():
        lock, tries = transitions.lock_simulation, iter([Contended("a deadlock")])

        def give_way_once(*args):
            for error in tries:
                raise error
            return lock(*args)

        monkeypatch.setattr(transitions, "lock_simulation", give_way_once)

    return arrange


# What workers report


@pytest.mark.parametrize(
    ("values", "is_progress"),
    [
        ({"simulated_primaries": 5}, True),
        ({"simulated_primaries": 0}, True),
        ({"simulated_primaries": 5, "estimated_time": 7, "task_state": S.RUNNING}, True),
        ({}, False),
        ({"estimated_time": 7}, False),
        ({"task_state": S.RUNNING}, False),
        ({"simulated_primaries": 5, "task_state": S.COMPLETED}, False),
        ({"simulated_primaries": 5, "requested_primaries": 10}, False),
        ({"simulated_primaries": 5, "celery_id": "x"}, False),
    ],
)
def test_progress_is_a_report_of_nothing_else(values, is_progress):
    assert Update(**values).is_progress() is is_progress


def test_a_report_stays_as_it_came():
    with pytest.raises(AttributeError):
        Update().task_state = S.FAILED


@pytest.mark.parametrize("name", ["start_time", "end_time"])
def test_a_report_of_times_is_more_than_progress(name, clock):
    assert not Update(simulated_primaries=5, **{name: clock()}).is_progress()


def test_a_worker_begins_goes_on_and_completes(database, report, clock):
    began = clock.later(minutes=1)
    assert report(task_state=S.RUNNING, start_time=began, celery_id="message") is S.RUNNING
    assert (row(database)["start_time"], rows_of(database, "CeleryTask")[0]["celery_id"]) == (began, "message")
    heard = clock.later(minutes=1)
    assert report(simulated_primaries=40, estimated_time=9) is S.RUNNING
    task = row(database)
    assert (task["simulated_primaries"], task["estimated_time"], task["last_update_time"]) == (40, 9, heard)
    ended = clock.later(minutes=1)
    assert report(task_state=S.COMPLETED, end_time=ended) is S.COMPLETED
    task = row(database)
    assert (task["simulated_primaries"], task["estimated_time"], task["end_time"]) == (100, None, ended)
    assert states(database) == ["RUNNING", "COMPLETED", "PENDING"]


def test_the_last_report_has_the_simulation_merged(database, report):
    report(task_state=S.COMPLETED)
    report(1, task_state=S.COMPLETED)
    assert states(database)[0] == "MERGING_QUEUED"
    assert last_change(database) == (None, "RUNNING", "MERGING_QUEUED", "worker", None)


def test_progress_before_the_task_is_known_to_run_is_kept(database, report):
    """The report that it runs may be late."""
    assert report(simulated_primaries=40, estimated_time=9) is S.PENDING
    assert (row(database)["simulated_primaries"], row(database)["estimated_time"]) == (40, 9)
    assert report(task_state=S.RUNNING, simulated_primaries=50) is S.RUNNING
    assert row(database)["simulated_primaries"] == 50


def test_requested_primaries_change_by_report(database, report):
    report(requested_primaries=60, simulated_primaries=50)
    assert (row(database)["requested_primaries"], row(database)["simulated_primaries"]) == (60, 50)


@pytest.mark.parametrize("end", sorted(FINAL_STATES))
def test_nothing_is_taken_after_the_end(database, report, clock, end):
    assert report(task_state=end) is end
    before = everything(database)
    clock.later(minutes=1)
    for state in (S.RUNNING, *sorted(FINAL_STATES)):
        assert report(task_state=state, simulated_primaries=7, estimated_time=1, celery_id="late") is end
    assert report(simulated_primaries=50) is end
    assert everything(database) == before


def test_nothing_is_taken_after_the_end_of_the_simulation(backend, database, report, put, clock):
    """Where a report and a cancellation meet, the task may still be shown as running."""
    report(task_state=S.RUNNING)
    put(SimulationModel, job_state=S.CANCELED, end_time=clock())
    before = everything(database)
    clock.later(minutes=1)
    assert report(simulated_primaries=50) is S.RUNNING
    assert report(task_state=S.COMPLETED) is S.RUNNING
    assert everything(database) == before


@pytest.mark.parametrize("state", [S.UNKNOWN, S.PENDING])
def test_nothing_steps_back(database, report, state):
    report(task_state=S.RUNNING)
    assert report(task_state=state) is S.RUNNING
    assert states(database) == ["RUNNING", "RUNNING", "PENDING"]


def test_running_twice_is_one_change(database, report):
    report(task_state=S.RUNNING)
    length = len(rows_of(database, "StateHistory"))
    assert report(task_state=S.RUNNING, celery_id="x") is S.RUNNING
    assert len(rows_of(database, "StateHistory")) == length


def test_a_task_that_somebody_of_ours_runs_takes_no_report_with_the_key(database, report, report_many, claim, clock):
    claim()
    before = everything(database)
    clock.later(minutes=1)
    assert report(simulated_primaries=50) is S.RUNNING
    assert report(task_state=S.FAILED) is S.RUNNING
    assert report_many({0: {"simulated_primaries": 50}}) == {0: S.RUNNING}
    assert report_many({0: {"task_state": S.FAILED}}) == {0: S.RUNNING}
    assert everything(database) == before


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_wrong_key_changes_nothing(database, report, report_many, key):
    report(task_state=S.RUNNING)
    before = everything(database)
    for values in ({"simulated_primaries": 5}, {"task_state": S.FAILED}):
        with pytest.raises(InvalidInput, match="Invalid update key"):
            report(key=key, **values)
        with pytest.raises(InvalidInput, match="Invalid update key"):
            report_many({0: values}, key=key)
    assert everything(database) == before


def test_an_unknown_task_is_refused(database, report, report_many):
    before = everything(database)
    with pytest.raises(InvalidInput, match="Task does not exist"):
        report(2, simulated_primaries=5)
    with pytest.raises(InvalidInput, match="Task 2 does not exist"):
        report_many({0: {"simulated_primaries": 5}, 3: {}, 2: {"simulated_primaries": 5}})
    assert everything(database) == before


@pytest.mark.parametrize("state", sorted(set(S) - TASK_STATES))
def test_a_state_that_no_task_has_is_refused(database, report, report_many, state):
    before = everything(database)
    with pytest.raises(InvalidInput, match=f"A task cannot be {state}"):
        report(task_state=state)
    with pytest.raises(InvalidInput, match=f"A task cannot be {state}"):
        report_many({0: {"task_state": S.RUNNING}, 1: {"task_state": state}})
    assert everything(database) == before


def test_times_are_set_once(database, report, clock):
    first = clock()
    report(task_state=S.RUNNING, start_time=first)
    report(task_state=S.RUNNING, start_time=clock.later(hours=1))
    assert row(database)["start_time"] == first


@pytest.mark.parametrize("minutes", [-90, -1, 0, 1])
def test_a_task_ends_no_sooner_than_it_began_whatever_its_workers_clock_says(database, report, clock, minutes):
    began = clock()
    report(task_state=S.RUNNING, start_time=began)
    assert report(task_state=S.COMPLETED, end_time=began + timedelta(minutes=minutes)) is S.COMPLETED
    assert row(database)["end_time"] == began + timedelta(minutes=max(minutes, 0))


def test_a_beginning_that_comes_with_the_end_counts(database, report, clock):
    """Both are the worker's, whose clock is an hour late; the present time is after both, or before both."""
    for task, hours in ((0, -1), (1, 1)):
        began = clock() + timedelta(hours=hours)
        report(task, task_state=S.FAILED, start_time=began, end_time=began - timedelta(minutes=1))
        assert (row(database, task)["start_time"], row(database, task)["end_time"]) == (began, began)


def test_of_a_task_that_completed_unseen_the_end_is_known(database, report, clock):
    ended = clock() - timedelta(minutes=5)
    report(task_state=S.COMPLETED, end_time=ended)
    assert (row(database)["start_time"], row(database)["end_time"]) == (ended, ended)
    report(1, task_state=S.FAILED, end_time=clock())
    assert (row(database, 1)["start_time"], row(database, 1)["end_time"]) == (None, clock())


def test_an_end_time_of_a_task_that_goes_on_is_not_taken(database, report, clock):
    report(task_state=S.RUNNING, end_time=clock())
    assert row(database)["end_time"] is None


def test_many_reports_are_taken_as_each_would_be(database, report, report_many):
    report(task_state=S.RUNNING)
    message = {
        0: {"simulated_primaries": 40, "estimated_time": 3},
        1: {"task_state": S.RUNNING, "simulated_primaries": 5},
    }
    assert report_many(message) == {0: S.RUNNING, 1: S.RUNNING}
    assert [task["simulated_primaries"] for task in rows_of(database, "Task")] == [40, 5]
    assert [task["estimated_time"] for task in rows_of(database, "Task")] == [3, None]
    message = {0: {"task_state": S.COMPLETED}, 1: {"task_state": S.FAILED}}
    assert report_many(message) == {0: S.COMPLETED, 1: S.FAILED}
    assert states(database) == ["MERGING_QUEUED", "COMPLETED", "FAILED"]
    before = everything(database)
    assert report_many({0: {"task_state": S.FAILED}, 1: {"simulated_primaries": 80}}) == {0: S.COMPLETED, 1: S.FAILED}
    assert everything(database) == before


def test_many_reports_tell_only_of_the_tasks_that_were_named(report_many):
    assert report_many({1: {"task_state": S.RUNNING}}) == {1: S.RUNNING}
    assert report_many({}) == {}


def test_no_primaries_yet_are_progress_too(database, report, report_many, clock):
    report(task_state=S.RUNNING)
    for seconds, tell in ((9, lambda **values: report_many({0: values})), (8, report)):
        heard = clock.later(minutes=1)
        tell(simulated_primaries=0, estimated_time=seconds)
        task = row(database)
        assert (task["simulated_primaries"], task["estimated_time"], task["last_update_time"]) == (0, seconds, heard)


def test_many_reports_after_the_end_of_the_simulation_change_nothing(database, report, report_many, put, clock):
    report(task_state=S.RUNNING)
    put(SimulationModel, job_state=S.FAILED, end_time=clock())
    before = everything(database)
    message = {0: {"simulated_primaries": 9}, 1: {"task_state": S.RUNNING}}
    assert report_many(message) == {0: S.RUNNING, 1: S.PENDING}
    assert everything(database) == before


# How executors claim tasks


def test_a_claim_tells_all_that_is_needed_to_run_a_task(backend, database, job, claim, clock):
    claimed = claim()
    assert (claimed.simulation_id, claimed.task_id, claimed.job_id) == (job.simulation_id, 0, job.job_id)
    assert (claimed.sim_type, claimed.primaries, claimed.attempt) == ("shieldhit", 100, 1)
    assert claimed.seed == task_seeds(89736501, 2)[0]
    assert tasks.input_files(backend, claimed) == shieldhit_files(200)
    task = row(database)
    assert (task["owner"], task["heartbeat_time"], task["start_time"]) == (claimed.owner, clock(), clock())
    assert states(database) == ["RUNNING", "RUNNING", "PENDING"]


def test_each_claim_has_an_owner_of_its_own(claim, job):
    first, second = claim(), claim()
    assert (first.task_id, second.task_id) == (0, 1)
    assert first.owner != second.owner
    for claimed in (first, second):
        name, _, drawn = claimed.owner.rpartition("-")
        assert name == ME
        assert len(bytes.fromhex(drawn)) == 8
    assert claim() is None


def test_nobody_gets_a_task_of_a_simulator_that_they_have_not(backend, job):
    assert tasks.claim_task(backend, ME, ["fluka"]) is None


def test_a_simulation_is_run_at_one_place(claim):
    claim()
    assert claim(STRANGER) is None
    assert claim(NEIGHBOUR).task_id == 1


def test_who_was_slower_looks_for_another_task(claim, monkeypatch):
    """Between the look and the claim another executor may take the task."""
    take, quicker = tasks.take_task, iter([NEIGHBOUR])

    def take_late(connection, owner, *task):
        for other in quicker:
            assert take(connection, other, *task).task_id == 0
        return take(connection, owner, *task)

    monkeypatch.setattr(tasks, "take_task", take_late)
    assert claim().task_id == 1


def take(database, job, owner=ME, task=0):
    with database.writing() as connection:
        return tasks.take_task(connection, owner, job.simulation_id, task)


def take_named(database, job, owner=ME, task=0):
    with database.writing() as connection:
        return tasks.take_named(connection, transitions.lock_simulation(connection, job.simulation_id), task, owner)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_no_task_of_an_ended_simulation_is_taken(database, job, put, state):
    put(SimulationModel, job_state=state)
    before = everything(database)
    assert take(database, job) is None
    assert take_named(database, job) is None
    assert everything(database) == before


def test_a_task_of_no_simulation_is_not_taken(backend, database, job):
    with database.writing() as connection:
        assert tasks.take_task(connection, ME, 99, 0) is None
    assert take(database, job, task=9) is None
    assert take_named(database, job, task=9) is None


def test_a_worker_that_asks_for_a_task_by_number_gets_it_and_again_the_same(database, job):
    claimed = take_named(database, job, task=1)
    assert (claimed.task_id, claimed.owner, claimed.attempt) == (1, ME, 1)
    before = everything(database)
    assert take_named(database, job, task=1) == claimed
    assert take_named(database, job, NEIGHBOUR, task=1) is None
    assert everything(database) == before


def test_a_worker_at_another_spool_cannot_claim_by_number(database, job):
    """What the first one's tasks leave is not in its spool: it could never merge them."""
    assert take_named(database, job, task=0) is not None
    assert take_named(database, job, STRANGER, task=1) is None
    assert take_named(database, job, NEIGHBOUR, task=1) is not None


def test_a_task_that_has_ended_is_not_run_again(backend, database, job):
    claimed = take_named(database, job)
    tasks.fail_task(backend, claimed, "the beam missed", {})
    assert take_named(database, job) is None


RUN = "place/slurm-12_3-{}"


@pytest.mark.parametrize(
    ("before", "after", "is_next"),
    [
        (RUN.format(0), RUN.format(1), True),
        (RUN.format(2), RUN.format(10), True),
        (RUN.format(1), RUN.format(1), False),
        (RUN.format(1), RUN.format(0), False),
        (RUN.format(0), "place/slurm-12_4-1", False),
        (RUN.format(0), "place/slurm-13_3-1", False),
        (RUN.format(0), "place/host-1", False),
        ("place/host-1", RUN.format(1), False),
        ("", RUN.format(1), False),
    ],
)
def test_a_later_run_of_the_same_task_of_the_same_job(before, after, is_next):
    assert tasks.is_next_run(before, after) is is_next


def test_on_a_cluster_a_requeued_task_is_its_next_runs(database, job, put):
    first = RUN.format(0)
    put(SimulationModel, platform="BATCH")
    put(TaskModel, platform="BATCH")
    assert take_named(database, job, first).owner == first
    assert take_named(database, job, "place/slurm-99_3-1") is None
    again = take_named(database, job, RUN.format(1))
    assert (again.owner, again.attempt) == (RUN.format(1), 2)
    back = [row for row in rows_of(database, "StateHistory") if row["to_state"] == "PENDING" and row["from_state"]]
    assert [(row["task_id"], row["actor"], row["reason"]) for row in back] == [(0, RUN.format(1), tasks.REQUEUED)]
    assert take_named(database, job, first) is None, "the first one is over"


def test_elsewhere_a_name_like_that_of_a_clusters_run_gives_no_right(database, job):
    take_named(database, job, RUN.format(0))
    assert take_named(database, job, RUN.format(1)) is None


def test_tasks_that_were_not_submitted_here_have_seeds_of_their_own(database, job, put):
    """With one seed for all they would count the same histories again and again."""
    put(TaskModel, seed=None)
    seeds = [take(database, job, task=task).seed for task in range(2)]
    assert seeds == task_seeds(job.simulation_id, 2)


def test_the_input_of_what_was_deleted_is_not_found(backend, user_and_job, claim):
    user, job = user_and_job
    claimed = claim()
    simulations.cancel_simulation(backend, user, job.job_id)
    simulations.delete_simulation(backend, user, job.job_id)
    with pytest.raises(NotFound, match="The simulation was deleted"):
        tasks.input_files(backend, claimed)


def test_with_which_simulator_it_is_run_is_noted(backend, database, claim):
    tasks.note_begin(backend, claim(), "1.2", "ab" * 32)
    simulation = rows_of(database, "Simulation")[0]
    assert (simulation["simulator_version"], simulation["simulator_digest"]) == ("1.2", "ab" * 32)


# How they follow and end them


def test_progress_is_that_of_the_lease(backend, database, claim, clock):
    claimed = claim()
    heard = clock.later(minutes=1)
    assert tasks.report_progress(backend, claimed, 30, 7)
    task = row(database)
    assert (task["simulated_primaries"], task["estimated_time"], task["heartbeat_time"]) == (30, 7, heard)
    assert not tasks.report_progress(backend, replace(claimed, owner=NEIGHBOUR), 90, 1)
    assert row(database) == task


def test_an_owner_elsewhere_proves_it_by_the_key(backend, job, claim):
    claimed = claim()
    assert tasks.report_progress(backend, claimed, 30, 7, job.update_key)
    assert not tasks.report_progress(backend, claimed, 40, 7, "another")
    assert not tasks.report_progress(backend, claimed, 40, 7, lifecycle.hash_update_key(job.update_key))


def test_a_completed_task_leaves_its_scores_and_its_log(backend, database, user_and_job, claim):
    user, job = user_and_job
    claimed = claim()
    scores = replace(output(claimed), primaries=90, logs={"run.log": "well done"})
    assert tasks.complete_task(backend, claimed, scores)
    assert row(database)["task_state"] == "COMPLETED"
    assert row(database)["simulated_primaries"] == 90, "as was really simulated"
    assert backend.spool.jobs() == {job.job_id}
    assert list(logfiles.read_logfiles(backend, user, job.job_id).values()) == ["well done"]


def test_results_read_from_files_of_others_are_checked_as_theirs(backend, claim):
    claimed = claim()
    scores = output(claimed)
    estimator = scores.estimators[0]
    wrong = replace(estimator, pages=(replace(estimator.pages[0], number=1 << 40),))
    with pytest.raises(InvalidInput, match="distinct numbers"):
        tasks.complete_task(backend, claimed, replace(scores, estimators=(wrong,)), is_foreign=True)
    assert tasks.complete_task(backend, claimed, scores, is_foreign=True)


def test_a_task_without_a_log_leaves_none(backend, database, claim):
    first, second = claim(), claim()
    assert tasks.complete_task(backend, first, output(first))
    assert tasks.fail_task(backend, second, "the beam missed", {})
    assert rows_of(database, "Logfiles") == []


def test_scores_of_what_was_deleted_meanwhile_leave_nothing(backend, user_and_job, claim):
    user, job = user_and_job
    claimed = claim()
    simulations.cancel_simulation(backend, user, job.job_id)
    simulations.delete_simulation(backend, user, job.job_id)
    assert not tasks.complete_task(backend, claimed, output(claimed))
    assert backend.spool.jobs() == set()


def test_scores_of_what_was_taken_away_stay_for_whoever_has_it_now(backend, database, job, claim):
    claimed = claim()
    tasks.give_back(backend, claimed, "stopped")
    again = claim()
    assert tasks.complete_task(backend, again, output(again))
    assert not tasks.end_completed(backend, claimed, 100, {})
    assert backend.spool.jobs() == {job.job_id}


def test_a_failed_task_leaves_its_reason_and_its_log(backend, database, user_and_job, claim):
    user, job = user_and_job
    claimed = claim()
    assert tasks.fail_task(backend, claimed, "the beam missed", {"output.log": "no hits"})
    assert last_change(database) == (0, "RUNNING", "FAILED", claimed.owner, "the beam missed")
    assert logfiles.read_logfiles(backend, user, job.job_id) == {"output.log": "no hits"}
    assert row(database)["simulated_primaries"] == 0


def test_a_task_fails_though_there_is_no_room_for_its_log(backend, database, claim):
    small = replace(backend, limits=replace(backend.limits, logfiles=10))
    assert tasks.fail_task(small, claim(), "it crashed", {"a.log": "x" * 100})
    assert row(database)["task_state"] == "FAILED"
    assert rows_of(database, "Logfiles") == []


def test_logs_of_success_find_no_room_where_those_of_failures_do(backend, database, claim):
    """They explain nothing: only a part of the room is theirs."""
    small = replace(backend, limits=replace(backend.limits, logfiles=1600))
    first, second = claim(), claim()
    assert tasks.end_completed(small, first, 100, {"a.log": "x" * 200})
    assert rows_of(database, "Logfiles") == []
    assert tasks.fail_task(small, second, "it crashed", {"a.log": "x" * 200})
    assert len(rows_of(database, "Logfiles")) == 1


def test_what_is_given_back_waits_and_has_lost_no_attempt(backend, database, claim):
    for _ in range(4):
        claimed = claim()
        assert claimed.attempt == 1
        assert tasks.give_back(backend, claimed, "r" * 300)
        task = row(database)
        assert (task["task_state"], task["owner"], task["heartbeat_time"]) == ("PENDING", None, None)
        assert last_change(database) == (0, "RUNNING", "PENDING", claimed.owner, "r" * 200)
    assert states(database)[0] == "RUNNING"


def test_its_message_is_sent_again(backend, database, put, claim):
    put(CeleryTaskModel, celery_id="message")
    claimed, other = claim(), claim()
    tasks.give_back(backend, claimed, "stopped")
    tasks.fail_task(backend, other, "the beam missed", {})
    assert [task["celery_id"] for task in rows_of(database, "CeleryTask")] == [None, "message"]


def test_what_is_given_back_again_and_again_fails(backend, database, claim, monkeypatch):
    monkeypatch.setattr(tasks, "RETURNS", 2)
    for _ in range(2):
        assert tasks.give_back(backend, claim(), "stopped")
        assert row(database)["task_state"] == "PENDING"
    assert tasks.give_back(backend, claim(), "stopped")
    assert row(database)["task_state"] == "FAILED"
    assert last_change(database)[-1] == "it was given back 2 times"


def test_nobody_but_the_lease_ends_a_task(backend, database, claim):
    """Neither another owner nor, with the right name, another task; and what was given back is not the next run's."""
    first = claim()
    tasks.give_back(backend, first, "stopped")
    second = claim()
    before = everything(database)
    for lease in (
        first,
        replace(second, owner=NEIGHBOUR),
        replace(second, task_id=1),
        replace(second, simulation_id=9),
    ):
        assert not tasks.fail_task(backend, lease, "too late", {})
        assert not tasks.give_back(backend, lease, "too late")
        assert not tasks.end_completed(backend, lease, 100, {"a.log": "late"})
    assert everything(database) == before
    assert tasks.fail_task(backend, second, "the beam missed", {})


def test_the_log_of_a_canceled_task_is_kept_and_of_no_other(backend, database, user_and_job, claim):
    user, job = user_and_job
    claimed = claim()
    tasks.explain_cancel(backend, claimed, {"a.log": "still running"})
    assert rows_of(database, "Logfiles") == []
    simulations.cancel_simulation(backend, user, job.job_id)
    tasks.explain_cancel(backend, replace(claimed, task_id=9), {"a.log": "no such task"})
    tasks.explain_cancel(backend, replace(claimed, simulation_id=9), {"a.log": "no such simulation"})
    assert rows_of(database, "Logfiles") == []
    small = replace(backend, limits=replace(backend.limits, logfiles=10))
    tasks.explain_cancel(small, claimed, {"a.log": "no room for so much"})
    assert rows_of(database, "Logfiles") == []
    tasks.explain_cancel(backend, claimed, {"a.log": "stopped"})
    assert logfiles.read_logfiles(backend, user, job.job_id) == {"a.log": "stopped"}


def test_a_heartbeat_is_that_of_leases_and_merges(backend, database, claim, put, clock):
    claimed, other = claim(), claim()
    began, heard = clock(), clock.later(seconds=10)
    tasks.beat_leases(backend, ME, [claimed], [])
    assert [task["heartbeat_time"] for task in rows_of(database, "Task")] == [heard, began]
    put(SimulationModel, owner=ME)
    tasks.beat_leases(backend, ME, [], [1])
    tasks.beat_leases(backend, NEIGHBOUR, [], [1])
    assert rows_of(database, "Simulation")[0]["heartbeat_time"] == heard
    before = everything(database)
    clock.later(seconds=10)
    tasks.beat_leases(backend, ME, [], [])
    assert everything(database) == before
    assert other.task_id == 1


def test_whoever_has_to_give_way_tries_again(backend, database, report, report_many, claim, giving_way, monkeypatch):
    """Two transactions that wait for each other: the database ends one of them, and its caller must not notice."""
    giving_way()
    assert report(task_state=S.RUNNING, celery_id="x") is S.RUNNING
    giving_way()
    assert report_many({0: {"task_state": S.FAILED}}) == {0: S.FAILED}
    claimed = claim()
    giving_way()
    assert tasks.fail_task(backend, claimed, "the beam missed", {})
    for name, query, operation in (
        ("began", "set_values", lambda: tasks.note_begin(backend, claimed, "1.2", "ab" * 32)),
        ("heartbeat", "beat_merges", lambda: tasks.beat_leases(backend, ME, [claimed], [])),
    ):
        asked = []

        def give_way_once(*args, asked=asked, name=name):
            asked.append(name)
            if len(asked) == 1:
                raise Contended("a deadlock")

        monkeypatch.setattr(tasks.simulations, query, give_way_once)
        operation()
        assert asked == [name, name]

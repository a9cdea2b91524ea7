"""Services for executors: claims, stalled tasks, merging, and complete results or none."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from tests.support.api import contents, counts
from tests.support.payloads import shieldhit_files
from yaptide.domain.errors import Conflict, Contended, Forbidden, InvalidInput, NotAuthenticated, NotFound
from yaptide.domain.estimators import Aggregation, Axis, Estimator, Page, TaskOutput
from yaptide.domain.splitting import task_seeds
from yaptide.persistence import codec, task_outputs
from yaptide.services import (
    administration,
    logfiles,
    merging,
    passwords,
    recovery,
    results,
    results_storage,
    sessions,
    simulations,
    tasks,
    users,
)
from yaptide.services.passwords import Match
from yaptide.services.simulations import Submission
from yaptide.services.spool import Folder

KNOWN = ["shieldhit"]
ME, OTHER = "host/place/1", "host/place/2"
DEPTHS = np.array([0.5, 1.5, 2.5])
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
#: Everybody who has not said a word since then is silent.
NOW_ON = datetime(2900, 1, 1, tzinfo=UTC)

on_disk = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def user(backend):
    return users.register_user(backend, "alice", None)


@pytest.fixture
def submit(backend, user):
    """Submit a simulation of some tasks with 100 primaries each."""

    def submitted(ntasks: int) -> simulations.Submitted:
        return simulations.submit_simulation(
            backend, user, Submission("shieldhit", ntasks, "", shieldhit_files(100 * ntasks))
        )

    return submitted


@pytest.fixture
def state(backend, user):
    """The state of a submitted simulation."""
    return lambda job: simulations.read_status(backend, user, job.job_id).simulation.job_state


def output(dose: Any, let: Any = (1.0, 1.0, 1.0), primaries: int = 100, extra: tuple[Page, ...] = ()) -> TaskOutput:
    """What a task leaves: a depth-dose curve, the LET weighted by it, and what else is given."""
    axis = Axis("Depth", "mm", DEPTHS)
    dose, let = np.array(dose, dtype=float), np.array(let, dtype=float)
    pages = (Page(0, "Dose", "Gy", (axis,), dose), Page(1, "LET", "keV/um", (axis,), let, weights=dose), *extra)
    return TaskOutput(primaries, (Estimator("depth", "depth_", pages, {"code": "test"}),))


def claim_all(backend, owner: str = ME) -> list[tasks.Claim]:
    items = []
    while (claimed := tasks.claim_task(backend, owner, KNOWN)) is not None:
        items.append(claimed)
    return items


def pages_of(backend, user, job) -> list[dict[str, Any]]:
    """The stored pages of the only estimator."""
    parts = results.read_results(backend, user, job.job_id)
    [estimator] = codec.decode_payload(b"".join(codec.stitch_gzip(parts)))
    return estimator["pages"]


def test_a_claim_tells_all_that_is_needed_to_run_a_task(backend, submit, state):
    job = submit(2)
    claims = claim_all(backend)
    assert [claim.task_id for claim in claims] == [0, 1]
    assert [claim.seed for claim in claims] == task_seeds(89736501, 2)
    for claim in claims:
        assert (claim.simulation_id, claim.job_id, claim.sim_type) == (job.simulation_id, job.job_id, "shieldhit")
        assert (claim.primaries, claim.attempt) == (100, 1)
        assert claim.owner.startswith(f"{ME}-")
        assert tasks.input_files(backend, claim) == shieldhit_files(200)
    assert state(job) == "RUNNING"


def test_the_oldest_task_comes_first(backend, submit):
    first, second = submit(1), submit(1)
    assert [claim.simulation_id for claim in claim_all(backend)] == [first.simulation_id, second.simulation_id]


def test_nobody_gets_a_task_of_a_simulator_that_they_have_not(backend, submit):
    submit(1)
    assert tasks.claim_task(backend, ME, ["fluka"]) is None
    assert tasks.claim_task(backend, ME, []) is None
    assert tasks.claim_task(backend, ME, ["fluka", "shieldhit"]) is not None


@on_disk
def test_each_task_is_claimed_once_whoever_asks_at_the_same_time(backend, submit):
    job, workers = submit(12), 6
    together = Barrier(workers)

    def claim(worker: int) -> list[tasks.Claim]:
        together.wait(timeout=30)
        return claim_all(backend, f"host/place/{worker}")

    with ThreadPoolExecutor(workers) as pool:
        claims = [claimed for result in pool.map(claim, range(workers)) for claimed in result]
    assert sorted(claimed.task_id for claimed in claims) == list(range(12))
    assert {claimed.simulation_id for claimed in claims} == {job.simulation_id}


@on_disk
def test_a_merge_is_claimed_once(backend, submit):
    submit(1)
    [claim] = claim_all(backend)
    tasks.complete_task(backend, claim, output([1, 2, 3]))
    together = Barrier(4)

    def claim_merge(worker: int) -> Any:
        together.wait(timeout=30)
        return merging.claim_merge(backend, f"host/place/{worker}")

    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(claim_merge, range(4)))
    assert Counter(result is not None for result in claimed) == {True: 1, False: 3}


@on_disk
def test_reports_from_many_threads_are_all_taken(backend, submit, user):
    job = submit(4)
    claims = claim_all(backend)
    together = Barrier(len(claims))

    def run(claim: tasks.Claim) -> bool:
        together.wait(timeout=30)
        for simulated in range(10, 100, 10):
            assert tasks.report_progress(backend, claim, simulated, 100 - simulated)
        return tasks.complete_task(backend, claim, output([1, 2, 3]))

    with ThreadPoolExecutor(len(claims)) as pool:
        assert all(pool.map(run, claims))
    status = simulations.read_status(backend, user, job.job_id)
    assert status.simulation.job_state == "MERGING_QUEUED"
    assert {(task.task_state, task.simulated_primaries) for task in status.tasks} == {("COMPLETED", 100)}


def test_progress_is_that_of_the_owner_only(backend, submit, user):
    job = submit(1)
    [claim] = claim_all(backend)
    assert tasks.report_progress(backend, claim, 30, 7)
    assert not tasks.report_progress(backend, replace(claim, owner=OTHER), 90, 1)
    [task] = simulations.read_status(backend, user, job.job_id).tasks
    assert (task.simulated_primaries, task.estimated_time) == (30, 7)


def test_who_has_lost_a_task_is_told(backend, submit, user, database):
    job = submit(1)
    [claim] = claim_all(backend)
    simulations.cancel_simulation(backend, user, job.job_id)
    before = contents(database)
    assert not tasks.report_progress(backend, claim, 50, None)
    assert not tasks.complete_task(backend, claim, output([1, 2, 3]))
    assert not tasks.fail_task(backend, claim, "too late", {})
    assert not tasks.give_back(backend, claim, "too late")
    assert contents(database) == before


def test_what_is_still_said_of_a_run_that_was_given_back_is_not_the_next_runs(backend, submit, user, database):
    """The answer to the first report was lost: it comes again, when another thread of the executor runs the task."""
    job = submit(1)
    [first] = claim_all(backend)
    assert tasks.give_back(backend, first, "the database was away")
    [second] = claim_all(backend)
    assert first.owner != second.owner
    before = contents(database)
    assert not tasks.give_back(backend, first, "the database was away")
    assert not tasks.report_progress(backend, first, 50, None)
    assert not tasks.fail_task(backend, first, "too late", {})
    assert not tasks.complete_task(backend, first, output([1, 2, 3]))
    later = datetime.now(UTC) + timedelta(minutes=10)
    tasks.beat_leases(backend, ME, [first], [])
    assert contents(database) == before
    assert recovery.requeue_stalled(backend, later) == 1
    assert simulations.read_status(backend, user, job.job_id).tasks[0].task_state == "PENDING"


def test_a_task_that_is_given_back_has_lost_no_attempt(backend, submit, state):
    job = submit(1)
    for _ in range(2 * backend.limits.attempts):
        [claim] = claim_all(backend)
        assert claim.attempt == 1
        assert tasks.give_back(backend, claim, "stopped")
    assert state(job) == "RUNNING"


def test_the_time_left_is_that_of_the_present_attempt(backend, submit, user):
    job = submit(1)
    [claim] = claim_all(backend)
    tasks.report_progress(backend, claim, 10, 90)
    tasks.give_back(backend, claim, "stopped")
    [claim] = claim_all(backend)
    tasks.report_progress(backend, claim, 0, None)
    [task] = simulations.read_status(backend, user, job.job_id).tasks
    assert (task.simulated_primaries, task.estimated_time) == (10, None)


def test_a_failed_task_leaves_its_reason_and_its_log(backend, submit, user, state):
    job = submit(1)
    [claim] = claim_all(backend)
    assert tasks.fail_task(backend, claim, "the beam missed", {"output.log": "no hits"})
    assert state(job) == "FAILED"
    assert simulations.read_failures(backend, user, job.job_id)[None] == "1 of 1 tasks failed: the beam missed"
    assert logfiles.read_logfiles(backend, user, job.job_id) == {"output.log": "no hits"}


def test_a_task_fails_though_there_is_no_room_for_its_log(backend, submit, user, state):
    job = submit(2)
    backend = replace(backend, limits=replace(backend.limits, logfiles=100))
    for claim in claim_all(backend):
        assert tasks.fail_task(backend, claim, "it crashed", {f"{claim.task_id}.log": "x" * 70})
    assert state(job) == "FAILED"
    assert list(logfiles.read_logfiles(backend, user, job.job_id)) == ["0.log"]


def test_tasks_of_silent_owners_are_run_again(backend, submit):
    job = submit(2)
    first, second = claim_all(backend)
    assert recovery.requeue_stalled(backend, LONG_AGO) == 0
    assert recovery.requeue_stalled(backend, NOW_ON) == 2
    assert recovery.requeue_stalled(backend, NOW_ON) == 0
    again = claim_all(backend, OTHER)
    assert [claim.task_id for claim in again] == [0, 1]
    assert [claim.attempt for claim in again] == [2, 2]
    assert [claim.seed for claim in again] == [first.seed, second.seed]
    assert not tasks.report_progress(backend, first, 50, None), "who was silent and comes back is told to stop"
    assert job.simulation_id == again[0].simulation_id


def test_who_sends_heartbeats_is_not_silent(backend, submit, monkeypatch):
    submit(2)
    claims = claim_all(backend)
    later = datetime.now(UTC) + timedelta(minutes=10)
    monkeypatch.setattr(tasks, "utc_now", lambda: later)
    tasks.beat_leases(backend, ME, claims[:1], [])
    assert recovery.requeue_stalled(backend, later - timedelta(minutes=1)) == 1
    [again] = claim_all(backend, OTHER)
    assert again.task_id == claims[1].task_id


def test_tasks_of_owners_that_are_known_to_be_dead_are_run_again_at_once(backend, submit):
    submit(1)
    claim_all(backend, "host/one%/1")
    assert recovery.requeue_stalled(backend, LONG_AGO, dead_owner="host/one_/") == 0
    assert recovery.requeue_stalled(backend, LONG_AGO, dead_owner="host/other/") == 0
    assert recovery.requeue_stalled(backend, LONG_AGO, dead_owner="host/one%/") == 1


def test_a_task_that_silences_everybody_is_given_up(backend, submit, user, state):
    job = submit(1)
    for attempt in range(1, backend.limits.attempts + 1):
        assert state(job) in ("PENDING", "RUNNING")
        [claim] = claim_all(backend)
        assert claim.attempt == attempt
        recovery.requeue_stalled(backend, NOW_ON)
    assert state(job) == "FAILED"
    assert claim_all(backend) == []
    assert "given up" in simulations.read_failures(backend, user, job.job_id)[None]


def test_a_silent_merge_is_done_by_another(backend, submit, state):
    job = submit(1)
    [claim] = claim_all(backend)
    tasks.complete_task(backend, claim, output([1, 2, 3]))
    silent = merging.claim_merge(backend, ME)
    assert merging.claim_merge(backend, OTHER) is None
    assert recovery.requeue_stalled(backend, NOW_ON) == 1
    assert state(job) == "MERGING_QUEUED"
    taken_over = merging.claim_merge(backend, OTHER)
    merging.merge_simulation(backend, silent, ME)
    assert state(job) == "MERGING_RUNNING", "the silent one has nothing to say any more"
    merging.merge_simulation(backend, taken_over, OTHER)
    assert state(job) == "COMPLETED"


def run(backend, *outputs: TaskOutput | str) -> None:
    """Run the tasks of the waiting simulation: each leaves an output, or fails with a reason; then merge."""
    for claim, left in zip(claim_all(backend), outputs, strict=True):
        if isinstance(left, str):
            assert tasks.fail_task(backend, claim, left, {})
        else:
            assert tasks.complete_task(backend, claim, left)
    simulation = merging.claim_merge(backend, ME)
    assert simulation is not None
    merging.merge_simulation(backend, simulation, ME)


def test_outputs_are_merged_by_primaries(backend, submit, user, state):
    job = submit(2)
    run(backend, output([1, 2, 0], [10, 20, 30], 100), output([5, 2, 0], [2, 40, 50], 300))
    assert state(job) == "COMPLETED"
    dose, let = pages_of(backend, user, job)
    assert dose["data"]["values"] == [4, 2, 0]
    assert dose["data"]["errors"] == [pytest.approx(np.sqrt((1 * 9 + 3 * 1) / 4)), 0, None]
    # The LET of a task counts with the dose that it was averaged over; where there was none it is 0.
    np.testing.assert_allclose(let["data"]["values"], [(100 * 10 + 1500 * 2) / 1600, 35, 0])
    assert let["data"]["errors"] == [None] * 3, "two tasks that differ so do not tell them"
    assert dose["axis_dim1"] == {"name": "Depth", "unit": "mm", "values": [0.5, 1.5, 2.5]}
    assert dose["metadata"]["page_number"] == "0"
    [task, other] = simulations.read_status(backend, user, job.job_id).tasks
    assert (task.simulated_primaries, other.simulated_primaries) == (100, 300)


def test_every_kind_of_page_is_merged_as_it_has_to_be(backend, submit, user):
    def extra(number: float) -> tuple[Page, ...]:
        values = np.array([number])
        return (
            Page(2, "Count", "", (), values, aggregation=Aggregation.SUM),
            Page(3, "Particles", "MeV", (), np.full(int(number), number), aggregation=Aggregation.CONCATENATE),
            Page(4, "Volume", "mm3", (), values, aggregation=Aggregation.NONE),
        )

    job = submit(2)
    run(backend, output([1, 2, 3], extra=extra(1.0)), output([1, 2, 3], extra=extra(2.0)))
    _, _, count, particles, volume = pages_of(backend, user, job)
    assert count["data"]["values"] == [3]
    assert particles["data"]["values"] == [1, 2, 2]
    assert volume["data"]["values"] == [1]


def test_a_single_task_has_no_standard_error(backend, submit, user):
    job = submit(1)
    run(backend, output([0.1, 1 / 3, 2e-300]))
    dose, _ = pages_of(backend, user, job)
    assert dose["data"]["values"] == [0.1, 1 / 3, 2e-300]
    assert "errors" not in dose["data"]


def test_what_finished_is_merged_and_kept_though_a_task_failed(backend, submit, user, state):
    job = submit(3)
    run(backend, output([1, 1, 1]), "the beam missed", output([3, 3, 3]))
    assert state(job) == "FAILED"
    dose, _ = pages_of(backend, user, job)
    assert dose["data"]["values"] == [2, 2, 2], "the failed task does not bias the rest"
    assert simulations.read_failures(backend, user, job.job_id)[None] == "1 of 3 tasks failed: the beam missed"


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (replace(output([1, 2, 3]), estimators=()), "task 1 has no such page"),
        (output([1, 2, 3, 4], [1, 2, 3, 4]), "its shapes differ between tasks"),
    ],
    ids=["no estimator", "another shape"],
)
def test_outputs_that_do_not_fit_together_end_the_simulation(backend, submit, user, state, database, second, reason):
    job = submit(2)
    run(backend, output([1, 2, 3]), second)
    assert state(job) == "FAILED"
    assert reason in simulations.read_failures(backend, user, job.job_id)[None]
    assert counts(database)["Estimator"] == counts(database)["Page"] == 0


def test_outputs_that_are_lost_end_the_simulation(backend, submit, user, state):
    job = submit(1)
    [claim] = claim_all(backend)
    tasks.complete_task(backend, claim, output([1, 2, 3]))
    backend.spool.remove(job.job_id)
    merging.merge_simulation(backend, merging.claim_merge(backend, ME), ME)
    assert state(job) == "FAILED"
    assert "the file is missing" in simulations.read_failures(backend, user, job.job_id)[None]


def test_outputs_are_on_the_disk_before_the_task_has_ended(tmp_path, monkeypatch):
    """Files, their names, and the name of their folder: after a power cut the database would count on them."""
    synced: list[str] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    spool = Folder(tmp_path / "spool")
    with spool.receive("job", 7) as file:
        task_outputs.write_output(file, output([1, 2, 3]))
    assert spool.fetch("job", 7, tmp_path).stat().st_size
    aside, job, whole = synced
    assert aside.startswith(".yaptide-")
    assert (job, whole) == ("job", "spool")


def test_nothing_is_left_in_the_spool(backend, submit, user):
    run_one, canceled, deleted = submit(1), submit(1), submit(1)
    claims = claim_all(backend)
    assert len(claims) == 3
    simulations.cancel_simulation(backend, user, canceled.job_id)
    simulations.cancel_simulation(backend, user, deleted.job_id)
    simulations.delete_simulation(backend, user, deleted.job_id)
    for claim in claims:
        tasks.complete_task(backend, claim, output([1, 2, 3]))
    assert backend.spool.jobs() == {run_one.job_id, canceled.job_id}
    merging.merge_simulation(backend, merging.claim_merge(backend, ME), ME)
    recovery.clear_spool(backend)
    assert backend.spool.jobs() == set()
    assert pages_of(backend, user, run_one)


def test_outputs_that_another_database_waits_for_stay(backend):
    """Two databases may have the same data folder, one after the other."""
    with backend.spool.receive("20260301-100000-elsewhereDIRECT", 0) as file:
        task_outputs.write_output(file, output([1, 2, 3]))
    recovery.clear_spool(backend)
    [left] = backend.spool.jobs()
    os.utime(backend.spool.path / left, (0, 0))
    recovery.clear_spool(backend)
    assert backend.spool.jobs() == set()


def test_merging_what_was_canceled_meanwhile_stores_nothing(backend, submit, user, state, database):
    job = submit(1)
    [claim] = claim_all(backend)
    tasks.complete_task(backend, claim, output([1, 2, 3]))
    simulation = merging.claim_merge(backend, ME)
    simulations.cancel_simulation(backend, user, job.job_id)
    merging.merge_simulation(backend, simulation, ME)
    assert state(job) == "CANCELED"
    assert counts(database)["Estimator"] == 0


def fail_after(monkeypatch, module: Any, name: str, calls: int) -> None:
    """Let a function do its work some times, and then break."""
    original, left = getattr(module, name), iter(range(calls))

    def breaking(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("power cut")
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, breaking)


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        (codec.Payload, "columns", 0),
        (codec.Payload, "columns", 2),
        (results_storage.simulations, "count_bytes", 0),
        (results_storage.lifecycle, "end_simulation", 0),
    ],
    ids=["at the first row", "between two pages", "behind the last page", "at the move to COMPLETED"],
)
def test_results_are_there_whole_or_not_at_all(
    backend, submit, user, state, database, monkeypatch, module, name, calls
):
    job = submit(1)
    [claim] = claim_all(backend)
    tasks.complete_task(backend, claim, output([1, 2, 3]))
    simulation = merging.claim_merge(backend, ME)
    before = contents(database)
    with monkeypatch.context() as broken:
        fail_after(broken, module, name, calls)
        with pytest.raises(RuntimeError, match="power cut"):
            merging.merge_simulation(backend, simulation, ME)
    assert contents(database) == before
    merging.merge_simulation(backend, simulation, ME)
    assert state(job) == "COMPLETED"
    assert len(pages_of(backend, user, job)) == 2


def test_a_merge_that_has_to_give_way_is_stored_at_the_next_try(backend, submit, user, state, monkeypatch):
    """Otherwise the simulation waits until the process that merged it counts as stalled."""
    job = submit(1)
    [claim] = claim_all(backend)
    tasks.complete_task(backend, claim, output([1, 2, 3]))
    store, tries = results_storage.store_results, iter([Contended("a deadlock")])

    def give_way_once(*args: Any) -> None:
        for error in tries:
            raise error
        store(*args)

    monkeypatch.setattr(results_storage, "store_results", give_way_once)
    merging.merge_simulation(backend, merging.claim_merge(backend, ME), ME)
    assert state(job) == "COMPLETED"


class Failing:
    """A dispatcher that cannot be reached, and looks at what is stored when it is called."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.seen: list[int] = []

    def dispatch(self, simulation_id: int) -> None:
        self.seen.append(counts(self.database)["Task"])
        raise ConnectionError("no broker")

    def revoke(self, simulation_id: int) -> None:
        self.seen.append(simulation_id)
        raise ConnectionError("no broker")


@on_disk
def test_work_is_sent_after_the_commit_so_that_nothing_accepted_is_lost(backend, user, database):
    unreachable = replace(backend, dispatcher=Failing(database))
    with pytest.raises(ConnectionError):
        simulations.submit_simulation(unreachable, user, Submission("shieldhit", 2, "", shieldhit_files(200)))
    assert unreachable.dispatcher.seen == [2]
    assert len(claim_all(backend)) == 2, "whoever looks finds the work"


def test_what_is_refused_is_not_sent(backend, user, database):
    before = contents(database)
    for submission in (
        Submission("shieldhit", 0, "", shieldhit_files()),
        Submission("shieldhit", backend.limits.tasks + 1, "", shieldhit_files(10**9)),
        Submission("shieldhit", 1, "", {}),
        Submission("mcsquare", 1, "", None, {"beam": {"numberOfParticles": 10}}),
        Submission("shieldhit", 1, ""),
    ):
        with pytest.raises(InvalidInput):
            simulations.submit_simulation(backend, user, submission)
    assert backend.dispatcher.dispatched == []
    assert contents(database) == before


def test_only_a_hash_of_the_update_key_is_stored(backend, submit, database):
    job = submit(1)
    stored = repr(contents(database))
    assert len(job.update_key) >= 43, "32 random bytes"
    assert job.update_key not in stored
    assert job.update_key != submit(1).update_key


def test_what_was_deleted_is_gone_for_its_executor_too(backend, submit, user):
    job = submit(1)
    [claim] = claim_all(backend)
    simulations.cancel_simulation(backend, user, job.job_id)
    simulations.delete_simulation(backend, user, job.job_id)
    with pytest.raises(NotFound):
        tasks.input_files(backend, claim)
    assert not tasks.complete_task(backend, claim, output([1, 2, 3]))


def test_users_are_registered_once_whoever_asks_at_the_same_time(backend, database):
    with pytest.raises(Conflict):
        [users.register_user(backend, "alice", None) for _ in range(2)]
    assert users.ensure_user(backend, "alice") == users.ensure_user(backend, "alice")
    assert counts(database)["User"] == 1


def test_a_password_changed_during_a_sign_in_stays_changed(backend, monkeypatch):
    alice = users.register_user(backend, "alice", "the old one")
    verify = passwords.verify_password

    def slow(stored: str, password: str, queue: object) -> Match:
        assert verify(stored, password) is Match.CURRENT
        administration.set_password(backend.database, alice, "the new one")
        return Match.OUTDATED

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(passwords, "verify_password", slow)
        users.check_password(backend, "alice", "the old one")
    assert users.check_password(backend, "alice", "the new one")
    with pytest.raises(NotAuthenticated):
        users.check_password(backend, "alice", "the old one")


@on_disk
def test_a_quota_holds_whoever_submits_at_the_same_time(backend, submit, user, database):
    submit(1)
    used = administration.count_holdings(database, user).stored_bytes
    administration.set_quota(database, user, round(2.5 * used))  # room for one more
    together = Barrier(4)

    def try_it(_: int) -> bool:
        together.wait(timeout=30)
        with suppress(Conflict):
            return bool(submit(1))
        return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(try_it, range(4))) == 1


def test_who_was_removed_meanwhile_is_told_so(backend, submit, user, database):
    session = sessions.begin_session(backend, user)
    administration.remove_user(database, user, administration.count_holdings(database, user))
    with pytest.raises(Forbidden, match="Log in again"):
        submit(1)
    with pytest.raises(NotAuthenticated, match="Invalid login"):
        sessions.begin_session(backend, user)
    with pytest.raises(Forbidden):
        sessions.authenticate_user(backend, session.access.text)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_user_is_not_removed_with_more_than_was_seen(submit, user, database, monkeypatch):
    """A submission that begins between the last look and the removal waits for it, and is refused."""
    look, late = administration.queries.count_holdings, []

    def submit_meanwhile(*args: Any) -> Any:
        seen = look(*args)
        late.append(pool.submit(submit, 1))
        with suppress(FutureTimeout):
            late[0].result(timeout=0.5)
        return seen

    seen = administration.count_holdings(database, user)
    monkeypatch.setattr(administration.queries, "count_holdings", submit_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        administration.remove_user(database, user, seen)
        with pytest.raises(Forbidden, match="Log in again"):
            late[0].result(timeout=30)

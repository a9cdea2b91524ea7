"""The embedded executor, step by step: its runs are stood in for, the store is real."""

import threading
from typing import Any

import pytest

from tests.support.storing import output, submitted
from yaptide.domain.errors import Unavailable
from yaptide.platforms.direct import embedded
from yaptide.platforms.direct.embedded import EmbeddedExecutor, Folders
from yaptide.services import simulations, tasks

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)


@pytest.fixture
def executor(backend, tmp_path, monkeypatch):
    """An executor that has SHIELD-HIT12A, and has not been started."""
    executor = EmbeddedExecutor(backend, Folders(tmp_path, tmp_path, tmp_path / "work"), 1, 60.0)
    executor.owner = f"{backend.spool.place}executor"
    monkeypatch.setattr(executor, "_installed", lambda: {"shieldhit": None})
    return executor


def states(backend, user, job) -> list[str]:
    return [task.task_state for task in simulations.read_status(backend, user, job.job_id).tasks]


def test_a_task_whose_input_cannot_be_read_for_now_is_given_back(executor, backend, monkeypatch):
    user, job = submitted(backend, ntasks=1)

    def away(*_: Any) -> Any:
        raise Unavailable("the database is away")

    monkeypatch.setattr(tasks, "input_files", away)
    assert executor._work_once()
    assert states(backend, user, job) == ["PENDING"]


def test_a_report_that_got_no_answer_is_repeated(executor, backend, monkeypatch):
    user, job = submitted(backend, ntasks=1)
    answers = iter([Unavailable("the database is away"), None])
    complete = tasks.complete_task

    def sometimes(*arguments: Any) -> bool:
        failure = next(answers)
        if failure is not None:
            raise failure
        return complete(*arguments)

    monkeypatch.setattr(tasks, "complete_task", sometimes)
    monkeypatch.setattr(executor._loops.stopping, "wait", lambda _: False)
    monkeypatch.setattr(embedded, "run_task", lambda _job, reporter, *_: reporter.complete_task(output(claim())))
    claim = lambda: next(iter(executor._running))  # noqa: E731 - what is run just now
    monkeypatch.setattr(tasks, "note_begin", lambda *_: None)
    monkeypatch.setattr(executor, "_installed", lambda: {"shieldhit": Program()})
    assert executor._work_once()
    assert states(backend, user, job) == ["COMPLETED"]


class Program:
    """What `_run` asks of an installation."""

    version, digest = "1", ""


def test_a_canceled_simulations_tasks_ask_at_once_and_no_others(executor, backend):
    submitted(backend, ntasks=2)
    claims = [tasks.claim_task(backend, executor.owner, ["shieldhit"]) for _ in range(2)]
    executor._running = {claim: threading.Event() for claim in claims}
    executor.revoke(claims[0].simulation_id + 1)
    assert not any(look.is_set() for look in executor._running.values())
    executor.revoke(claims[0].simulation_id)
    assert all(look.is_set() for look in executor._running.values())


def test_a_run_that_goes_on_is_known_when_one_before_it_of_the_same_task_ends(executor, backend, monkeypatch):
    """The heart beats, and cancel asks, for what is known to run."""
    submitted(backend, ntasks=1)
    second_runs, end_second, given_back = threading.Event(), threading.Event(), threading.Event()
    runs = []

    def run(claim, *_):
        runs.append(claim)
        if len(runs) == 1:
            tasks.give_back(backend, claim, "the database was away")
            given_back.set()
            assert second_runs.wait(30)
        else:
            second_runs.set()
            assert end_second.wait(30)

    monkeypatch.setattr(executor, "_run", run)
    first = threading.Thread(target=executor._work_once)
    first.start()
    assert given_back.wait(30)
    second = threading.Thread(target=executor._work_once)
    second.start()
    first.join(30)
    try:
        assert list(executor._running) == [runs[1]]
    finally:
        end_second.set()
        second.join(30)
    assert not executor._running

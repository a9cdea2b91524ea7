"""Executors with different data folders on one database: each has the outputs of just the tasks that it has run."""

from sqlalchemy import update

from tests.support.storing import output, submitted
from yaptide.persistence.models import TaskModel
from yaptide.persistence.queries import transitions
from yaptide.services import merging, simulations, tasks
from yaptide.services.backend import Backend

HERE, BESIDE, ELSEWHERE = "host/a/1", "host/a/2", "host/b/1"


def test_a_simulation_is_run_and_merged_at_one_place(backend: Backend) -> None:
    user, job = submitted(backend, ntasks=2)
    first = tasks.claim_task(backend, HERE, ["shieldhit"])
    assert first is not None
    assert tasks.claim_task(backend, ELSEWHERE, ["shieldhit"]) is None
    second = tasks.claim_task(backend, BESIDE, ["shieldhit"])
    assert second is not None
    for claim in (first, second):
        assert tasks.complete_task(backend, claim, output(claim))
    assert merging.claim_merge(backend, ELSEWHERE) is None
    simulation = merging.claim_merge(backend, BESIDE)
    assert simulation is not None
    merging.merge_simulation(backend, simulation, BESIDE)
    assert simulations.read_status(backend, user, job.job_id).simulation.job_state == "COMPLETED"


def test_another_place_takes_over_what_was_given_back(backend: Backend) -> None:
    submitted(backend, ntasks=1)
    claim = tasks.claim_task(backend, HERE, ["shieldhit"])
    assert claim is not None
    assert tasks.give_back(backend, claim, "stopped")
    assert tasks.claim_task(backend, ELSEWHERE, ["shieldhit"]) is not None


def test_a_worker_at_another_place_cannot_name_a_task_of_this_one(backend: Backend) -> None:
    _, job = submitted(backend, ntasks=2)
    assert tasks.claim_task(backend, HERE, ["shieldhit"]) is not None
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.simulation_id)
        assert simulation is not None
        assert tasks.take_named(connection, simulation, 1, ELSEWHERE) is None
        assert tasks.take_named(connection, simulation, 1, BESIDE) is not None


def test_tasks_without_a_seed_get_different_ones(backend: Backend) -> None:
    submitted(backend, ntasks=3)
    with backend.database.writing() as connection:
        connection.execute(update(TaskModel).values(seed=None))
    claims = [tasks.claim_task(backend, HERE, ["shieldhit"]) for _ in range(3)]
    assert len({claim.seed for claim in claims if claim is not None}) == 3

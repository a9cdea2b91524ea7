"""Recovery: what has to be done when somebody who worked on a simulation is gone."""

from datetime import datetime
from typing import Any

from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import retried
from yaptide.persistence.queries import messages, moves, simulations, tasks
from yaptide.persistence.queries.moves import Cause
from yaptide.services import lifecycle, merging
from yaptide.services.backend import Backend, now


def requeue_silent(backend: Backend, silent_since: datetime, dead_owner: str | None = None) -> int:
    """Give tasks and merges whose owner is gone to others; returns how many.

    Gone is who was not heard of `silent_since`, and whose name begins with `dead_owner`. A task that has been begun too
    often fails: it may be what kills its workers.
    """
    with backend.database.reading() as connection:
        silent = tasks.silent(connection, dead_owner, silent_since)
        merges = simulations.silent_merges(connection, dead_owner, silent_since)
    for task in silent:
        _requeue(backend, task)
    for simulation_id, owner in merges:
        _requeue_merge(backend, simulation_id, owner)
    return len(silent) + len(merges)


@retried
def _requeue_merge(backend: Backend, simulation_id: int, owner: str | None) -> None:
    with backend.database.writing() as connection:
        simulation = moves.lock_simulation(connection, simulation_id)
        if simulation is not None and simulation.owner == owner:
            cause = Cause("recovery", now(), "the process that merged went silent")
            moves.move_simulation(connection, simulation_id, EntityState.MERGING_QUEUED, cause, {"owner": None})
            messages.forget_merge(connection, simulation_id)


@retried
def _requeue(backend: Backend, task: Any) -> None:
    attempts = f"attempt {task.attempts} of {backend.limits.attempts}"
    if task.attempts < backend.limits.attempts:
        to, values = EntityState.PENDING, {"owner": None, "heartbeat_time": None}
        cause = Cause("recovery", now(), f"its executor went silent, {attempts}")
    else:
        to, values = EntityState.FAILED, {}
        cause = Cause("recovery", now(), f"its executors went silent, {attempts}: given up")
    unchanged = {name: getattr(task, name) for name in ("task_id", "owner", "attempts")}
    unchanged["task_state"] = EntityState.RUNNING
    with backend.database.writing() as connection:
        simulation = moves.lock_simulation(connection, task.simulation_id)
        if simulation is not None and moves.move_tasks(connection, simulation.id, to, cause, values, **unchanged):
            messages.forget(connection, simulation.id, [task.task_id])
            lifecycle.settle(connection, simulation, cause)


def clear_spool(backend: Backend) -> None:
    """Remove from the spool what simulations have left that have ended, or that nobody knows for a long time.

    What had completed of a canceled simulation is merged and stored before.
    """
    left = backend.spool.jobs()
    with backend.database.reading() as connection:
        states = simulations.states(connection, left) if left else {}
    for job_id in left:
        # One that is not in this database may be in another that the spool is used with.
        known = states.get(job_id)
        if known is EntityState.CANCELED:
            merging.keep_canceled(backend, job_id)
        if known in FINAL_STATES or (known is None and backend.spool.is_forgotten(job_id)):
            backend.spool.remove(job_id)

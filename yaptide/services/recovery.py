"""Recovery: what has to be done when somebody who worked on a simulation is gone, and what has to be tidied up."""

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from yaptide.domain.errors import Unavailable
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import outbox, simulations, tasks, transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle, merging
from yaptide.services.backend import Backend, utc_now

log = logging.getLogger(__name__)

#: How often a merge is begun before it counts as what kills those who merge.
MERGES = 10
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class StallMonitor:
    """Takes work from those who are silent, which counts only while we, and the database, could have heard them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.begin()

    def begin(self) -> None:
        """Nobody was heard before this moment."""
        self._since = time.monotonic()

    def requeue(self) -> int:
        """Give to others what those had who are silent for too long; returns how many tasks and merges."""
        since, silence = self._since, self._backend.limits.silence
        self.begin()  # and it stays so if the database is away
        heard = timedelta(seconds=time.monotonic() - since)
        found = requeue_stalled(self._backend, utc_now() - silence if heard > silence else _NEVER)
        self._since = since
        return found


def requeue_stalled(backend: Backend, silent_since: datetime, dead_owner: str | None = None) -> int:
    """Give tasks and merges whose owner is gone to others; returns how many.

    Gone is who was not heard of `silent_since`, and whose name begins with `dead_owner`. A task that has been begun too
    often fails: it may be what kills its workers.
    """
    with backend.database.reading() as connection:
        silent = tasks.list_stalled(connection, dead_owner, silent_since)
        merges = simulations.silent_merges(connection, dead_owner, silent_since)
    for task in silent:
        _requeue(backend, task)
    for simulation_id, owner in merges:
        _requeue_merge(backend, simulation_id, owner)
    return len(silent) + len(merges)


@retry_contended
def _requeue_merge(backend: Backend, simulation_id: int, owner: str | None) -> None:
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, simulation_id)
        if simulation is None or simulation.owner != owner:
            return
        begun = simulations.times_moved(connection, simulation_id, EntityState.MERGING_RUNNING)
        if begun >= MERGES:
            reason = f"its results could not be merged: of {begun} processes that tried, none came to an end"
            lifecycle.end_simulation(connection, simulation, EntityState.FAILED, Audit("recovery", utc_now(), reason))
        else:
            cause = Audit("recovery", utc_now(), "the process that merged went silent")
            transitions.move_simulation(connection, simulation_id, EntityState.MERGING_QUEUED, cause, {"owner": None})
            outbox.forget_merge(connection, simulation_id)


@retry_contended
def _requeue(backend: Backend, task: Any) -> None:
    attempts = f"attempt {task.attempts} of {backend.limits.attempts}"
    if task.attempts < backend.limits.attempts:
        to, values = EntityState.PENDING, {"owner": None, "heartbeat_time": None}
        cause = Audit("recovery", utc_now(), f"its executor went silent, {attempts}")
    else:
        to, values = EntityState.FAILED, {}
        cause = Audit("recovery", utc_now(), f"its executors went silent, {attempts}: given up")
    unchanged = {name: getattr(task, name) for name in ("task_id", "owner")}
    unchanged["task_state"] = EntityState.RUNNING
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, task.simulation_id)
        if simulation is not None and transitions.move_tasks(connection, simulation.id, to, cause, values, **unchanged):
            outbox.forget_sent(connection, simulation.id, [task.task_id])
            lifecycle.settle_simulation(connection, simulation, cause)


def clear_spool(backend: Backend) -> None:
    """Remove from the spool what simulations have left that have ended, or that nobody knows for a long time.

    What had completed of a canceled simulation is merged and stored before.
    """
    left = backend.spool.jobs()
    with backend.database.reading() as connection:
        states = simulations.states_by_job(connection, left) if left else {}
    for job_id in left:
        try:
            _clear_job(backend, job_id, states.get(job_id))
        except Unavailable:
            raise
        except Exception:  # the others are cleared all the same
            log.exception("what %s has left in the spool cannot be cleared", job_id)


def _clear_job(backend: Backend, job_id: str, known: EntityState | None) -> None:
    if known is EntityState.CANCELED:
        merging.keep_canceled(backend, job_id)
    # One that is not in this database may be in another that the spool is used with.
    if known in FINAL_STATES or (known is None and backend.spool.is_forgotten(job_id)):
        backend.spool.remove(job_id)

"""Recovery: requeue stalled tasks and merges, and clear the staging area."""

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from yaptide.domain.errors import Unavailable
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import outbox, simulations, tasks, transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle, merging, submission_keys
from yaptide.services.backend import Backend, utc_now

log = logging.getLogger(__name__)

#: Number of attempts after which a merge counts as crashing its workers.
MERGES = 10
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class StallMonitor:
    """Requeues stalled work; only time in which this process and the database could receive heartbeats counts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.begin()

    def begin(self) -> None:
        """Ignore heartbeats before this moment."""
        self._since = time.monotonic()

    def requeue(self) -> int:
        """Requeue stalled tasks and merges; return how many."""
        since, silence = self._since, self._backend.limits.silence
        self.begin()  # also if the database is not available
        observed = timedelta(seconds=time.monotonic() - since)
        count = requeue_stalled(self._backend, utc_now() - silence if observed > silence else _NEVER)
        self._since = since
        return count


def requeue_stalled(backend: Backend, stalled_since: datetime, dead_owner: str | None = None) -> int:
    """Requeue tasks and merges of stalled owners; return how many.

    An owner is stalled if it has sent no heartbeat since `stalled_since`, or if its name begins with `dead_owner`. A
    task with too many attempts fails: it may be what crashes its workers.
    """
    with backend.database.reading() as connection:
        stalled = tasks.list_stalled(connection, dead_owner, stalled_since)
        merges = simulations.list_stalled_merges(connection, dead_owner, stalled_since)
    for task in stalled:
        _requeue(backend, task)
    for simulation_id, owner in merges:
        _requeue_merge(backend, simulation_id, owner)
    return len(stalled) + len(merges)


@retry_contended
def _requeue_merge(backend: Backend, simulation_id: int, owner: str | None) -> None:
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, simulation_id)
        if simulation is None or simulation.owner != owner:
            return
        begun = simulations.count_transitions(connection, simulation_id, EntityState.MERGING_RUNNING)
        if begun >= MERGES:
            reason = f"its results could not be merged: {begun} processes tried, and none finished"
            lifecycle.end_simulation(connection, simulation, EntityState.FAILED, Audit("recovery", utc_now(), reason))
        else:
            cause = Audit("recovery", utc_now(), "the process that merged stalled")
            transitions.move_simulation(connection, simulation_id, EntityState.MERGING_QUEUED, cause, {"owner": None})
            outbox.forget_merge(connection, simulation_id)


@retry_contended
def _requeue(backend: Backend, task: Any) -> None:
    attempts = f"attempt {task.attempts} of {backend.limits.attempts}"
    if task.attempts < backend.limits.attempts:
        to, values = EntityState.PENDING, {"owner": None, "heartbeat_time": None}
        cause = Audit("recovery", utc_now(), f"its executor stalled, {attempts}")
    else:
        to, values = EntityState.FAILED, {}
        cause = Audit("recovery", utc_now(), f"its executors stalled, {attempts}: given up")
    unchanged = {name: getattr(task, name) for name in ("task_id", "owner")}
    unchanged["task_state"] = EntityState.RUNNING
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, task.simulation_id)
        if simulation is not None and transitions.move_tasks(connection, simulation.id, to, cause, values, **unchanged):
            outbox.forget_sent(connection, simulation.id, [task.task_id])
            lifecycle.settle_simulation(connection, simulation, cause)


def clean_up(backend: Backend) -> None:
    """Remove what is no longer needed: files in the staging area, and old idempotency keys."""
    submission_keys.forget_keys(backend)
    clear_spool(backend)


def clear_spool(backend: Backend) -> None:
    """Remove files of ended and of long unknown simulations from the staging area.

    Results of completed tasks of a canceled simulation are merged and stored before.
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
            log.exception("cannot clear the staging area of %s", job_id)


def _clear_job(backend: Backend, job_id: str, known: EntityState | None) -> None:
    if known is EntityState.CANCELED:
        merging.keep_canceled(backend, job_id)
    # An unknown one may belong to another database that uses the same staging area.
    if known in FINAL_STATES or (known is None and backend.spool.is_forgotten(job_id)):
        backend.spool.remove(job_id)

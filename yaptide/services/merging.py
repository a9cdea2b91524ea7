"""Merging: from what the tasks left in the spool to the results of the simulation."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from yaptide.disk import explain_full_disk
from yaptide.domain.errors import Conflict, InvalidInput, SimulationFailed
from yaptide.domain.states import EntityState
from yaptide.persistence import task_outputs
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.models.simulations import DIRECT
from yaptide.persistence.payload import NewEstimator
from yaptide.persistence.queries import simulations, tasks, transitions
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.services import lifecycle, results
from yaptide.services.backend import Backend, utc_now

log = logging.getLogger(__name__)


@retry_contended
def claim_merge(backend: Backend, owner: str, platform: str = DIRECT) -> Locked | None:
    """Take the simulation of a platform that has waited longest for its merge; None if there is none to have."""
    with backend.database.reading() as connection:
        simulation_id = simulations.next_merge(connection, owner, platform)
    if simulation_id is None:
        return None
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, simulation_id)
        taken = simulation is not None and take_merge(connection, simulation, owner)
    return simulation if taken else None


def take_merge(connection: Connection, simulation: Locked, owner: str) -> bool:
    """Claim the merge of a locked simulation in the running transaction; False if it does not wait for one."""
    if simulation.job_state is not EntityState.MERGING_QUEUED:
        return False  # somebody was quicker
    cause = Audit(owner, utc_now())
    values = {"owner": owner, "heartbeat_time": cause.time}
    return transitions.move_simulation(connection, simulation.id, EntityState.MERGING_RUNNING, cause, values)


def merge_next(backend: Backend, owner: str, in_progress: set[int], platform: str = DIRECT) -> bool:
    """Merge the simulation of a platform that has waited longest; False if none waits.

    Its number is in `in_progress` meanwhile: whoever gives it to others if it stalls needs its heartbeats.
    """
    simulation = claim_merge(backend, owner, platform)
    if simulation is None:
        return False
    in_progress.add(simulation.id)
    try:
        merge_simulation(backend, simulation, owner)
    finally:
        in_progress.discard(simulation.id)
    return True


def merge_simulation(backend: Backend, simulation: Locked, owner: str) -> None:
    """Merge a claimed simulation and store its results, which ends it; it fails if its outputs cannot be merged."""
    with backend.database.reading() as connection:
        completed = tasks.list_completed(connection, simulation.id)
    try:
        with _merged(backend, simulation.job_id, completed) as merged:
            finish_merge(backend, simulation, owner, merged)
    except (SimulationFailed, InvalidInput, Conflict, ValueError) as error:  # trying again would not help
        finish_merge(backend, simulation, owner, [], f"the results could not be merged: {error}")


@contextmanager
def _merged(backend: Backend, job_id: str, completed: Sequence[tuple[int, int]]) -> Iterator[list[NewEstimator]]:
    """Merge what these tasks (number, simulated primaries) have left in the spool."""
    with (
        explain_full_disk("No room is left to merge scores"),
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile(dir=backend.data_dir) as aside,
    ):
        paths = [backend.spool.fetch(job_id, task_id, Path(folder)) for task_id, _ in completed]
        yield list(task_outputs.merge_outputs(paths, [primaries for _, primaries in completed], aside))


def finish_merge(
    backend: Backend, simulation: Locked, owner: str, merged: Sequence[NewEstimator], reason: str | None = None
) -> None:
    """End a claimed simulation with its merged results, or, if there are none, as one that failed for `reason`."""
    if _end(backend, simulation.id, owner, merged, reason):
        backend.spool.remove(simulation.job_id)


@retry_contended
def _end(backend: Backend, simulation_id: int, owner: str, merged: Sequence[NewEstimator], reason: str | None) -> bool:
    """Store what was merged and end the simulation; False if it is not the owner's any more."""
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, simulation_id)
        if locked is None or locked.owner != owner or locked.job_state is not EntityState.MERGING_RUNNING:
            return False  # canceled, deleted, or taken over meanwhile
        cause = Audit(owner, utc_now(), reason)
        if merged:
            results.store_results(connection, locked, merged, cause)
        else:
            lifecycle.end_simulation(connection, locked, EntityState.FAILED, cause)
    return True


@retry_contended
def keep_canceled(backend: Backend, job_id: str) -> None:
    """Store what those tasks of a canceled simulation have simulated that had completed before; its state stays."""
    with backend.database.reading() as connection:
        simulation = simulations.by_job(connection, job_id)
        completed = tasks.list_completed(connection, simulation.id) if simulation else []
    if simulation is None or not completed:
        return
    try:
        with _merged(backend, job_id, completed) as merged:
            kept = [estimator for estimator in merged if estimator.pages]
            results.check_unique(kept)
            with backend.database.writing() as connection:
                locked = transitions.lock_simulation(connection, simulation.id)
                if locked is not None and locked.job_state is EntityState.CANCELED:
                    results.add_results(connection, locked, kept)
    except (SimulationFailed, InvalidInput, ValueError) as error:
        log.warning("%s was canceled; what had completed cannot be kept: %s", job_id, error)

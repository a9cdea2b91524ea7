"""Merging: from the output of tasks in the staging area to the results of the simulation."""

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
from yaptide.services import lifecycle, results_storage
from yaptide.services.backend import Backend, utc_now

log = logging.getLogger(__name__)


@retry_contended
def claim_merge(backend: Backend, owner: str, platform: str = DIRECT) -> Locked | None:
    """Claim the simulation of a platform that has waited longest for its merge; None if there is none."""
    with backend.database.reading() as connection:
        simulation_id = simulations.next_merge(connection, owner, platform)
    if simulation_id is None:
        return None
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, simulation_id)
        claimed = simulation is not None and take_merge(connection, simulation, owner)
    return simulation if claimed else None


def take_merge(connection: Connection, simulation: Locked, owner: str) -> bool:
    """Claim the merge of a locked simulation in the current transaction; False if it does not wait for one."""
    if simulation.job_state is not EntityState.MERGING_QUEUED:
        return False  # another process was faster
    audit = Audit(owner, utc_now())
    values = {"owner": owner, "heartbeat_time": audit.time}
    return transitions.move_simulation(connection, simulation.id, EntityState.MERGING_RUNNING, audit, values)


def merge_next(backend: Backend, owner: str, in_progress: set[int], platform: str = DIRECT) -> bool:
    """Claim and merge the simulation of a platform that has waited longest; False if none waits.

    During the merge its id is in `in_progress`, for which the caller sends heartbeats.
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
    """Merge a claimed simulation and store its results, which ends it; it fails if its output cannot be merged."""
    with backend.database.reading() as connection:
        completed = tasks.list_completed(connection, simulation.id)
    try:
        with _merged(backend, simulation.job_id, completed) as merged:
            finish_merge(backend, simulation, owner, merged)
    except (SimulationFailed, InvalidInput, Conflict, ValueError) as error:  # trying again would not help
        finish_merge(backend, simulation, owner, [], f"the results could not be merged: {error}")


@contextmanager
def _merged(backend: Backend, job_id: str, completed: Sequence[tuple[int, int]]) -> Iterator[list[NewEstimator]]:
    """Merge the output of these tasks (number, simulated primaries) in the staging area."""
    with (
        explain_full_disk("No disk space left for merging results"),
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile(dir=backend.data_dir) as blob_file,
    ):
        paths = [backend.spool.fetch(job_id, task_id, Path(folder)) for task_id, _ in completed]
        yield list(task_outputs.merge_outputs(paths, [primaries for _, primaries in completed], blob_file))


def finish_merge(
    backend: Backend, simulation: Locked, owner: str, merged: Sequence[NewEstimator], reason: str | None = None
) -> None:
    """End a claimed simulation with its merged results, or as FAILED for `reason` if there are none."""
    if _end(backend, simulation.id, owner, merged, reason):
        backend.spool.remove(simulation.job_id)


@retry_contended
def _end(backend: Backend, simulation_id: int, owner: str, merged: Sequence[NewEstimator], reason: str | None) -> bool:
    """Store merged results and end the simulation; False if the owner has lost the merge."""
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, simulation_id)
        if locked is None or locked.owner != owner or locked.job_state is not EntityState.MERGING_RUNNING:
            return False  # canceled, deleted, or taken over in the meantime
        audit = Audit(owner, utc_now(), reason)
        if merged:
            results_storage.store_results(connection, locked, merged, audit)
        else:
            lifecycle.end_simulation(connection, locked, EntityState.FAILED, audit)
    return True


@retry_contended
def keep_canceled(backend: Backend, job_id: str) -> None:
    """Store the results of the tasks of a canceled simulation that had completed; its state does not change."""
    with backend.database.reading() as connection:
        simulation = simulations.by_job(connection, job_id)
        completed = tasks.list_completed(connection, simulation.id) if simulation else []
    if simulation is None or not completed:
        return
    try:
        with _merged(backend, job_id, completed) as merged:
            estimators = [estimator for estimator in merged if estimator.pages]
            results_storage.check_unique(estimators)
            with backend.database.writing() as connection:
                locked = transitions.lock_simulation(connection, simulation.id)
                if locked is not None and locked.job_state is EntityState.CANCELED:
                    results_storage.add_results(connection, locked, estimators)
    except (SimulationFailed, InvalidInput, ValueError) as error:
        log.warning("cannot keep the results of the canceled simulation %s: %s", job_id, error)

"""The stored state of simulations on clusters, for `yaptide.platforms.batch.driver`, which runs them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from yaptide.domain.errors import NotFound, TooLarge
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence import codec
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.models.simulations import BATCH
from yaptide.persistence.queries import batch, simulations, transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle, logfiles, tasks
from yaptide.services.backend import Backend, utc_now
from yaptide.services.tasks import UNOWNED, Claim

__all__ = ["BATCH"]

#: Actor in the history for the driver.
DRIVER = "cluster"


@dataclass(frozen=True, slots=True)
class Job:
    """A simulation with something left to do on its cluster; see `BatchSimulationModel`."""

    id: int
    job_id: str
    user_id: int
    job_state: EntityState
    sim_type: str
    start_time: datetime
    end_time: datetime | None
    job_dir: str | None
    array_id: int | None
    collect_id: int | None
    options: str
    queue_note: str | None
    cluster_name: str

    @property
    def has_ended(self) -> bool:
        """Whether the simulation is in a final state."""
        return self.job_state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Array:
    """An array job with `size` tasks from the task `first` on; `number` is None while it is being submitted."""

    first: int
    size: int
    number: int | None

    @property
    def tasks(self) -> range:
        """Numbers of its tasks."""
        return range(self.first, self.first + self.size)


@dataclass(frozen=True, slots=True)
class Open:
    """A task that has not ended."""

    task_id: int
    task_state: EntityState
    owner: str | None
    heartbeat_time: datetime | None


def list_unfinished(backend: Backend) -> list[Job]:
    """Return all simulations with something left to do on a cluster, in order of submission."""
    with backend.database.reading() as connection:
        return [Job(*row) for row in batch.list_unfinished(connection, backend.spool.place)]


def open_tasks(backend: Backend, job: Job) -> list[Open]:
    """Return the tasks that have not ended, by number."""
    with backend.database.reading() as connection:
        return [Open(*row) for row in batch.open_tasks(connection, job.id)]


def list_arrays(backend: Backend, job: Job) -> list[Array]:
    """Return the arrays of a simulation, in order of their tasks."""
    with backend.database.reading() as connection:
        arrays = [Array(*row) for row in batch.list_arrays(connection, job.id)]
        if not arrays and job.array_id is not None:  # submitted by an earlier version
            return [Array(1, batch.count_tasks(connection, job.id), job.array_id)]
    return arrays


def count_tasks(backend: Backend, job: Job) -> int:
    """Return the number of tasks of a simulation."""
    with backend.database.reading() as connection:
        return batch.count_tasks(connection, job.id)


@retry_contended
def store_array(backend: Backend, job: Job, array: Array) -> None:
    """Store an array: before its submission without a number, after it with its number.

    Raises NotFound if the simulation was deleted or, before the submission, has ended.
    """
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        if simulation is None or (array.number is None and simulation.job_state in FINAL_STATES):
            raise NotFound(f"{job.job_id} has ended, or was deleted")
        batch.set_array(connection, job.id, array.first, array.size, array.number)
        if array.number is not None:
            batch.set_values(connection, job.id, {"array_id": array.number})


@retry_contended
def remove_array(backend: Backend, job: Job, array: Array) -> None:
    """Remove an array that the cluster did not accept; nothing happens if it is not stored."""
    with backend.database.writing() as connection:
        batch.set_array(connection, job.id, array.first, None, None)


@retry_contended
def claim_submission(backend: Backend, job: Job, folder: str) -> str | None:
    """Claim the submission of a simulation in `folder`; return its update key, or None if it must not be submitted."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        place = backend.spool.place
        if simulation is None or not batch.claim_submission(connection, job.id, place + DRIVER, place):
            return None
        batch.set_values(connection, job.id, {"job_dir": folder})
        return lifecycle.known_update_key(backend, connection, simulation)


def input_of(backend: Backend, job: Job) -> tuple[Mapping[str, str], list[tuple[int, int, int]]]:
    """Return the input files, and number, primaries and seed of each task of a simulation; raise NotFound."""
    with backend.database.reading() as connection:
        data = simulations.input_of(connection, job.id)
        shares = batch.list_shares(connection, job.id)
    return tasks.decode_input_files(data), shares


@retry_contended
def note_job(backend: Backend, job: Job, **values: Any) -> None:
    """Store values of a simulation's jobs: `job_dir`, `array_id`, `collect_id`, `queue_note`."""
    with backend.database.writing() as connection:
        batch.set_values(connection, job.id, values)


@retry_contended
def add_note(backend: Backend, job: Job, text: str) -> None:
    """Add a note to a simulation's history, once."""
    with backend.database.writing() as connection:
        if transitions.lock_simulation(connection, job.id) is not None and not batch.has_reason(
            connection, job.id, text
        ):
            transitions.add_audit_note(connection, job.id, Audit(DRIVER, utc_now(), text))


@retry_contended
def refuse_submission(backend: Backend, job: Job, reason: str) -> bool:
    """Mark a simulation that cannot be submitted as FAILED, unless some of its tasks may be on the cluster (False)."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        if simulation is None:
            return True
        if batch.has_arrays(connection, job.id):
            return False
        lifecycle.end_simulation(connection, simulation, EntityState.FAILED, Audit(DRIVER, utc_now(), reason))
        return True


@retry_contended
def claim_task(backend: Backend, job: Job, task_id: int, worker: str, version: str, digest: str) -> Claim | None:
    """Claim a task for a run on the cluster, which cannot ask for it itself; None if it must not run."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        if simulation is None:
            return None
        claimed = tasks.take_named(connection, simulation, task_id, backend.spool.place + worker)
        if claimed is not None:
            tasks.note_simulator(connection, job.id, version, digest)
        return claimed


@retry_contended
def end_task(
    backend: Backend, job: Job, task: Open, to: EntityState, reason: str, logs: Mapping[str, str] | None = None
) -> bool:
    """Move a task to its state on the cluster, unless it has reported in the meantime (False)."""
    unchanged = {"task_id": task.task_id, "owner": task.owner}
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        if simulation is None or simulation.job_state in FINAL_STATES:
            return False
        audit = Audit(DRIVER, utc_now(), reason)
        values = UNOWNED if to is EntityState.PENDING else {}
        if not transitions.move_tasks(connection, job.id, to, audit, values, task_state=task.task_state, **unchanged):
            return False
        if logs:
            with suppress(TooLarge):
                logfiles.keep_logfiles(backend, connection, job.id, codec.encode_payload(logs))
        lifecycle.settle_simulation(connection, simulation, audit)
        return True


def is_known(backend: Backend, job_id: str) -> bool:
    """Return whether a simulation has this job_id."""
    with backend.database.reading() as connection:
        return batch.is_known(connection, job_id)


def waiting_tasks(backend: Backend, job_id: str) -> str | None:
    """Return how many tasks of a simulation wait on its cluster, with the cluster's reason; None if none do."""
    with backend.database.reading() as connection:
        waiting = batch.waiting_tasks(connection, job_id)
    if waiting is None:
        return None
    note, count = waiting
    return f"{count} waiting" + (f": {note}" if note else "")

"""What is kept here of simulations on clusters, for `yaptide.platforms.batch.driver`, which has them run there."""

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

#: In the history: whoever talks to the clusters.
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
        """Whether nothing more will become of it."""
        return self.job_state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Open:
    """A task that has not ended."""

    task_id: int
    task_state: EntityState
    owner: str | None
    heartbeat_time: datetime | None


def list_unfinished(backend: Backend) -> list[Job]:
    """All simulations with something left to do on a cluster, in the order of submission."""
    with backend.database.reading() as connection:
        return [Job(*row) for row in batch.list_unfinished(connection, backend.spool.place)]


def open_tasks(backend: Backend, job: Job) -> list[Open]:
    """The tasks that have not ended, by number."""
    with backend.database.reading() as connection:
        return [Open(*row) for row in batch.open_tasks(connection, job.id)]


@retry_contended
def claim_submission(backend: Backend, job: Job, folder: str) -> str | None:
    """Begin to submit a simulation into `folder`; its update key, or None if it is not to be submitted (any more)."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        place = backend.spool.place
        if simulation is None or not batch.claim_submission(connection, job.id, place + DRIVER, place):
            return None
        batch.set_values(connection, job.id, {"job_dir": folder})
        return lifecycle.known_update_key(backend, connection, simulation)


def input_of(backend: Backend, job: Job) -> tuple[Mapping[str, str], list[tuple[int, int, int]]]:
    """Input files of a simulation, and number, primaries and seed of each of its tasks; raises NotFound."""
    with backend.database.reading() as connection:
        data = simulations.input_of(connection, job.id)
        shares = batch.list_shares(connection, job.id)
    if data is None:
        raise NotFound("The simulation was deleted")
    files: Mapping[str, str] = codec.decode_payload(data)["input_files"]
    return files, shares


@retry_contended
def note_job(backend: Backend, job: Job, **values: Any) -> None:
    """Keep what is known of a simulation's jobs: `job_dir`, `array_id`, `collect_id`, `queue_note`."""
    with backend.database.writing() as connection:
        batch.set_values(connection, job.id, values)


@retry_contended
def add_remark(backend: Backend, job: Job, text: str) -> None:
    """Say something in a simulation's history, once."""
    with backend.database.writing() as connection:
        if transitions.lock_simulation(connection, job.id) is not None and not batch.was_told(connection, job.id, text):
            transitions.add_audit_note(connection, job.id, Audit(DRIVER, utc_now(), text))


@retry_contended
def refuse_submission(backend: Backend, job: Job, reason: str) -> None:
    """End a simulation that cannot be submitted."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        if simulation is not None:
            lifecycle.end_simulation(connection, simulation, EntityState.FAILED, Audit(DRIVER, utc_now(), reason))


@retry_contended
def claim_task(backend: Backend, job: Job, task_id: int, worker: str, version: str, digest: str) -> Claim | None:
    """Claim a task for its run on the cluster, which could not ask for it itself; None if it is not to be run."""
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
    """Move a task to where its cluster says it is, unless it has been heard of meanwhile; False if so."""
    unchanged = {"task_id": task.task_id, "owner": task.owner}
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, job.id)
        if simulation is None or simulation.job_state in FINAL_STATES:
            return False
        cause = Audit(DRIVER, utc_now(), reason)
        values = UNOWNED if to is EntityState.PENDING else {}
        if not transitions.move_tasks(connection, job.id, to, cause, values, task_state=task.task_state, **unchanged):
            return False
        if logs:
            with suppress(TooLarge):
                logfiles.keep_logfiles(backend, connection, job.id, codec.encode_payload(logs))
        lifecycle.settle_simulation(connection, simulation, cause)
        return True


def is_known(backend: Backend, job_id: str) -> bool:
    """Whether there is a simulation of this public name."""
    with backend.database.reading() as connection:
        return batch.is_known(connection, job_id)


def waiting_tasks(backend: Backend, job_id: str) -> str | None:
    """How many tasks of a simulation wait on its cluster, and what that says of them; None if none does."""
    with backend.database.reading() as connection:
        found = batch.waiting_tasks(connection, job_id)
    if found is None:
        return None
    said, count = found
    return f"{count} waiting" + (f": {said}" if said else "")

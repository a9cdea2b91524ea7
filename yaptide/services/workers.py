"""Requests of remote workers, each with the update key of its simulation.

A worker chooses a random name for each run of a task and each merge. With the name of the staging area as a prefix,
which the server adds, it is the owner of its claim: repeating a request after a lost response returns the same claim.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from sqlalchemy import Connection

from yaptide.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from yaptide.domain.states import EntityState
from yaptide.persistence import task_outputs
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import simulations, tasks as queries, transitions
from yaptide.persistence.queries.transitions import Locked
from yaptide.services import lifecycle, merging, metrics, results_upload, tasks, uploads
from yaptide.services.backend import Backend, utc_now
from yaptide.services.tasks import Claim, Lease

_CHUNK = 1 << 20
NOT_AVAILABLE = "This task must not run: it has ended, another worker runs it, or its simulation has ended"


@dataclass(frozen=True, slots=True)
class Proof:
    """The simulation that a worker works on, and its update key."""

    simulation_id: int
    update_key: str


def check_key(backend: Backend, proof: Proof) -> None:
    """Raise InvalidInput unless the key is correct; called before a large body is read."""
    _find(backend, proof)


@retry_contended
def claim_task(
    backend: Backend, proof: Proof, task_id: int, worker: str, version: str, digest: str, *, with_input: bool = True
) -> tuple[Claim, Mapping[str, str]]:
    """Claim a task for a worker with this simulator version; return the claim, and the input files if requested.

    Raises InvalidInput for a wrong key, Conflict if the task must not run (any more).
    """
    owner = _owner(backend, worker)
    with backend.database.writing() as connection:
        simulation = _lock(backend, connection, proof)
        claimed = tasks.take_named(connection, simulation, task_id, owner)
        if claimed is None:
            raise Conflict(NOT_AVAILABLE)
        tasks.note_simulator(connection, simulation.id, version, digest)
        if not with_input:
            return claimed, {}
        data = simulations.input_of(connection, simulation.id)
    return claimed, tasks.decode_input_files(data)


def report_progress(backend: Backend, proof: Proof, lease: Lease, simulated: int, estimated: int | None) -> bool:
    """Record progress of a task; False if it must stop: canceled, deleted, requeued, or a wrong key."""
    return tasks.report_progress(backend, lease, simulated, estimated, proof.update_key)


def complete_task(backend: Backend, proof: Proof, lease: Lease, primaries: int, stream: IO[bytes]) -> bool:
    """Store the output of a finished task and end it; False, with the rest unread, if the lease was lost.

    Raises InvalidInput if it cannot be merged, StorageFull if the disk is full; the lease is then kept.
    """
    claimed, started = _find_claim(backend, proof, lease)
    if claimed is None:
        return False
    if not 1 <= primaries <= claimed.primaries:
        raise InvalidInput(f"The task has {claimed.primaries} primaries, not {primaries}")
    with (
        _exclusive(f"{claimed.job_id}/{lease.task_id}"),
        backend.spool.receive(claimed.job_id, claimed.task_id) as file,
    ):
        shutil.copyfileobj(stream, file, _CHUNK)
        file.flush()
        task_outputs.check_output(Path(file.name), backend.limits.output)
        logs = task_outputs.read_logs(Path(file.name))
    done = tasks.end_completed(backend, claimed, primaries, logs)
    if done:
        _observe(claimed, EntityState.COMPLETED, started)
    return done


def hand_in(backend: Backend, proof: Proof, lease: Lease, exit_code: int, archive: Path) -> bool:
    """Read the files that a simulator has written, and end its task; False if the lease was lost.

    Raises InvalidInput for an invalid archive, StorageFull if the disk is full; the lease is then kept.
    """
    claimed, started = _find_claim(backend, proof, lease)
    if claimed is None:
        return False
    with _exclusive(f"{claimed.job_id}/{lease.task_id}"):
        outcome = uploads.hand_in(backend, claimed, exit_code, archive)
    if outcome is not None:
        _observe(claimed, outcome, started)
    return outcome is not None


def fail_task(backend: Backend, proof: Proof, lease: Lease, reason: str, logs: Mapping[str, str]) -> bool:
    """Mark a task as FAILED; False if the lease was lost."""
    claimed, started = _find_claim(backend, proof, lease)
    done = claimed is not None and tasks.fail_task(backend, claimed, reason, logs)
    if claimed is not None and done:
        _observe(claimed, EntityState.FAILED, started)
    return done


def explain_cancel(backend: Backend, proof: Proof, lease: Lease, logs: Mapping[str, str]) -> None:
    """Store the log files of a task that was canceled while it ran."""
    check_key(backend, proof)
    tasks.explain_cancel(backend, lease, logs)


def give_back(backend: Backend, proof: Proof, lease: Lease, reason: str) -> bool:
    """Requeue a task; False if the lease was lost."""
    claimed, _ = _find_claim(backend, proof, lease)
    return claimed is not None and tasks.give_back(backend, claimed, reason)


@dataclass(frozen=True, slots=True)
class Merge:
    """A claimed merge: its owner, and the tasks (number, simulated primaries) to merge."""

    owner: str
    completed: list[tuple[int, int]]


@retry_contended
def claim_merge(backend: Backend, proof: Proof, worker: str) -> Merge:
    """Claim the merge of a simulation for a worker; raise InvalidInput, Conflict if there is nothing to merge."""
    owner = _owner(backend, worker)
    with backend.database.writing() as connection:
        simulation = _lock(backend, connection, proof)
        if not _is_merging(simulation, owner) and not (
            simulations.is_waiting_for_merge(connection, simulation.id, owner)
            and merging.take_merge(connection, simulation, owner)
        ):
            raise Conflict("Nothing to merge: it is done, another worker does it, or the simulation has ended")
        return Merge(owner, queries.list_completed(connection, simulation.id))


def fetch_output(backend: Backend, proof: Proof, task_id: int, folder: Path) -> Path:
    """Return the output of a task as a file, in `folder` if necessary; raise NotFound if it was lost."""
    path = backend.spool.fetch(_find(backend, proof).job_id, task_id, folder)
    if not path.is_file():
        raise NotFound("The output of this task was lost")
    return path


@retry_contended
def merge_heartbeat(backend: Backend, proof: Proof, owner: str) -> bool:
    """Record a heartbeat of a merge; False if the worker has lost it."""
    with backend.database.writing() as connection:
        simulation = _lock(backend, connection, proof)
        if not _is_merging(simulation, owner):
            return False
        simulations.beat_merges(connection, owner, [simulation.id], utc_now())
        return True


def store_merged(backend: Backend, proof: Proof, owner: str, file: IO[bytes]) -> bool:
    """Store merged results, whose payloads are checked and stored unchanged, and end the simulation.

    Returns False if the worker has lost the merge. Raises InvalidInput for results that cannot be displayed.
    """
    simulation = _find(backend, proof)
    if not _is_merging(simulation, owner):
        return False
    with _exclusive(simulation.job_id):
        merging.finish_merge(backend, simulation, owner, results_upload.read_file(file))
    return True


def merge_failed(backend: Backend, proof: Proof, owner: str, reason: str) -> bool:
    """Mark a simulation whose results cannot be merged as FAILED; False if the worker has lost the merge."""
    simulation = _find(backend, proof)
    if not _is_merging(simulation, owner):
        return False
    merging.finish_merge(backend, simulation, owner, [], f"the results could not be merged: {reason}")
    return True


_in_progress: set[str] = set()
_guard = threading.Lock()


@contextmanager
def _exclusive(name: str) -> Iterator[None]:
    """Allow a slow operation only once at a time: a worker may time out and repeat its request."""
    with _guard:
        if name in _in_progress:
            raise Unavailable("The same request is already being processed")
        _in_progress.add(name)
    try:
        yield
    finally:
        with _guard:
            _in_progress.discard(name)


def _owner(backend: Backend, worker: str) -> str:
    if "/" in worker or not 1 <= len(worker) <= 200:
        raise InvalidInput("A worker's name must have 1 to 200 characters, and no slash")
    return backend.spool.place + worker


def _find(backend: Backend, proof: Proof) -> Locked:
    """Return the simulation without a lock; raise InvalidInput for a wrong key."""
    with backend.database.reading() as connection:
        simulation = transitions.find_simulation(connection, proof.simulation_id)
    return lifecycle.check_update_key(backend, simulation, proof.update_key)


def _lock(backend: Backend, connection: Connection, proof: Proof) -> Locked:
    """Return the locked simulation; raise InvalidInput for a wrong key."""
    simulation = transitions.lock_simulation(connection, proof.simulation_id)
    return lifecycle.check_update_key(backend, simulation, proof.update_key)


def _observe(claimed: Claim, outcome: EntityState, started: datetime | None) -> None:
    metrics.observe_task(claimed.sim_type, outcome, (utc_now() - started).total_seconds() if started else 0.0)


def _find_claim(backend: Backend, proof: Proof, lease: Lease) -> tuple[Claim | None, datetime | None]:
    """Return the claim of a lease and its start time; None if it was lost. Raises InvalidInput."""
    simulation = _find(backend, proof)
    with backend.database.reading() as connection:
        row = queries.find_held(connection, simulation.id, lease.task_id)
        if row is None or (row.task_state, row.owner) != (EntityState.RUNNING, lease.owner):
            return None, None
        return tasks.claim_of(connection, simulation, lease.task_id, lease.owner), row.start_time


def _is_merging(simulation: Locked, owner: str) -> bool:
    return simulation.job_state is EntityState.MERGING_RUNNING and simulation.owner == owner

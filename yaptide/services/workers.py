"""What workers on other machines ask for, each time with the update key of the simulation they work on.

A worker draws a name for each run of a task and each merge. With the name of the spool before it, which the server
adds, it is the owner of what it claimed: asked again after a lost answer it gets the same claim again.
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
from yaptide.persistence import codec, task_outputs
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import simulations, tasks as queries, transitions
from yaptide.persistence.queries.transitions import Locked
from yaptide.services import lifecycle, merging, metrics, results, tasks, uploads
from yaptide.services.backend import Backend, utc_now
from yaptide.services.tasks import Claim, Lease

_CHUNK = 1 << 20
NOT_WANTED = "This task is not to be run: it has ended, somebody else runs it, or its simulation has ended"


@dataclass(frozen=True, slots=True)
class Proof:
    """Which simulation a worker works on, and its update key."""

    simulation_id: int
    update_key: str


def check_key(backend: Backend, proof: Proof) -> None:
    """Raise InvalidInput unless the key is right: asked before a large body is read."""
    _known(backend, proof)


@retry_contended
def claim_task(
    backend: Backend, proof: Proof, task_id: int, worker: str, version: str, digest: str, *, with_input: bool = True
) -> tuple[Claim, Mapping[str, str]]:
    """Have a worker run a task with its simulator of this version; what to run, and the input files if it wants them.

    Raises InvalidInput for a wrong key, Conflict if the task is not to be run (any more).
    """
    owner = _owner(backend, worker)
    with backend.database.writing() as connection:
        simulation = _proven(backend, connection, proof)
        claimed = tasks.take_named(connection, simulation, task_id, owner)
        if claimed is None:
            raise Conflict(NOT_WANTED)
        tasks.note_simulator(connection, simulation.id, version, digest)
        if not with_input:
            return claimed, {}
        data = simulations.input_of(connection, simulation.id)
    if data is None:
        raise NotFound("The simulation has no input")
    files: Mapping[str, str] = codec.decode_payload(data)["input_files"]
    return claimed, files


def report_progress(backend: Backend, proof: Proof, lease: Lease, simulated: int, estimated: int | None) -> bool:
    """Record how far a task is; False if it is to be stopped: canceled, deleted, taken away, or with a wrong key."""
    return tasks.report_progress(backend, lease, simulated, estimated, proof.update_key)


def complete_task(backend: Backend, proof: Proof, lease: Lease, primaries: int, stream: IO[bytes]) -> bool:
    """Take the scores of a finished task, and end it; False, and the rest unread, if they are not wanted any more.

    Raises InvalidInput if they cannot be merged, StorageFull, with the task still the worker's, if there is no room.
    """
    claimed, began = _held(backend, proof, lease)
    if claimed is None:
        return False
    if not 1 <= primaries <= claimed.primaries:
        raise InvalidInput(f"The task has {claimed.primaries} primaries, not {primaries}")
    with _alone(f"{claimed.job_id}/{lease.task_id}"), backend.spool.receive(claimed.job_id, claimed.task_id) as file:
        shutil.copyfileobj(stream, file, _CHUNK)
        file.flush()
        task_outputs.check_output(Path(file.name), backend.limits.output)
        logs = task_outputs.read_logs(Path(file.name))
    done = tasks.end_completed(backend, claimed, primaries, logs)
    if done:
        _count(claimed, EntityState.COMPLETED, began)
    return done


def hand_in(backend: Backend, proof: Proof, lease: Lease, exit_code: int, archive: Path) -> bool:
    """Take the files that a simulator has left, and end its task; False if it is not the worker's any more.

    Raises InvalidInput for an archive that cannot be one of them, StorageFull, with the task still the worker's.
    """
    claimed, began = _held(backend, proof, lease)
    if claimed is None:
        return False
    with _alone(f"{claimed.job_id}/{lease.task_id}"):
        outcome = uploads.hand_in(backend, claimed, exit_code, archive)
    if outcome is not None:
        _count(claimed, outcome, began)
    return outcome is not None


def fail_task(backend: Backend, proof: Proof, lease: Lease, reason: str, logs: Mapping[str, str]) -> bool:
    """End a task that failed; False if it is not the worker's any more."""
    claimed, began = _held(backend, proof, lease)
    done = claimed is not None and tasks.fail_task(backend, claimed, reason, logs)
    if claimed is not None and done:
        _count(claimed, EntityState.FAILED, began)
    return done


def explain_cancel(backend: Backend, proof: Proof, lease: Lease, logs: Mapping[str, str]) -> None:
    """Keep the log files of a task that was canceled while it ran."""
    check_key(backend, proof)
    tasks.explain_cancel(backend, lease, logs)


def give_back(backend: Backend, proof: Proof, lease: Lease, reason: str) -> bool:
    """Have others run a task; False if it is not the worker's any more."""
    claimed, _ = _held(backend, proof, lease)
    return claimed is not None and tasks.give_back(backend, claimed, reason)


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge that a worker has claimed: as whom, and the tasks (number, simulated primaries) to merge."""

    owner: str
    completed: list[tuple[int, int]]


@retry_contended
def claim_merge(backend: Backend, proof: Proof, worker: str) -> Merge:
    """Have a worker merge a simulation's results; raises InvalidInput, Conflict if there is nothing to merge."""
    owner = _owner(backend, worker)
    with backend.database.writing() as connection:
        simulation = _proven(backend, connection, proof)
        if not _is_merging(simulation, owner) and not (
            simulations.is_waiting_for_merge(connection, simulation.id, owner)
            and merging.take_merge(connection, simulation, owner)
        ):
            raise Conflict("There is nothing to merge: it is done, somebody else does it, or the simulation has ended")
        return Merge(owner, queries.list_completed(connection, simulation.id))


def fetch_output(backend: Backend, proof: Proof, task_id: int, aside: Path) -> Path:
    """The scores of a task, as a file, in the folder `aside` if need be; raises NotFound if they are lost."""
    path = backend.spool.fetch(_known(backend, proof).job_id, task_id, aside)
    if not path.is_file():
        raise NotFound("The scores of this task are lost")
    return path


@retry_contended
def merge_heartbeat(backend: Backend, proof: Proof, owner: str) -> bool:
    """Tell that a worker still merges; False if it is not its merge any more."""
    with backend.database.writing() as connection:
        simulation = _proven(backend, connection, proof)
        if not _is_merging(simulation, owner):
            return False
        simulations.beat_merges(connection, owner, [simulation.id], utc_now())
        return True


def store_merged(backend: Backend, proof: Proof, owner: str, file: IO[bytes]) -> bool:
    """Store merged results, whose payloads are checked and kept as they came, and end the simulation.

    False if it is not the worker's merge any more. Raises InvalidInput for results that cannot be shown.
    """
    simulation = _known(backend, proof)
    if not _is_merging(simulation, owner):
        return False
    with _alone(simulation.job_id):
        merging.finish_merge(backend, simulation, owner, results.read_file(file))
    return True


def merge_failed(backend: Backend, proof: Proof, owner: str, reason: str) -> bool:
    """End a simulation whose results cannot be merged; False if it is not the worker's merge any more."""
    simulation = _known(backend, proof)
    if not _is_merging(simulation, owner):
        return False
    merging.finish_merge(backend, simulation, owner, [], f"the results could not be merged: {reason}")
    return True


_under_way: set[str] = set()
_guard = threading.Lock()


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Do what takes long only once at a time: a worker may lose its patience and send the same again meanwhile."""
    with _guard:
        if name in _under_way:
            raise Unavailable("The same is being stored already")
        _under_way.add(name)
    try:
        yield
    finally:
        with _guard:
            _under_way.discard(name)


def _owner(backend: Backend, worker: str) -> str:
    if "/" in worker or not 1 <= len(worker) <= 200:
        raise InvalidInput("A worker's name has 1 to 200 characters, and no slash")
    return backend.spool.place + worker


def _known(backend: Backend, proof: Proof) -> Locked:
    """The simulation, not locked; raises InvalidInput for a wrong key."""
    with backend.database.reading() as connection:
        found = transitions.find_simulation(connection, proof.simulation_id)
    return lifecycle.check_update_key(backend, found, proof.update_key)


def _proven(backend: Backend, connection: Connection, proof: Proof) -> Locked:
    """The simulation, locked; raises InvalidInput for a wrong key."""
    found = transitions.lock_simulation(connection, proof.simulation_id)
    return lifecycle.check_update_key(backend, found, proof.update_key)


def _count(claimed: Claim, outcome: EntityState, began: datetime | None) -> None:
    metrics.observe_task(claimed.sim_type, outcome, (utc_now() - began).total_seconds() if began else 0.0)


def _held(backend: Backend, proof: Proof, lease: Lease) -> tuple[Claim | None, datetime | None]:
    """The claim that a worker speaks of, and when it began; None if it has lost it. Raises InvalidInput."""
    simulation = _known(backend, proof)
    with backend.database.reading() as connection:
        row = queries.find_held(connection, simulation.id, lease.task_id)
        if row is None or (row.task_state, row.owner) != (EntityState.RUNNING, lease.owner):
            return None, None
        return tasks.claim_of(connection, simulation, lease.task_id, lease.owner), row.start_time


def _is_merging(simulation: Locked, owner: str) -> bool:
    return simulation.job_state is EntityState.MERGING_RUNNING and simulation.owner == owner

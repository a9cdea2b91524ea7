"""Tasks: reports of workers, and how executors claim, follow and end tasks."""

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput, NotFound, TooLarge
from yaptide.domain.estimators import TaskOutput
from yaptide.domain.splitting import task_seeds
from yaptide.domain.states import FINAL_STATES, TASK_STATES, EntityState
from yaptide.persistence import codec, task_outputs
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.models.simulations import BATCH
from yaptide.persistence.queries import outbox, simulations, tasks, transitions
from yaptide.persistence.queries.tasks import Claim as Claim, Lease as Lease
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.platforms.batch.schedulers.base import RUN_NAME
from yaptide.services import lifecycle, logfiles
from yaptide.services.backend import Backend, utc_now
from yaptide.simulators.base import logs_of_task

#: Maximum number of times that a task is given back before it fails.
RETURNS = 100
_MOST_REASON = 200
_RUN_ON_CLUSTER = re.compile(f"/{RUN_NAME}$")
REQUEUED = "the cluster put it back into the queue"
#: Values of a task without a lease.
UNOWNED: Mapping[str, Any] = {"owner": None, "heartbeat_time": None}

_REPORTABLE = TASK_STATES - {EntityState.UNKNOWN, EntityState.PENDING}


@dataclass(frozen=True, slots=True)
class Update:
    """A worker's report about a task; None: not contained. `estimated_time` is the time left, seconds."""

    task_state: EntityState | None = None
    requested_primaries: int | None = None
    simulated_primaries: int | None = None
    estimated_time: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    celery_id: str | None = None

    def is_progress(self) -> bool:
        """Return whether it contains only the progress of a running task: by far the most frequent report."""
        rest = (self.requested_primaries, self.start_time, self.end_time, self.celery_id)
        running = self.task_state in (None, EntityState.RUNNING)
        return running and self.simulated_primaries is not None and all(value is None for value in rest)


@retry_contended
def report_task(backend: Backend, simulation_id: int, task_id: int, update_key: str, update: Update) -> EntityState:
    """Apply a worker's report about a task, and return the task's current state.

    Progress only increases, and times are set once. Outdated reports (a step back, anything after the end, anything
    about a leased task) are ignored without an error: reports arrive late and twice. Raises InvalidInput for a wrong
    key, an unknown task, or a state that a task cannot have.
    """
    if update.is_progress() and _progress(backend, simulation_id, task_id, update_key, update):
        return EntityState.RUNNING
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, simulation_id)
        simulation = lifecycle.check_update_key(backend, locked, update_key)
        task = tasks.find_task(connection, simulation.id, task_id)
        if task is None:
            raise InvalidInput("Task does not exist")
        _check_state(update)
        if task.task_state in FINAL_STATES or simulation.job_state in FINAL_STATES or task.owner is not None:
            return EntityState(task.task_state)
        _apply(connection, simulation, task, update)
        after = tasks.find_task(connection, simulation.id, task_id)
    return EntityState(task.task_state if after is None else after.task_state)


@retry_contended
def report_tasks(
    backend: Backend, simulation_id: int, update_key: str, updates: Mapping[int, Update]
) -> dict[int, EntityState]:
    """Apply a worker's reports about many tasks of a simulation, by number; return the current state of each.

    Each is applied or ignored as in `report_task`; all are committed together. Raises InvalidInput, with nothing
    changed, for a wrong key, or if a task is unknown or its state is one that a task cannot have.
    """
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, simulation_id)
        simulation = lifecycle.check_update_key(backend, locked, update_key)
        states, leased = tasks.states_and_leases(connection, simulation.id)
        unknown = updates.keys() - states.keys()
        if unknown:
            raise InvalidInput(f"Task {min(unknown)} does not exist")
        for update in updates.values():
            _check_state(update)
        free = {number: update for number, update in updates.items() if number not in leased}
        if simulation.job_state not in FINAL_STATES and _apply_all(connection, simulation, states, free):
            states = tasks.state_of_each(connection, simulation.id)
    return {number: states[number] for number in updates}


def _apply_all(
    connection: Connection, simulation: Locked, states: Mapping[int, EntityState], updates: Mapping[int, Update]
) -> bool:
    """Apply progress of running tasks in one statement, other reports one by one; ignore ended tasks.

    Returns whether states may have changed.
    """
    progress, rest = [], []
    for number, update in updates.items():
        if states[number] is EntityState.RUNNING and update.is_progress():
            progress.append((number, update.simulated_primaries or 0, update.estimated_time))
        elif states[number] not in FINAL_STATES:
            rest.append((number, update))
    tasks.progress_of_many(connection, simulation.id, progress, utc_now())
    for number, update in rest:
        _apply(connection, simulation, tasks.find_task(connection, simulation.id, number), update)
    return bool(rest)


def _check_state(update: Update) -> None:
    if update.task_state is not None and update.task_state not in TASK_STATES:
        raise InvalidInput(f"A task cannot be {update.task_state}")


def _progress(backend: Backend, simulation_id: int, task_id: int, update_key: str, update: Update) -> bool:
    time = utc_now()
    with backend.database.autocommit() as connection:
        return tasks.progress_by_key(
            connection,
            simulation=simulation_id,
            task=task_id,
            key=lifecycle.hash_update_key(update_key),
            simulated=update.simulated_primaries or 0,
            estimated=update.estimated_time,
            now=time,
        )


def _apply(connection: Connection, simulation: Locked, task: Any, update: Update) -> None:
    """Set the reported values, then move the task to the reported state, then settle the simulation."""
    values = _values(task, update)
    primaries = (update.requested_primaries, update.simulated_primaries)
    tasks.set_values(connection, simulation.id, task.task_id, values, *primaries)
    if update.celery_id is not None:
        tasks.set_celery_id(connection, simulation.id, task.task_id, update.celery_id)
    if update.task_state in _REPORTABLE and update.task_state is not task.task_state:
        audit = Audit(lifecycle.WORKER, values["last_update_time"])
        end = _end_time(values.get("start_time", task.start_time), update)
        transitions.move_tasks(
            connection, simulation.id, EntityState(update.task_state), audit, end, task_id=task.task_id
        )
        lifecycle.settle_simulation(connection, simulation, audit)


def _end_time(start: datetime | None, update: Update) -> dict[str, Any]:
    if update.end_time is None or update.task_state not in FINAL_STATES:
        return {}
    return {"end_time": max(update.end_time, start or update.end_time)}


def _values(task: Any, update: Update) -> dict[str, Any]:
    values: dict[str, Any] = {"last_update_time": utc_now()}
    if update.estimated_time is not None:
        values["estimated_time"] = update.estimated_time
    # If a task completed before it was reported as running, only its end is known, by the worker's clock.
    start = update.start_time or (update.end_time if update.task_state is EntityState.COMPLETED else None)
    if start is not None and task.start_time is None:
        values["start_time"] = start
    return values


def claim_task(backend: Backend, executor: str, sim_types: Sequence[str]) -> Claim | None:
    """Claim the task that has waited longest and needs one of these simulators; None if there is none.

    The lease lasts until the task ends, or until it stalls (`requeue_stalled`). Its owner is named after the executor,
    with a random part, so that late reports about a run that was given back do not affect the next run.
    """
    owner = f"{executor}-{secrets.token_hex(8)}"
    while True:
        with backend.database.reading() as connection:
            pending = tasks.next_pending(connection, owner, sim_types)
        if pending is None:
            return None
        with backend.database.writing() as connection:
            claimed = take_task(connection, owner, pending.simulation_id, pending.task_id)
        if claimed is not None:
            return claimed


def take_task(connection: Connection, owner: str, simulation_id: int, task_id: int) -> Claim | None:
    """Claim a task for `owner` in the current transaction; None if it does not wait, or not for `owner`."""
    simulation = transitions.lock_simulation(connection, simulation_id)
    if simulation is None or simulation.job_state in FINAL_STATES:
        return None
    if tasks.is_run_elsewhere(connection, simulation_id, owner):
        return None
    audit = Audit(owner, utc_now())
    pending = {"task_id": task_id, "task_state": EntityState.PENDING}
    values = {"owner": owner, "heartbeat_time": audit.time, "attempts": tasks.ONE_MORE_ATTEMPT}
    if not transitions.move_tasks(connection, simulation.id, EntityState.RUNNING, audit, values, **pending):
        return None
    lifecycle.settle_simulation(connection, simulation, audit)
    return claim_of(connection, simulation, task_id, owner)


def take_named(connection: Connection, simulation: Locked, task_id: int, owner: str) -> Claim | None:
    """Claim a task of a locked simulation for a worker; None if `owner` must not run it.

    Repeating a claim returns the same claim. On a cluster, a requeued task passes to its next run.
    """
    row = tasks.find_held(connection, simulation.id, task_id)
    if row is not None and row.task_state is EntityState.RUNNING:
        if row.owner == owner:
            return claim_of(connection, simulation, task_id, owner)
        if simulation.platform == BATCH and is_next_run(row.owner or "", owner):
            audit = Audit(owner, utc_now(), REQUEUED)
            transitions.move_tasks(connection, simulation.id, EntityState.PENDING, audit, UNOWNED, task_id=task_id)
    return take_task(connection, owner, simulation.id, task_id)


def is_next_run(before: str, owner: str) -> bool:
    """Return whether `owner` is a later run of the same task of the same cluster job as `before`."""
    one, other = _RUN_ON_CLUSTER.search(before), _RUN_ON_CLUSTER.search(owner)
    return one is not None and other is not None and one[1] == other[1] and int(one[2]) < int(other[2])


def claim_of(connection: Connection, simulation: Locked, task_id: int, owner: str) -> Claim:
    """Return the claim of `owner` on a task."""
    primaries, seed, attempt = tasks.find_claimed(connection, simulation.id, task_id)
    if seed is None:  # not submitted here: with one seed for all tasks, they would simulate the same histories
        seed = task_seeds(simulation.id, task_id + 1)[task_id]
    return Claim(simulation.id, task_id, owner, simulation.job_id, simulation.sim_type, primaries, seed, attempt)


def input_files(backend: Backend, claimed: Claim) -> dict[str, str]:
    """Return the input files of a claimed task; raise NotFound if the simulation was deleted."""
    with backend.database.reading() as connection:
        data = simulations.input_of(connection, claimed.simulation_id)
    return decode_input_files(data)


def decode_input_files(data: bytes | None) -> dict[str, str]:
    """Return the input files in a stored input; raise NotFound if there is none."""
    if data is None:
        raise NotFound("The simulation was deleted")
    files: dict[str, str] = codec.decode_payload(data)["input_files"]
    return files


@retry_contended
def note_begin(backend: Backend, claimed: Claim, version: str, digest: str) -> None:
    """Record the simulator that runs a simulation."""
    with backend.database.writing() as connection:
        note_simulator(connection, claimed.simulation_id, version, digest)


def note_simulator(connection: Connection, simulation_id: int, version: str, digest: str) -> None:
    """Record the simulator that runs a simulation in the current transaction."""
    values = {"simulator_version": version, "simulator_digest": digest}
    simulations.set_values(connection, simulation_id, values)


def report_progress(
    backend: Backend, lease: Lease, simulated: int, estimated: int | None, key: str | None = None
) -> bool:
    """Record progress of a leased task; False if the lease is lost (canceled, deleted, requeued).

    Remote workers must also present the update key.
    """
    time = utc_now()
    proof = key and {"key": lifecycle.hash_update_key(key)}
    with backend.database.autocommit() as connection:
        return tasks.progress_by_owner(connection, lease, simulated, estimated, time, proof or None)


def complete_task(backend: Backend, claimed: Claim, output: TaskOutput, *, is_foreign: bool = False) -> bool:
    """Store the output of a claimed task in the staging area and end it; False if the lease was lost.

    Raises InvalidInput if output that `is_foreign` cannot be merged: it is checked like that of external workers.
    """
    with backend.spool.receive(claimed.job_id, claimed.task_id) as file:
        task_outputs.write_output(file, output)
        if is_foreign:
            file.flush()
            task_outputs.check_output(Path(file.name), backend.limits.output)
    return end_completed(backend, claimed, output.primaries, output.logs)


def end_completed(backend: Backend, claimed: Claim, primaries: int, logs: Mapping[str, str]) -> bool:
    """End a claimed task whose output, of `primaries` primaries, is in the staging area; False if the lease is lost."""
    payload = codec.encode_payload(logs_of_task(claimed.task_id, logs)) if logs else None
    if _end(backend, claimed, EntityState.COMPLETED, None, {"simulated_primaries": primaries}, payload):
        return True
    with backend.database.reading() as connection:
        if not simulations.states_by_job(connection, [claimed.job_id]):
            backend.spool.remove(claimed.job_id)  # it was deleted in the meantime
    return False


def fail_task(backend: Backend, claimed: Claim, reason: str, logs: Mapping[str, str]) -> bool:
    """Mark a claimed task as FAILED for `reason`, and store its log files if there is space."""
    return _end(backend, claimed, EntityState.FAILED, reason, {}, codec.encode_payload(logs) if logs else None)


def give_back(backend: Backend, claimed: Claim, reason: str) -> bool:
    """Requeue a claimed task that was stopped through no fault of its own."""
    values = {"owner": None, "heartbeat_time": None, "attempts": tasks.ONE_ATTEMPT_LESS}
    with backend.database.reading() as connection:
        returns = simulations.count_transitions(connection, claimed.simulation_id, EntityState.PENDING, claimed.task_id)
    if returns >= RETURNS:
        return _end(backend, claimed, EntityState.FAILED, f"it was given back {returns} times", {})
    return _end(backend, claimed, EntityState.PENDING, reason[:_MOST_REASON], values)


@retry_contended
def _end(
    backend: Backend,
    claimed: Claim,
    to: EntityState,
    reason: str | None,
    values: Mapping[str, Any],
    logs: codec.Payload | None = None,
) -> bool:
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, claimed.simulation_id)
        if simulation is None:
            return False
        audit = Audit(claimed.owner, utc_now(), reason)
        leased = {"task_id": claimed.task_id, "owner": claimed.owner}
        if logs is not None and to is not EntityState.COMPLETED:
            with suppress(TooLarge):  # the failure must be recorded even without space for more logs
                logfiles.keep_logfiles(backend, connection, simulation.id, logs)
        if not transitions.move_tasks(connection, simulation.id, to, audit, values, **leased):
            return False
        if logs is not None and to is EntityState.COMPLETED:
            logfiles.keep_success_logs(backend, connection, simulation, logs)
        if to is EntityState.PENDING:
            outbox.forget_sent(connection, simulation.id, [claimed.task_id])
        lifecycle.settle_simulation(connection, simulation, audit)
        return True


def explain_cancel(backend: Backend, lease: Lease, logs: Mapping[str, str]) -> None:
    """Store the log files of a task that was canceled while it ran, if there is space."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, lease.simulation_id)
        task = None if simulation is None else tasks.find_task(connection, simulation.id, lease.task_id)
        if simulation is not None and task is not None and task.task_state is EntityState.CANCELED:
            with suppress(TooLarge):
                logfiles.keep_logfiles(backend, connection, simulation.id, codec.encode_payload(logs))


@retry_contended
def beat_leases(backend: Backend, owner: str, leases: Sequence[Lease], merges: Sequence[int]) -> None:
    """Record a heartbeat for these leases, and for these merges of an owner."""
    if leases or merges:
        with backend.database.writing() as connection:
            simulations.beat_merges(connection, owner, merges, utc_now())  # simulations before tasks: no deadlocks
            tasks.beat_leases(connection, leases, utc_now())

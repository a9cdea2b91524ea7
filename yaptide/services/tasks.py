"""Tasks: what workers report of them, and how an executor of ours claims, follows and ends them."""

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
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
from yaptide.services import lifecycle, logfiles
from yaptide.services.backend import Backend, utc_now
from yaptide.simulators.base import logs_of_task

#: How often a task is given back before whoever runs it counts as unable to.
RETURNS = 100
_MOST_REASON = 200
#: How tasks of a cluster's array are called as workers: number of the job, of the task, and how often it was requeued.
_RUN_ON_CLUSTER = re.compile(r"/(slurm-[0-9]+_[0-9]+)-([0-9]{1,9})$")
REQUEUED = "the cluster put it back into the queue"
#: Values of a task that nobody runs.
UNOWNED: Mapping[str, Any] = {"owner": None, "heartbeat_time": None}

_REPORTABLE = TASK_STATES - {EntityState.UNKNOWN, EntityState.PENDING}


@dataclass(frozen=True, slots=True)
class Update:
    """What a worker says of a task; None where it says nothing. `estimated_time` is the time left, seconds."""

    task_state: EntityState | None = None
    requested_primaries: int | None = None
    simulated_primaries: int | None = None
    estimated_time: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    celery_id: str | None = None

    def is_progress(self) -> bool:
        """Whether it tells of a running task how far it is and nothing else: by far the most frequent report."""
        rest = (self.requested_primaries, self.start_time, self.end_time, self.celery_id)
        running = self.task_state in (None, EntityState.RUNNING)
        return running and self.simulated_primaries is not None and all(value is None for value in rest)


@retry_contended
def report_task(backend: Backend, simulation_id: int, task_id: int, update_key: str, update: Update) -> EntityState:
    """Take a worker's word on a task, and return the state the task is in now.

    Progress only grows, times are set once, and what does not fit any more (a step back, anything after the end,
    anything about a task that somebody of ours runs) is not taken, without an error: reports arrive late and twice.
    Raises InvalidInput for a wrong key, an unknown task, or a state that no task has.
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
    """Take a worker's word on many tasks of one simulation, by number; returns the state each of them is in now.

    Each is taken or not as `report_task` does it; all of them are committed together. Raises InvalidInput, with nothing
    changed, for a wrong key, and if one of the tasks is unknown or is said to be in a state that no task has.
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
        if simulation.job_state not in FINAL_STATES and _take_all(connection, simulation, states, free):
            states = tasks.state_of_each(connection, simulation.id)
    return {number: states[number] for number in updates}


def _take_all(
    connection: Connection, simulation: Locked, states: Mapping[int, EntityState], updates: Mapping[int, Update]
) -> bool:
    """What is progress of a running task in one go, the rest one after the other; what has ended stays as it is.

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
    """Set what the report says, then move the task where it says, then the simulation where its tasks ask for."""
    values = _values(task, update)
    primaries = (update.requested_primaries, update.simulated_primaries)
    tasks.set_values(connection, simulation.id, task.task_id, values, *primaries)
    if update.celery_id is not None:
        tasks.set_celery_id(connection, simulation.id, task.task_id, update.celery_id)
    if update.task_state in _REPORTABLE and update.task_state is not task.task_state:
        cause = Audit(lifecycle.WORKER, values["last_update_time"])
        end = _end_time(values.get("start_time", task.start_time), update)
        transitions.move_tasks(
            connection, simulation.id, EntityState(update.task_state), cause, end, task_id=task.task_id
        )
        lifecycle.settle_simulation(connection, simulation, cause)


def _end_time(start: datetime | None, update: Update) -> dict[str, Any]:
    if update.end_time is None or update.task_state not in FINAL_STATES:
        return {}
    return {"end_time": max(update.end_time, start or update.end_time)}


def _values(task: Any, update: Update) -> dict[str, Any]:
    values: dict[str, Any] = {"last_update_time": utc_now()}
    if update.estimated_time is not None:
        values["estimated_time"] = update.estimated_time
    # Of a task that completed before it was known to run, only the end is known, by the worker's own clock.
    start = update.start_time or (update.end_time if update.task_state is EntityState.COMPLETED else None)
    if start is not None and task.start_time is None:
        values["start_time"] = start
    return values


def claim_task(backend: Backend, executor: str, sim_types: Sequence[str]) -> Claim | None:
    """Take the task that has waited longest and needs one of these simulators; None if there is none.

    The lease is the claim's until the task ends, or until nothing was heard of it for too long (`requeue_silent`). Its
    owner is named after the executor, and drawn anew: what is still said of a run that was given back is not the next
    one's.
    """
    owner = f"{executor}-{secrets.token_hex(8)}"
    while True:
        with backend.database.reading() as connection:
            found = tasks.next_pending(connection, owner, sim_types)
        if found is None:
            return None
        with backend.database.writing() as connection:
            taken = take_task(connection, owner, found.simulation_id, found.task_id)
        if taken is not None:
            return taken


def take_task(connection: Connection, owner: str, simulation_id: int, task_id: int) -> Claim | None:
    """Claim a task for `owner` in the running transaction; None if it does not wait, or not for `owner`."""
    simulation = transitions.lock_simulation(connection, simulation_id)
    if simulation is None or simulation.job_state in FINAL_STATES:
        return None
    if tasks.is_run_elsewhere(connection, simulation_id, owner):
        return None
    cause = Audit(owner, utc_now())
    pending = {"task_id": task_id, "task_state": EntityState.PENDING}
    values = {"owner": owner, "heartbeat_time": cause.time, "attempts": tasks.ONE_MORE_ATTEMPT}
    if not transitions.move_tasks(connection, simulation.id, EntityState.RUNNING, cause, values, **pending):
        return None
    lifecycle.settle_simulation(connection, simulation, cause)
    return claim_of(connection, simulation, task_id, owner)


def take_named(connection: Connection, simulation: Locked, task_id: int, owner: str) -> Claim | None:
    """Claim a task of a locked simulation for a worker that asks for it; None if it is not to be run by `owner`.

    Asked again, it gets the same claim again. On a cluster, a task that was put back into the queue is its next run's.
    """
    row = tasks.find_held(connection, simulation.id, task_id)
    if row is not None and row.task_state is EntityState.RUNNING:
        if row.owner == owner:
            return claim_of(connection, simulation, task_id, owner)
        if simulation.platform == BATCH and is_next_run(row.owner or "", owner):
            cause = Audit(owner, utc_now(), REQUEUED)
            transitions.move_tasks(connection, simulation.id, EntityState.PENDING, cause, UNOWNED, task_id=task_id)
    return take_task(connection, owner, simulation.id, task_id)


def is_next_run(before: str, owner: str) -> bool:
    """Whether `owner` is a later run of the same task of the same job of a cluster as `before`."""
    one, other = _RUN_ON_CLUSTER.search(before), _RUN_ON_CLUSTER.search(owner)
    return one is not None and other is not None and one[1] == other[1] and int(one[2]) < int(other[2])


def claim_of(connection: Connection, simulation: Locked, task_id: int, owner: str) -> Claim:
    """The claim that `owner` has on a task."""
    primaries, seed, attempt = tasks.find_claimed(connection, simulation.id, task_id)
    if seed is None:  # not submitted here: tasks with one seed for all would count the same histories again and again
        seed = task_seeds(simulation.id, task_id + 1)[task_id]
    return Claim(simulation.id, task_id, owner, simulation.job_id, simulation.sim_type, primaries, seed, attempt)


def input_files(backend: Backend, claimed: Claim) -> dict[str, str]:
    """The input files of a claimed task; raises NotFound if the simulation is gone."""
    with backend.database.reading() as connection:
        data = simulations.input_of(connection, claimed.simulation_id)
    if data is None:
        raise NotFound("The simulation was deleted")
    files: dict[str, str] = codec.decode_payload(data)["input_files"]
    return files


@retry_contended
def note_begin(backend: Backend, claimed: Claim, version: str, digest: str) -> None:
    """Note with which simulator a simulation is run."""
    with backend.database.writing() as connection:
        note_simulator(connection, claimed.simulation_id, version, digest)


def note_simulator(connection: Connection, simulation_id: int, version: str, digest: str) -> None:
    """Note in the running transaction with which simulator a simulation is run."""
    values = {"simulator_version": version, "simulator_digest": digest}
    simulations.set_values(connection, simulation_id, values)


def report_progress(
    backend: Backend, lease: Lease, simulated: int, estimated: int | None, key: str | None = None
) -> bool:
    """Record how far a leased task is; False if it is not the owner's any more (canceled, deleted, taken away).

    An owner that is not a part of this program proves by the update key that it may report.
    """
    time = utc_now()
    proof = key and {"key": lifecycle.hash_update_key(key)}
    with backend.database.autocommit() as connection:
        return tasks.progress_by_owner(connection, lease, simulated, estimated, time, proof or None)


def complete_task(backend: Backend, claimed: Claim, output: TaskOutput) -> bool:
    """Leave a claimed task's scores in the spool and end it; False if it was not the owner's any more."""
    with backend.spool.receive(claimed.job_id, claimed.task_id) as file:
        task_outputs.write_output(file, output)
    return end_completed(backend, claimed, output.primaries, output.logs)


def end_completed(backend: Backend, claimed: Claim, primaries: int, logs: Mapping[str, str]) -> bool:
    """End a claimed task whose scores, over so many primaries, are in the spool; False if it was not the owner's."""
    kept = codec.encode_payload(logs_of_task(claimed.task_id, logs)) if logs else None
    if _end(backend, claimed, EntityState.COMPLETED, None, {"simulated_primaries": primaries}, kept):
        return True
    with backend.database.reading() as connection:
        if not simulations.states_by_job(connection, [claimed.job_id]):
            backend.spool.remove(claimed.job_id)  # it was deleted meanwhile
    return False


def fail_task(backend: Backend, claimed: Claim, reason: str, logs: Mapping[str, str]) -> bool:
    """End a claimed task that failed, keeping the reason, and its log files as long as there is room for them."""
    return _end(backend, claimed, EntityState.FAILED, reason, {}, codec.encode_payload(logs) if logs else None)


def give_back(backend: Backend, claimed: Claim, reason: str) -> bool:
    """Let others run a claimed task that was stopped through no fault of its own."""
    values = {"owner": None, "heartbeat_time": None, "attempts": tasks.ONE_ATTEMPT_LESS}
    with backend.database.reading() as connection:
        returns = simulations.times_moved(connection, claimed.simulation_id, EntityState.PENDING, claimed.task_id)
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
        cause = Audit(claimed.owner, utc_now(), reason)
        mine = {"task_id": claimed.task_id, "owner": claimed.owner}
        if logs is not None and to is not EntityState.COMPLETED:
            with suppress(TooLarge):  # that it failed, and why, has to be told though there is no room for more logs
                logfiles.keep_logfiles(backend, connection, simulation.id, logs)
        if not transitions.move_tasks(connection, simulation.id, to, cause, values, **mine):
            return False
        if logs is not None and to is EntityState.COMPLETED:
            logfiles.keep_of_success(backend, connection, simulation, logs)
        if to is EntityState.PENDING:
            outbox.forget_sent(connection, simulation.id, [claimed.task_id])
        lifecycle.settle_simulation(connection, simulation, cause)
        return True


def explain_cancel(backend: Backend, lease: Lease, logs: Mapping[str, str]) -> None:
    """Keep the log files of a task that was canceled while it ran, as long as there is room for them."""
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, lease.simulation_id)
        task = None if simulation is None else tasks.find_task(connection, simulation.id, lease.task_id)
        if simulation is not None and task is not None and task.task_state is EntityState.CANCELED:
            with suppress(TooLarge):
                logfiles.keep_logfiles(backend, connection, simulation.id, codec.encode_payload(logs))


@retry_contended
def beat_leases(backend: Backend, owner: str, leases: Sequence[Lease], merges: Sequence[int]) -> None:
    """Tell that these leases, and the merges of an owner, are worked on, so that nobody takes them away."""
    if leases or merges:
        with backend.database.writing() as connection:
            simulations.beat_merges(connection, owner, merges, utc_now())  # simulations before tasks, as everywhere
            tasks.beat_leases(connection, leases, utc_now())

"""Transitions: the only module that changes the state of a simulation or a task.

A transition is an UPDATE guarded by the transition table, and adds a row to the history in the same transaction. The
caller holds the lock on the simulation (`lock_simulation`), so that transitions of its tasks and the state derived from
them are serialised, and deadlocks are impossible.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, insert, literal, select, update

from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_TRANSITIONS, EntityState, source_states
from yaptide.persistence.models.tables import HISTORY, SIMULATION, TASK

#: In the `values` of a transition of tasks: keep the simulated primaries as reported.
PRIMARIES_AS_REPORTED: Mapping[str, Any] = {"simulated_primaries": TASK.c.simulated_primaries}


@dataclass(frozen=True, slots=True)
class Audit:
    """Actor, time and reason of a transition, for the history."""

    actor: str
    time: datetime
    reason: str | None = None


class Locked(NamedTuple):
    """A simulation whose row is locked: its state cannot change until the transaction ends."""

    id: int
    job_id: str
    user_id: int
    job_state: EntityState
    platform: str
    sim_type: str
    input_type: str
    update_key_hash: str | None
    start_time: datetime
    end_time: datetime | None
    owner: str | None


_COLUMNS = select(*(SIMULATION.c[name] for name in Locked._fields))
_FIND = _COLUMNS.where(SIMULATION.c.id == bindparam("key"))
_LOCK = _FIND.with_for_update()
_LOCK_JOB = _COLUMNS.where(SIMULATION.c.job_id == bindparam("key")).with_for_update()


def _find_one(connection: Connection, query: Select[*tuple[Any, ...]], key: int | str) -> Locked | None:
    row = connection.execute(query, {"key": key}).first()
    return None if row is None else Locked(*row)


def find_simulation(connection: Connection, simulation_id: int) -> Locked | None:
    """Return the simulation with this id, without a lock: its state may change at any time."""
    return _find_one(connection, _FIND, simulation_id)


def lock_simulation(connection: Connection, simulation_id: int) -> Locked | None:
    """Lock the simulation with this id; None if it does not exist."""
    return _find_one(connection, _LOCK, simulation_id)


def lock_job(connection: Connection, job_id: str) -> Locked | None:
    """Lock the simulation with this job_id; None if it does not exist."""
    return _find_one(connection, _LOCK_JOB, job_id)


def begin_history(connection: Connection, simulation_id: int, state: EntityState, audit: Audit) -> None:
    """Begin the history of a new simulation (with the reason) and of its tasks."""
    values = {"simulation_id": simulation_id, "state": state, "now": audit.time, "by": audit.actor}
    connection.execute(_MADE, {**values, "why": audit.reason})


def add_audit_note(connection: Connection, simulation_id: int, audit: Audit) -> None:
    """Add a note to the history of a simulation without a transition: a row with the same state twice."""
    state = SIMULATION.c.job_state
    note = select(SIMULATION.c.id, literal(None), state, state, *_audit_columns(audit))
    row = SIMULATION.c.id == simulation_id
    connection.execute(insert(HISTORY).from_select(_HISTORY_COLUMNS, note.where(row)))


def move_simulation(
    connection: Connection, simulation_id: int, to: EntityState, audit: Audit, values: Mapping[str, Any] | None = None
) -> bool:
    """Move a simulation to `to` and set `values`; return False and change nothing if the transition is not allowed."""
    allowed = source_states(SIMULATION_TRANSITIONS, to)
    condition = (SIMULATION.c.id == simulation_id) & SIMULATION.c.job_state.in_(allowed)
    before = select(SIMULATION.c.id, literal(None), SIMULATION.c.job_state, *_history(audit, to)).where(condition)
    connection.execute(insert(HISTORY).from_select(_HISTORY_COLUMNS, before.with_for_update()))
    changes: dict[str, Any] = {"job_state": to}
    if to in FINAL_STATES:
        changes |= {"end_time": _not_before(SIMULATION.c.start_time, audit.time), "owner": None}
    changes |= values or {}
    return connection.execute(update(SIMULATION).where(condition).values(changes)).rowcount == 1


def move_tasks(
    connection: Connection,
    simulation_id: int,
    to: EntityState,
    audit: Audit,
    values: Mapping[str, Any] | None = None,
    **only: Any,
) -> int:
    """Move tasks of a simulation to `to`, set `values`, and return how many were moved.

    Affects the tasks whose columns equal `only` and from whose state `to` is allowed. A task that becomes COMPLETED has
    simulated what was requested, unless `values` says otherwise.
    """
    condition = (TASK.c.simulation_id == simulation_id) & TASK.c.task_state.in_(source_states(TASK_TRANSITIONS, to))
    for name, value in only.items():
        condition &= TASK.c[name] == value
    before = select(TASK.c.simulation_id, TASK.c.task_id, TASK.c.task_state, *_history(audit, to)).where(condition)
    connection.execute(insert(HISTORY).from_select(_HISTORY_COLUMNS, before.with_for_update()))
    changes = _task_changes(to, audit.time) | dict(values or {})
    return connection.execute(update(TASK).where(condition).values(changes)).rowcount


def _task_changes(to: EntityState, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"task_state": to, "last_update_time": now}
    if to is EntityState.RUNNING or to is EntityState.COMPLETED:
        changes["start_time"] = func.coalesce(TASK.c.start_time, now)
    if to is EntityState.COMPLETED:
        changes["simulated_primaries"] = TASK.c.requested_primaries
    if to in FINAL_STATES:
        changes["end_time"] = _not_before(TASK.c.start_time, now)
    if to is not EntityState.RUNNING:
        changes["estimated_time"] = None
    return changes


def _not_before(start: ColumnElement[Any], end: datetime) -> ColumnElement[Any]:
    """Return `end`, but never before `start`: clocks of different machines disagree."""
    return case((start > end, start), else_=literal(end, start.type))


_HISTORY_COLUMNS = ("simulation_id", "task_id", "from_state", "to_state", "time", "actor", "reason")


def _history(audit: Audit, to: EntityState) -> tuple[ColumnElement[Any], ...]:
    return (literal(to, HISTORY.c.to_state.type), *_audit_columns(audit))


_BEGIN = (
    literal(None),
    bindparam("state", type_=HISTORY.c.to_state.type),
    bindparam("now", type_=HISTORY.c.time.type),
    bindparam("by", type_=HISTORY.c.actor.type),
)
_WHY = bindparam("why", type_=HISTORY.c.reason.type)
_SIMULATION_ID = bindparam("simulation_id", type_=TASK.c.simulation_id.type)
_MADE = insert(HISTORY).from_select(
    _HISTORY_COLUMNS,
    select(_SIMULATION_ID, literal(None), *_BEGIN, _WHY).union_all(
        select(TASK.c.simulation_id, TASK.c.task_id, *_BEGIN, literal(None)).where(
            TASK.c.simulation_id == _SIMULATION_ID
        )
    ),
)


def _audit_columns(audit: Audit) -> tuple[ColumnElement[Any], ...]:
    columns = HISTORY.c
    return (
        literal(audit.time, columns.time.type),
        literal(audit.actor, columns.actor.type),
        literal(audit.reason, columns.reason.type),
    )

"""The one place where a simulation or a task changes its state.

A move is an UPDATE guarded by the transition table, and leaves a row in the history in the same transaction. Whoever
moves anything of a simulation holds the lock on that simulation (`lock_simulation`), so that moves of its tasks and the
state derived from them cannot overtake each other, and nobody waits in a circle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, insert, literal, select, update

from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_TRANSITIONS, EntityState, source_states
from yaptide.persistence.models import SimulationModel, StateHistoryModel, TaskModel
from yaptide.persistence.models.base import table_of

_SIMULATION = table_of(SimulationModel)
_TASK = table_of(TaskModel)
_HISTORY = table_of(StateHistoryModel)

#: Among the values of a move of tasks: what they have simulated stays what they have reported.
PRIMARIES_AS_REPORTED: Mapping[str, Any] = {"simulated_primaries": _TASK.c.simulated_primaries}


@dataclass(frozen=True, slots=True)
class Audit:
    """Who moves, when, and why; goes into the history."""

    actor: str
    time: datetime
    reason: str | None = None


class Locked(NamedTuple):
    """A simulation whose states nobody else can change until the transaction ends."""

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


_COLUMNS = select(*(_SIMULATION.c[name] for name in Locked._fields))
_FIND = _COLUMNS.where(_SIMULATION.c.id == bindparam("this"))
_LOCK = _FIND.with_for_update()
_LOCK_JOB = _COLUMNS.where(_SIMULATION.c.job_id == bindparam("this")).with_for_update()


def _found(connection: Connection, query: Select[*tuple[Any, ...]], this: int | str) -> Locked | None:
    row = connection.execute(query, {"this": this}).first()
    return None if row is None else Locked(*row)


def find_simulation(connection: Connection, simulation_id: int) -> Locked | None:
    """The simulation with this number, without a lock: its states may change at once."""
    return _found(connection, _FIND, simulation_id)


def lock_simulation(connection: Connection, simulation_id: int) -> Locked | None:
    """Lock the simulation with this number, or return None if there is none."""
    return _found(connection, _LOCK, simulation_id)


def lock_job(connection: Connection, job_id: str) -> Locked | None:
    """Lock the simulation with this public name, or return None if there is none."""
    return _found(connection, _LOCK_JOB, job_id)


def record_made(connection: Connection, simulation_id: int, state: EntityState, cause: Audit) -> None:
    """Begin the history of a new simulation, with the reason of the cause, and of its tasks."""
    values = {"simulation_id": simulation_id, "state": state, "now": cause.time, "by": cause.actor}
    connection.execute(_MADE, {**values, "why": cause.reason})


def add_audit_note(connection: Connection, simulation_id: int, cause: Audit) -> None:
    """Note in the history what happened to a simulation without a change of state: a row whose two states are one."""
    state = _SIMULATION.c.job_state
    noted = select(_SIMULATION.c.id, literal(None), state, state, *_cause(cause))
    this = _SIMULATION.c.id == simulation_id
    connection.execute(insert(_HISTORY).from_select(_HISTORY_COLUMNS, noted.where(this)))


def move_simulation(
    connection: Connection, simulation_id: int, to: EntityState, cause: Audit, values: Mapping[str, Any] | None = None
) -> bool:
    """Move a simulation to `to`, setting `values` with it; False, and nothing changed, if that may not follow."""
    allowed = source_states(SIMULATION_TRANSITIONS, to)
    ready = (_SIMULATION.c.id == simulation_id) & _SIMULATION.c.job_state.in_(allowed)
    before = select(_SIMULATION.c.id, literal(None), _SIMULATION.c.job_state, *_history(cause, to)).where(ready)
    connection.execute(insert(_HISTORY).from_select(_HISTORY_COLUMNS, before.with_for_update()))
    changes: dict[str, Any] = {"job_state": to}
    if to in FINAL_STATES:
        changes |= {"end_time": _not_before(_SIMULATION.c.start_time, cause.time), "owner": None}
    changes |= values or {}
    return connection.execute(update(_SIMULATION).where(ready).values(changes)).rowcount == 1


def move_tasks(
    connection: Connection,
    simulation_id: int,
    to: EntityState,
    cause: Audit,
    values: Mapping[str, Any] | None = None,
    **only: Any,
) -> int:
    """Move the tasks of a simulation to `to`, setting `values` with it, and return how many moved.

    Moved are those whose columns are as in `only`, and from whose state `to` may follow. A task that becomes COMPLETED
    has simulated what was requested, unless `values` knows better.
    """
    ready = (_TASK.c.simulation_id == simulation_id) & _TASK.c.task_state.in_(source_states(TASK_TRANSITIONS, to))
    for name, value in only.items():
        ready &= _TASK.c[name] == value
    before = select(_TASK.c.simulation_id, _TASK.c.task_id, _TASK.c.task_state, *_history(cause, to)).where(ready)
    connection.execute(insert(_HISTORY).from_select(_HISTORY_COLUMNS, before.with_for_update()))
    changes = _task_changes(to, cause.time) | dict(values or {})
    return connection.execute(update(_TASK).where(ready).values(changes)).rowcount


def _task_changes(to: EntityState, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"task_state": to, "last_update_time": now}
    if to is EntityState.RUNNING or to is EntityState.COMPLETED:
        changes["start_time"] = func.coalesce(_TASK.c.start_time, now)
    if to is EntityState.COMPLETED:
        changes["simulated_primaries"] = _TASK.c.requested_primaries
    if to in FINAL_STATES:
        changes["end_time"] = _not_before(_TASK.c.start_time, now)
    if to is not EntityState.RUNNING:
        changes["estimated_time"] = None
    return changes


def _not_before(start: ColumnElement[Any], end: datetime) -> ColumnElement[Any]:
    """`end`, but never before `start`: clocks of different machines disagree."""
    return case((start > end, start), else_=literal(end, start.type))


_HISTORY_COLUMNS = ("simulation_id", "task_id", "from_state", "to_state", "time", "actor", "reason")


def _history(cause: Audit, to: EntityState) -> tuple[ColumnElement[Any], ...]:
    return (literal(to, _HISTORY.c.to_state.type), *_cause(cause))


_BEGIN = (
    literal(None),
    bindparam("state", type_=_HISTORY.c.to_state.type),
    bindparam("now", type_=_HISTORY.c.time.type),
    bindparam("by", type_=_HISTORY.c.actor.type),
)
_WHY = bindparam("why", type_=_HISTORY.c.reason.type)
_SIMULATION_ID = bindparam("simulation_id", type_=_TASK.c.simulation_id.type)
_MADE = insert(_HISTORY).from_select(
    _HISTORY_COLUMNS,
    select(_SIMULATION_ID, literal(None), *_BEGIN, _WHY).union_all(
        select(_TASK.c.simulation_id, _TASK.c.task_id, *_BEGIN, literal(None)).where(
            _TASK.c.simulation_id == _SIMULATION_ID
        )
    ),
)


def _cause(cause: Audit) -> tuple[ColumnElement[Any], ...]:
    columns = _HISTORY.c
    return (
        literal(cause.time, columns.time.type),
        literal(cause.actor, columns.actor.type),
        literal(cause.reason, columns.reason.type),
    )

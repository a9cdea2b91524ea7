"""Queries about simulations, their input, log files and history."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import IN_BINARY, Record
from yaptide.persistence.models import (
    BatchSimulationModel,
    BatchTaskModel,
    CelerySimulationModel,
    CeleryTaskModel,
    InputModel,
    LogfilesModel,
    SimulationModel,
    StateHistoryModel,
    TaskModel,
)
from yaptide.persistence.models.base import table_of
from yaptide.persistence.models.simulations import BATCH, DIRECT, OPEN
from yaptide.persistence.payload import Payload
from yaptide.persistence.queries import json_rows, tasks, users
from yaptide.persistence.queries.users import User

_SIMULATION = table_of(SimulationModel)
_TASK = table_of(TaskModel)
_INPUT = table_of(InputModel)
_LOGFILES = table_of(LogfilesModel)
_HISTORY = table_of(StateHistoryModel)

_TASK_IDS = select(_TASK.c.id).where(_TASK.c.simulation_id == bindparam("simulation_id"))
_SUBTABLES = {
    DIRECT: (table_of(CelerySimulationModel), insert(table_of(CeleryTaskModel)).from_select(["id"], _TASK_IDS)),
    BATCH: (table_of(BatchSimulationModel), insert(table_of(BatchTaskModel)).from_select(["id"], _TASK_IDS)),
}
_DESCRIPTION = (
    _SIMULATION.c.id,
    _SIMULATION.c.user_id,
    _SIMULATION.c.job_state,
    _SIMULATION.c.title,
    _SIMULATION.c.sim_type,
    _SIMULATION.c.input_type,
    _SIMULATION.c.platform,
    _SIMULATION.c.start_time,
    _SIMULATION.c.end_time,
    _SIMULATION.c.simulator_version,
    _SIMULATION.c.simulator_digest,
    _SIMULATION.c.stored_bytes,
    _SIMULATION.c.refused_pages,
)
_LISTED = tuple(
    _SIMULATION.c[name]
    for name in ("job_id", "title", "start_time", "end_time", "platform", "input_type", "sim_type", "job_state")
)
_THIS_JOB = _SIMULATION.c.job_id == bindparam("job_id")
_BY_JOB = select(*_DESCRIPTION).where(_THIS_JOB)
_BY_SESSION = users.BY_SESSION.outerjoin(_SIMULATION, _THIS_JOB).with_only_columns(
    *_DESCRIPTION, *(column.label(f"asking_{column.name}") for column in users.BY_SESSION.selected_columns)
)
_INPUT_OF = select(_INPUT.c.compressed_data).where(_INPUT.c.simulation_id == bindparam("simulation_id"))
_INPUT_OF = _INPUT_OF.execution_options(**IN_BINARY)
# For one user, both databases read it from the index (user_id, job_state) alone.
_BY_STATE = select(_SIMULATION.c.job_state, func.count()).group_by(_SIMULATION.c.job_state)
_OF_USER = _SIMULATION.c.user_id == bindparam("user")
_OF_IT = _TASK.c.simulation_id == _SIMULATION.c.id
_PROGRESS = tuple(
    select(func.coalesce(func.sum(_TASK.c[f"{name}_primaries"]), 0)).where(_OF_IT).scalar_subquery().label(name)
    for name in ("requested", "simulated")
)
_LAST_CHANGE = (
    select(func.coalesce(func.max(_HISTORY.c.id), 0))
    .where(_HISTORY.c.simulation_id == _SIMULATION.c.id)
    .scalar_subquery()
    .label("change")
)


def add_simulation(
    connection: Connection,
    values: dict[str, Any],
    of_platform: Mapping[str, Any],
    input_payload: Payload,
    new_tasks: Sequence[dict[str, Any]],
) -> int:
    """Insert a simulation with its row in the platform's table, its input and tasks; return its id.

    `new_tasks` are the rows that `tasks.add_tasks` inserts.
    """
    values = {**values, "stored_bytes": len(input_payload.data)}
    table, add_tasks = _SUBTABLES[values["platform"]]
    simulation_id: int = connection.execute(insert(_SIMULATION).returning(_SIMULATION.c.id), values).scalar_one()
    connection.execute(insert(table), {"id": simulation_id, **of_platform})
    connection.execute(insert(_INPUT), {"simulation_id": simulation_id, **input_payload.columns()})
    tasks.add_tasks(connection, simulation_id, values["platform"], new_tasks)
    connection.execute(add_tasks, {"simulation_id": simulation_id})
    return simulation_id


def by_job(connection: Connection, job_id: str) -> Record | None:
    """Return the columns `_DESCRIPTION` of the simulation with this job_id."""
    return connection.execute(_BY_JOB, {"job_id": job_id}).first()


def by_session(connection: Connection, session: str, job_id: str, now: datetime) -> tuple[User, Record | None] | None:
    """Return the user of a session, and what `by_job` returns, in one round trip; None if the session has ended."""
    row = connection.execute(_BY_SESSION, {"session": session, "job_id": job_id, "now": now}).first()
    if row is None:
        return None
    return User(row.asking_id, row.asking_username, row.asking_auth_provider), None if row.id is None else row


def list_states(connection: Connection, user_id: int) -> list[tuple[str, EntityState]]:
    """Return job_id and state of all simulations of a user, the oldest first."""
    query = select(_SIMULATION.c.job_id, _SIMULATION.c.job_state).where(_OF_USER).order_by(_SIMULATION.c.id)
    return [(row.job_id, row.job_state) for row in connection.execute(query, {"user": user_id})]


def input_of(connection: Connection, simulation_id: int) -> bytes | None:
    """Return the stored payload of a simulation's input."""
    return connection.execute(_INPUT_OF, {"simulation_id": simulation_id}).scalar()


#: Number of simulations, the newest ones, among which a title is searched for.
SEARCHED = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """Selects and sorts a page of a user's simulations; empty `states` means every state.

    With a `title`: those of the newest `SEARCHED` simulations whose title contains it, ignoring case.
    """

    number: int = 1
    size: int = 6
    order_by: str = "start_time"
    descending: bool = True
    states: tuple[EntityState, ...] = ()
    title: str = ""


def list_simulations(connection: Connection, user_id: int | None, page: Page) -> tuple[int, list[Record]]:
    """Return the number of simulations of the user (None: of all users), and those on the page."""
    if page.title:
        return _search(connection, user_id, page)
    numbers = count_by_state(connection, user_id)
    selected = {state: number for state, number in numbers.items() if not page.states or state in page.states}
    # Filtering by state costs more than not filtering, so it is left out if it would not exclude anything.
    states = frozenset() if selected == numbers else frozenset(page.states)
    query = _listing(user_id is None, page.order_by, page.descending, states)
    end = page.number * page.size
    values = {"user": user_id, "end": end, "size": page.size, "start": end - page.size}
    return sum(selected.values()), list(connection.execute(query, values).all())


def count_by_state(connection: Connection, user_id: int | None) -> dict[EntityState, int]:
    """Count the simulations of the user (None: of all users) in each state; states without any are omitted."""
    query = _BY_STATE if user_id is None else _BY_STATE.where(_OF_USER)
    return dict(map(tuple, connection.execute(query, {"user": user_id})))


def _search(connection: Connection, user_id: int | None, page: Page) -> tuple[int, list[Record]]:
    owned = true() if user_id is None else _SIMULATION.c.user_id == user_id
    newest = select(*_LISTED, _SIMULATION.c.id).where(owned).order_by(*_order(_SIMULATION.c, "start_time", True))
    columns = newest.limit(SEARCHED).subquery().c
    fits = columns.title.icontains(page.title, autoescape=True)
    if page.states:
        fits &= or_(*(columns.job_state == state for state in frozenset(page.states)))
    total = connection.execute(select(func.count()).select_from(columns.title.table).where(fits)).scalar_one()
    query = select(*(columns[column.name] for column in _LISTED)).where(fits)
    query = query.order_by(*_order(columns, page.order_by, page.descending))
    return total, list(connection.execute(query.limit(page.size).offset((page.number - 1) * page.size)).all())


@lru_cache(256)
def _listing(of_all: bool, order_by: str, descending: bool, states: frozenset[EntityState]) -> Select[*tuple[Any, ...]]:
    """Return the query for a page of simulations: the first ones of each of `states`, merged; if empty, of any state.

    Simulations in a rare state are far apart: with an index for each state, the query does not read past the others.
    """
    owned = true() if of_all else _OF_USER
    end, size, start = (bindparam(name, type_=BigInteger()) for name in ("end", "size", "start"))
    query = select(*_LISTED).where(owned).order_by(*_order(_SIMULATION.c, order_by, descending))
    if states:
        query = query.add_columns(_SIMULATION.c.id).limit(end)
        firsts = (query.where(_SIMULATION.c.job_state == state).subquery() for state in sorted(states))
        every = union_all(*map(select, firsts)).subquery().c
        query = select(*(every[column.name] for column in _LISTED)).order_by(*_order(every, order_by, descending))
    return query.limit(size).offset(start)


def _order(columns: Any, order_by: str, descending: bool) -> tuple[ColumnElement[Any], ...]:
    if descending:  # simulations that have not ended come last; SQLite would sort them first
        return columns[order_by].desc().nulls_first(), columns.id.desc()
    return columns[order_by].asc().nulls_last(), columns.id.asc()


def states_by_job(connection: Connection, job_ids: Collection[str]) -> dict[str, EntityState]:
    """Return the states of the existing ones of these simulations, by job_id."""
    among = json_rows.is_among(_SIMULATION.c.job_id, connection.dialect.name)
    query = select(_SIMULATION.c.job_id, _SIMULATION.c.job_state).where(among)
    return {job_id: EntityState(state) for job_id, state in connection.execute(query, {"values": job_ids})}


def list_watched(connection: Connection, job_ids: Sequence[str]) -> list[Record]:
    """Return the existing ones of these simulations.

    With the primaries of their tasks, `requested` and `simulated`, and `change`, the id of their last history entry.
    """
    columns = (
        _SIMULATION.c[name] for name in ("id", "user_id", "job_id", "job_state", "platform", "sim_type", "input_type")
    )
    these = json_rows.is_among(_SIMULATION.c.job_id, connection.dialect.name)
    query = select(*columns, *_PROGRESS, _LAST_CHANGE).where(these)
    return list(connection.execute(query, {"values": job_ids}))


def list_failures(connection: Connection, simulation_ids: Sequence[int]) -> dict[int, str]:
    """Return why simulations failed, by id."""
    row = StateHistoryModel
    these = json_rows.is_among(_HISTORY.c.simulation_id, connection.dialect.name)
    query = select(row.simulation_id, row.reason).where(these, row.task_id.is_(None))
    query = query.where(row.to_state == EntityState.FAILED, row.reason.is_not(None)).order_by(row.id.desc())
    return {number: str(reason) for number, reason in connection.execute(query, {"values": simulation_ids})}


def input_digest(connection: Connection, simulation_id: int) -> str | None:
    """Return the SHA-256 (hexadecimal) of the text of a simulation's input."""
    query = select(_INPUT.c.content_sha256).where(_INPUT.c.simulation_id == simulation_id)
    return connection.execute(query).scalar()


def find_by_prefix(connection: Connection, beginning: str, most: int) -> list[tuple[str, str]]:
    """Return job_id and title of simulations whose job_id starts with `beginning`, shortest first, then newest."""
    name = _SIMULATION.c.job_id
    query = select(name, _SIMULATION.c.title).where(name.startswith(beginning, autoescape=True))
    newest = query.order_by(func.length(name), _SIMULATION.c.id.desc()).limit(most)
    return [(job_id, title) for job_id, title in connection.execute(newest)]


def set_values(connection: Connection, simulation_id: int, values: dict[str, Any]) -> None:
    """Set columns of a simulation that are not its state."""
    connection.execute(update(_SIMULATION).where(_SIMULATION.c.id == simulation_id).values(values))


def set_batch_values(connection: Connection, simulation_id: int, values: Mapping[str, Any]) -> None:
    """Set `job_dir`, `array_id` or `collect_id` of a simulation on a cluster that this server did not submit."""
    table = table_of(BatchSimulationModel)
    foreign = (table.c.id == simulation_id) & table.c.options.is_(None)
    connection.execute(update(table).where(foreign).values(values))


def remove_simulation(connection: Connection, simulation_id: int) -> bool:
    """Delete a simulation; the database deletes everything below it. False if it does not exist."""
    return remove_all(connection, [simulation_id]) == 1


def remove_all(connection: Connection, simulation_ids: Sequence[int]) -> int:
    """Delete simulations with everything below them; return how many existed."""
    among = json_rows.is_among(_SIMULATION.c.id, connection.dialect.name)
    return connection.execute(delete(_SIMULATION).where(among), {"values": simulation_ids}).rowcount


def count_bytes(connection: Connection, simulation_id: int, more: int) -> None:
    """Add to the byte count of a simulation."""
    row = update(_SIMULATION).where(_SIMULATION.c.id == simulation_id)
    connection.execute(row.values(stored_bytes=_SIMULATION.c.stored_bytes + more))


def add_logfiles(connection: Connection, simulation_id: int, payload: Payload) -> None:
    """Insert log files, unless identical ones exist."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(_LOGFILES).on_conflict_do_nothing(index_elements=["simulation_id", "content_sha256"])
    values = {"simulation_id": simulation_id, **payload.columns()}
    if connection.execute(statement.returning(_LOGFILES.c.id), values).first() is not None:
        count_bytes(connection, simulation_id, len(payload.data))


def logfiles_size(connection: Connection, simulation_id: int) -> int:
    """Return the bytes of text in the log files of a simulation."""
    query = select(func.sum(_LOGFILES.c.content_size)).where(_LOGFILES.c.simulation_id == simulation_id)
    return int(connection.execute(query).scalar() or 0)


def logfiles_of(connection: Connection, simulation_id: int) -> list[bytes]:
    """Return the stored payloads of a simulation's log files, in order of arrival."""
    query = select(_LOGFILES.c.compressed_data).where(_LOGFILES.c.simulation_id == simulation_id)
    return list(connection.execute(query.order_by(_LOGFILES.c.id)).scalars())


def list_history(connection: Connection, simulation_id: int, newest: int | None = None) -> list[Record]:
    """Return all transitions of a simulation and its tasks, or the `newest` ones, oldest first."""
    row = StateHistoryModel
    query = select(row.task_id, row.from_state, row.to_state, row.time, row.actor, row.reason)
    query = query.where(row.simulation_id == simulation_id)
    if newest is None:
        return list(connection.execute(query.order_by(row.id)).all())
    return list(reversed(connection.execute(query.order_by(row.id.desc()).limit(newest)).all()))


def last_reason(connection: Connection, simulation_id: int) -> str | None:
    """Return the reason of the last transition of a simulation itself, or None."""
    row = StateHistoryModel
    query = select(row.reason).where(row.simulation_id == simulation_id, row.task_id.is_(None))
    moves = query.where(row.from_state.is_distinct_from(row.to_state))  # a note is no transition
    return connection.execute(moves.order_by(row.id.desc()).limit(1)).scalar()


def count_transitions(connection: Connection, simulation_id: int, to: EntityState, task_id: int | None = None) -> int:
    """Count the transitions of a simulation, or of one of its tasks, to a state."""
    row = StateHistoryModel
    query = select(func.count()).where(row.simulation_id == simulation_id, row.to_state == to, row.from_state != to)
    subject = row.task_id.is_(None) if task_id is None else row.task_id == task_id
    return connection.execute(query.where(subject)).scalar_one()


def list_reasons(connection: Connection, simulation_id: int, to: EntityState) -> list[tuple[int | None, str]]:
    """Return task number (None: the simulation) and reason of each transition to `to` with a reason, oldest first."""
    row = StateHistoryModel
    query = (
        select(row.task_id, row.reason)
        .where(row.simulation_id == simulation_id, row.to_state == to, row.reason.is_not(None))
        .where(row.from_state.is_distinct_from(row.to_state))  # an audit note is not a transition
        .order_by(row.id)
    )
    return [(task_id, str(reason)) for task_id, reason in connection.execute(query)]


def next_merge(connection: Connection, owner: str, platform: str = DIRECT) -> int | None:
    """Return the simulation of a platform that has waited longest for a merge that `owner` can run.

    All its tasks have ended, and executors at the same place ran the completed ones: no other place has their output.
    """
    return connection.scalar(waiting_merges(owner, platform).limit(1))


def waiting_merges(owner: str, platform: str = DIRECT) -> Select[int]:
    """Return the query of a platform's simulations that `owner` could merge, in order of submission."""
    completed = _TASK.c.task_state == EntityState.COMPLETED
    elsewhere = _TASK.c.task_state.not_in(FINAL_STATES) | (completed & _TASK.c.owner.is_(None))
    return (
        select(_SIMULATION.c.id)
        .where(
            OPEN,
            _SIMULATION.c.job_state == EntityState.MERGING_QUEUED,
            _SIMULATION.c.platform == platform,
            _has_task(completed),
            ~_has_task(elsewhere),
            ~tasks.run_elsewhere(_SIMULATION.c.id, owner),
        )
        .order_by(_SIMULATION.c.id)
    )


def is_waiting_for_merge(connection: Connection, simulation_id: int, owner: str) -> bool:
    """Return whether `owner` could merge the results of a simulation now."""
    query = waiting_merges(owner).where(_SIMULATION.c.id == simulation_id)
    return connection.execute(query).first() is not None


def _has_task(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(literal(1)).where(_TASK.c.simulation_id == _SIMULATION.c.id, condition).exists()


def beat_merges(connection: Connection, owner: str, merges: Sequence[int], now: datetime) -> None:
    """Record a heartbeat of `owner` for the merges of these simulations."""
    if merges:
        owned = (_SIMULATION.c.id.in_(merges)) & (_SIMULATION.c.owner == owner)
        connection.execute(update(_SIMULATION).where(owned).values(heartbeat_time=now))


def list_stalled_merges(
    connection: Connection, dead_owner: str | None, stalled_since: datetime
) -> list[tuple[int, str | None]]:
    """Return simulations with a stalled merge, and its owner; see `queries.tasks.list_stalled`."""
    stalled = _SIMULATION.c.heartbeat_time < stalled_since
    if dead_owner is not None:
        stalled |= _SIMULATION.c.owner.startswith(dead_owner, autoescape=True)
    query = select(_SIMULATION.c.id, _SIMULATION.c.owner)
    query = query.where(OPEN, _SIMULATION.c.job_state == EntityState.MERGING_RUNNING, stalled)
    return [(number, owner) for number, owner in connection.execute(query)]

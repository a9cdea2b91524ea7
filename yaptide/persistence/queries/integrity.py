"""Queries that look for what must not be, and the statements that mend it.

Each question is one statement, so that it sees one moment of a database that is in use. States are read as text: one
that there is not is a finding, and no error.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Enum,
    Integer,
    Select,
    String,
    Table,
    and_,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    type_coerce,
    update,
)

from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_TRANSITIONS, EntityState, Transitions
from yaptide.persistence.engine import Record
from yaptide.persistence.models import (
    Base,
    EstimatorModel,
    InputModel,
    LogfilesModel,
    PageModel,
    SimulationModel,
    StateHistoryModel,
    TaskModel,
)
from yaptide.persistence.models.base import table_of
from yaptide.persistence.payload import Payload
from yaptide.persistence.queries.transitions import Audit

_SIMULATION = table_of(SimulationModel)
_TASK = table_of(TaskModel)
_HISTORY = table_of(StateHistoryModel)
_INPUT = table_of(InputModel)
_ESTIMATOR = table_of(EstimatorModel)
_PAGE = table_of(PageModel)
_LOGFILES = table_of(LogfilesModel)

_PAYLOADS: dict[str, Table] = {"Input": _INPUT, "Estimator": _ESTIMATOR, "Page": _PAGE, "Logfiles": _LOGFILES}
#: Tables with payloads.
PAYLOADS = tuple(_PAYLOADS)


def _text(column: ColumnElement[Any]) -> ColumnElement[str]:
    return type_coerce(column, String)


_FINAL = tuple(str(state) for state in FINAL_STATES)
_JOB_STATE = _text(_SIMULATION.c.job_state)
_TASK_STATE = _text(_TASK.c.task_state)
_FROM = _text(_HISTORY.c.from_state)
_TO = _text(_HISTORY.c.to_state)


class StoredPayload(NamedTuple):
    """A stored payload with what is stored beside it; `job_id` is None for one that has lost its simulation."""

    table: str
    id: int
    job_id: str | None
    data: bytes
    size: int
    sha256: str
    estimator: str | None = None
    page_number: int | None = None
    page_name: str | None = None
    page_dimension: int | None = None


def count_payloads(connection: Connection) -> dict[str, int]:
    """How many payloads each table holds."""
    counts = (select(func.count()).select_from(table).scalar_subquery() for table in _PAYLOADS.values())
    return dict(zip(_PAYLOADS, connection.execute(select(*counts)).one(), strict=True))


def next_payload(connection: Connection, table: str, after: int) -> StoredPayload | None:
    """The payload in a table with the smallest number above `after`."""
    found = _PAYLOADS[table]
    columns = (found.c.compressed_data, found.c.content_size, found.c.content_sha256)
    if found is _PAGE:
        query = (
            select(_PAGE.c.id, _SIMULATION.c.job_id, *columns, _ESTIMATOR.c.name)
            .add_columns(_PAGE.c.page_number, _PAGE.c.page_name, _PAGE.c.page_dimension)
            .select_from(_PAGE.outerjoin(_ESTIMATOR).outerjoin(_SIMULATION))
        )
    else:
        name = [_ESTIMATOR.c.name] if found is _ESTIMATOR else []
        query = select(found.c.id, _SIMULATION.c.job_id, *columns, *name).select_from(found.outerjoin(_SIMULATION))
    row = connection.execute(query.where(found.c.id > after).order_by(found.c.id).limit(1)).first()
    return None if row is None else StoredPayload(table, *row)


def correct_payload(connection: Connection, stored: StoredPayload, size: int, sha256: str) -> None:
    """Store the size and the digest of a payload anew, if they are still those that were found wrong."""
    table = _PAYLOADS[stored.table]
    this = (table.c.id == stored.id) & (table.c.content_sha256 == stored.sha256) & (table.c.content_size == stored.size)
    connection.execute(update(table).where(this).values(content_size=size, content_sha256=sha256))


def results_of(connection: Connection, estimator_id: int) -> tuple[int, list[int]] | None:
    """The simulation of an estimator, and the numbers of the rows of its pages; None if it is gone."""
    simulation = select(_ESTIMATOR.c.simulation_id).where(_ESTIMATOR.c.id == estimator_id)
    pages = select(_PAGE.c.id).where(_PAGE.c.estimator_id == estimator_id).order_by(_PAGE.c.page_number)
    simulation_id = connection.execute(simulation).scalar()
    return None if simulation_id is None else (simulation_id, list(connection.execute(pages).scalars()))


def estimator_of(connection: Connection, page_id: int) -> int | None:
    """The estimator of a page; None if the page is gone."""
    return connection.execute(select(_PAGE.c.estimator_id).where(_PAGE.c.id == page_id)).scalar()


def payload_of(connection: Connection, table: str, number: int) -> bytes | None:
    """The payload in a row; None if the row is gone."""
    column = _PAYLOADS[table].c
    return connection.execute(select(column.compressed_data).where(column.id == number)).scalar()


def replace_payload(connection: Connection, table: str, number: int, payload: Payload) -> None:
    """Store another payload in a row."""
    changed = update(_PAYLOADS[table]).where(_PAYLOADS[table].c.id == number)
    connection.execute(changed.values(payload.columns()))


def _bytes_in(table: Table) -> ColumnElement[int]:
    """Bytes that a simulation has in one table, to be used in a query or an update of simulations."""
    total = select(func.coalesce(func.sum(func.length(table.c.compressed_data)), 0))
    if table is _PAGE:
        total = total.join_from(_PAGE, _ESTIMATOR).where(_ESTIMATOR.c.simulation_id == _SIMULATION.c.id)
    else:
        total = total.where(table.c.simulation_id == _SIMULATION.c.id)
    return type_coerce(total.correlate(_SIMULATION).scalar_subquery(), Integer)


_ALL_BYTES = _bytes_in(_INPUT) + _bytes_in(_ESTIMATOR) + _bytes_in(_PAGE) + _bytes_in(_LOGFILES)


def find_miscounted(connection: Connection) -> list[Record]:
    """Simulations whose bytes are counted wrong: id, job_id, stored_bytes, and what the payloads take."""
    query = select(_SIMULATION.c.id, _SIMULATION.c.job_id, _SIMULATION.c.stored_bytes, _ALL_BYTES.label("taken"))
    return list(connection.execute(query.where(_SIMULATION.c.stored_bytes != _ALL_BYTES).order_by(_SIMULATION.c.id)))


def recount_bytes(connection: Connection, simulation_id: int) -> None:
    """Count the bytes of a simulation anew."""
    this = _SIMULATION.c.id == simulation_id
    connection.execute(update(_SIMULATION).where(this).values(stored_bytes=_ALL_BYTES))


def _subjects() -> tuple[tuple[Select[Any], ColumnElement[str], Any], ...]:
    """Simulations and tasks alike: a query of job_id and task number, the state, and the end."""
    simulations = select(_SIMULATION.c.id, _SIMULATION.c.job_id, null().label("task_id"), _JOB_STATE.label("state"))
    tasks = select(_SIMULATION.c.id, _SIMULATION.c.job_id, _TASK.c.task_id, _TASK_STATE.label("state"))
    return (
        (simulations.order_by(_SIMULATION.c.id), _JOB_STATE, _SIMULATION.c.end_time),
        (
            tasks.select_from(_TASK.join(_SIMULATION)).order_by(_TASK.c.simulation_id, _TASK.c.task_id),
            _TASK_STATE,
            _TASK.c.end_time,
        ),
    )


def wrong_ends(connection: Connection) -> Iterator[Record]:
    """Simulations and tasks that ended at no time, or have an end and have not ended: id, job_id, task_id, state."""
    for query, state, end in _subjects():
        ended = state.in_(_FINAL)
        yield from connection.execute(query.where(or_(ended & end.is_(None), ~ended & end.is_not(None))))


def last_moves_differ(connection: Connection, simulation_id: int | None = None) -> Iterator[Record]:
    """Simulations and tasks (of one simulation, if given) that are not in the state of the last row of their history.

    id, job_id, task_id, state, and that last state (None: there is no row).
    """
    chosen = true() if simulation_id is None else _SIMULATION.c.id == simulation_id
    newest = select(func.max(_HISTORY.c.id)).group_by(_HISTORY.c.simulation_id, _HISTORY.c.task_id)
    last = select(_HISTORY.c.simulation_id, _HISTORY.c.task_id, _TO.label("state")).where(_HISTORY.c.id.in_(newest))
    told = last.subquery()
    (simulations, _, _), (tasks, _, _) = _subjects()
    of_simulation = and_(told.c.simulation_id == _SIMULATION.c.id, told.c.task_id.is_(None))
    of_task = and_(told.c.simulation_id == _TASK.c.simulation_id, told.c.task_id == _TASK.c.task_id)
    for query, state, condition in ((simulations, _JOB_STATE, of_simulation), (tasks, _TASK_STATE, of_task)):
        joined = query.outerjoin(told, condition).add_columns(told.c.state.label("told"))
        yield from connection.execute(joined.where(chosen, state.is_distinct_from(told.c.state)))


def add_move(
    connection: Connection, simulation_id: int, task_id: int | None, told: str | None, state: str, cause: Audit
) -> None:
    """Add the row that is missing at the end of a history."""
    values = {"simulation_id": simulation_id, "task_id": task_id, "from_state": told, "to_state": state}
    connection.execute(insert(_HISTORY), {**values, "time": cause.time, "actor": cause.actor, "reason": cause.reason})


def broken_moves(connection: Connection) -> list[Record]:
    """Rows of the history that do not go on from the row before, or that no table of transitions has.

    Their id, job_id, task_id, from_state, to_state, and the state of the row before. A remark stays in its state.
    """
    one_after_the_other = func.lag(_TO).over(
        partition_by=(_HISTORY.c.simulation_id, _HISTORY.c.task_id), order_by=_HISTORY.c.id
    )
    steps = select(
        *(_HISTORY.c.id, _HISTORY.c.simulation_id, _HISTORY.c.task_id, _HISTORY.c.reason),
        *(_FROM.label("from_state"), _TO.label("to_state"), one_after_the_other.label("before")),
    ).subquery()
    move = tuple_(steps.c.from_state, steps.c.to_state)
    allowed = or_(
        steps.c.from_state.is_(None),
        and_(steps.c.task_id.is_(None), move.in_(_pairs(SIMULATION_TRANSITIONS))),
        and_(steps.c.task_id.is_not(None), move.in_(_pairs(TASK_TRANSITIONS))),
        and_(steps.c.from_state == steps.c.to_state, steps.c.reason.is_not(None)),
    )
    query = (
        select(steps.c.id, _SIMULATION.c.job_id, steps.c.task_id, steps.c.from_state, steps.c.to_state, steps.c.before)
        .join_from(steps, _SIMULATION, _SIMULATION.c.id == steps.c.simulation_id)
        .where(or_(steps.c.from_state.is_distinct_from(steps.c.before), ~allowed))
        .order_by(steps.c.id)
    )
    return list(connection.execute(query))


def _pairs(transitions: Transitions) -> list[tuple[str, str]]:
    return [(str(state), str(to)) for state, targets in transitions.items() for to in targets]


def unknown_states(connection: Connection) -> Iterator[Record]:
    """Simulations and tasks in a state that there is not: id, job_id, task_id, state."""
    for query, state, _ in _subjects():
        yield from connection.execute(query.where(state.not_in([str(known) for known in EntityState])))


def open_tasks(connection: Connection) -> list[Record]:
    """Tasks that have not ended though their simulation has: id, job_id, task_id, state, job_state."""
    _, (query, state, _) = _subjects()
    found = query.add_columns(_JOB_STATE.label("job_state")).where(_JOB_STATE.in_(_FINAL), state.not_in(_FINAL))
    return list(connection.execute(found))


def miscounted_tasks(connection: Connection) -> list[Record]:
    """Tasks whose primaries cannot be: id, job_id, task_id, state, simulated, requested.

    No task has simulated more than was asked of it. One that a worker reported as completed has simulated just that;
    only our own executors count for themselves, and only they may have fewer.
    """
    _, (query, state, _) = _subjects()
    reported = (
        select(literal(1))
        .where(_HISTORY.c.simulation_id == _TASK.c.simulation_id, _HISTORY.c.task_id == _TASK.c.task_id)
        .where(_TO.in_([str(EntityState.COMPLETED)]), _HISTORY.c.actor == "worker")
        .correlate(_TASK)
        .exists()
    )
    fewer = and_(state == str(EntityState.COMPLETED), _TASK.c.simulated_primaries < _TASK.c.requested_primaries)
    wrong = or_(_TASK.c.simulated_primaries > _TASK.c.requested_primaries, fewer & reported)
    return list(
        connection.execute(query.add_columns(_TASK.c.simulated_primaries, _TASK.c.requested_primaries).where(wrong))
    )


def find_incomplete(connection: Connection) -> Iterator[tuple[str, Record]]:
    """What lacks what it always has, and the name of that: simulations (job_id, None) and estimators (job_id, name)."""
    jobs = select(_SIMULATION.c.job_id, null()).order_by(_SIMULATION.c.id)
    # One that has ended may have had its last task before it came to us; another would never end.
    for what, table, where in (("input", _INPUT, true()), ("tasks", _TASK, _JOB_STATE.not_in(_FINAL))):
        has = select(literal(1)).where(table.c.simulation_id == _SIMULATION.c.id).correlate(_SIMULATION).exists()
        yield from ((what, row) for row in connection.execute(jobs.where(where, ~has)))
    has = select(literal(1)).where(_PAGE.c.estimator_id == _ESTIMATOR.c.id).correlate(_ESTIMATOR).exists()
    estimators = select(_SIMULATION.c.job_id, _ESTIMATOR.c.name).join_from(_ESTIMATOR, _SIMULATION)
    yield from (("pages", row) for row in connection.execute(estimators.where(~has).order_by(_ESTIMATOR.c.id)))


def find_orphans(connection: Connection) -> Iterator[tuple[str, str, Any, str]]:
    """Rows that refer to a row that is not there: table, column, value, and the table that it should be in."""
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_keys:
            column, parent = key.parent, key.column.table.alias()
            lost = select(column).outerjoin_from(table, parent, parent.c[key.column.name] == column)
            query = lost.where(column.is_not(None), parent.c[key.column.name].is_(None)).distinct().order_by(column)
            for value in connection.execute(query).scalars():
                yield table.name, column.name, value, key.column.table.description
    known = select(literal(1)).where(_TASK.c.simulation_id == _HISTORY.c.simulation_id)
    known = known.where(_TASK.c.task_id == _HISTORY.c.task_id).correlate(_HISTORY)
    lost_history = select(_HISTORY.c.id).where(_HISTORY.c.task_id.is_not(None), ~known.exists())
    lost_history = lost_history.where(_HISTORY.c.simulation_id.in_(select(_SIMULATION.c.id)))
    for value in connection.execute(lost_history.order_by(_HISTORY.c.id)).scalars():
        yield "StateHistory", "id", value, "Task"


def find_halves(connection: Connection) -> Iterator[tuple[str, int, str]]:
    """Rows of a joined table whose other half is missing: table of the row, id, table of the missing half."""
    for mapper in Base.registry.mappers:
        if mapper.inherits is None:
            continue
        whole, half = mapper.inherits.local_table, mapper.local_table
        kind = mapper.inherits.polymorphic_on
        joined = select(whole.c.id, half.c.id).outerjoin_from(whole, half, half.c.id == whole.c.id)
        wrong = or_(
            and_(_kind(kind) == mapper.polymorphic_identity, half.c.id.is_(None)),
            and_(_kind(kind) != mapper.polymorphic_identity, half.c.id.is_not(None)),
        )
        for row in connection.execute(joined.where(wrong).order_by(whole.c.id)):
            if row[1] is None:
                yield whole.description, row[0], half.description
            else:
                yield half.description, row[0], f"{whole.description} of its kind"


def _kind(column: Any) -> ColumnElement[str]:
    return _text(column) if isinstance(column.type, Enum) else column


def late_sequences(connection: Connection) -> Iterator[tuple[str, int, int]]:
    """Sequences of PostgreSQL that would give a number again: table, next number, largest number in use."""
    if connection.dialect.name != "postgresql":
        return
    for table in _counted():
        largest: int = connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one()
        sequence = connection.execute(select(func.pg_get_serial_sequence(f'"{table.name}"', "id"))).scalar()
        if sequence is None:
            yield table.name, 0, largest
            continue
        query = f"SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM {sequence}"  # noqa: S608 - its own name
        following: int = connection.execute(text(query)).scalar_one()
        if following <= largest:
            yield table.name, following, largest


def advance_sequence(connection: Connection, table: str) -> None:
    """Have a sequence go on behind the largest number in use."""
    largest = select(func.max(Base.metadata.tables[table].c.id)).scalar_subquery()
    connection.execute(select(func.setval(func.pg_get_serial_sequence(f'"{table}"', "id"), largest)))


def _counted() -> Sequence[Table]:
    """Tables that number their rows themselves."""
    tables = Base.metadata.sorted_tables
    return [table for table in tables if not table.c.id.foreign_keys and isinstance(table.c.id.type, Integer)]


def damaged_file(connection: Connection) -> list[str]:
    """What SQLite finds wrong in its file; PostgreSQL has tools of its own for that."""
    if connection.dialect.name != "sqlite":
        return []
    told = connection.exec_driver_sql("PRAGMA integrity_check(100)").scalars()
    return [line for line in told if line != "ok"]

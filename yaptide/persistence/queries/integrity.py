"""Queries that find violated invariants, and the statements that repair them.

Each check is one statement, so that it sees one snapshot of a database in use. States are read as text, so that an
unknown state is a finding and not an error.
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
from yaptide.persistence.adoption.work import ACTOR as ADOPTION
from yaptide.persistence.engine import Record
from yaptide.persistence.models.base import Base
from yaptide.persistence.models.tables import ESTIMATOR, HISTORY, INPUT, LOGFILES, PAGE, SIMULATION, TASK
from yaptide.persistence.payload import Payload
from yaptide.persistence.queries.transitions import Audit

_PAYLOADS: dict[str, Table] = {"Input": INPUT, "Estimator": ESTIMATOR, "Page": PAGE, "Logfiles": LOGFILES}
#: Tables with payloads.
PAYLOADS = tuple(_PAYLOADS)


def _text(column: ColumnElement[Any]) -> ColumnElement[str]:
    return type_coerce(column, String)


_FINAL = tuple(str(state) for state in FINAL_STATES)
_JOB_STATE = _text(SIMULATION.c.job_state)
_TASK_STATE = _text(TASK.c.task_state)
_FROM = _text(HISTORY.c.from_state)
_TO = _text(HISTORY.c.to_state)


class StoredPayload(NamedTuple):
    """A stored payload with its columns; `job_id` is None if its simulation is gone."""

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


def adopted_jobs(connection: Connection) -> set[str]:
    """Return the job_ids of simulations that were taken over from an older backend: their history begins with that."""
    adopted = (HISTORY.c.actor == ADOPTION) & HISTORY.c.from_state.is_(None) & HISTORY.c.task_id.is_(None)
    return set(connection.execute(select(SIMULATION.c.job_id).join(HISTORY).where(adopted)).scalars())


def count_payloads(connection: Connection) -> dict[str, int]:
    """Count the payloads in each table."""
    counts = (select(func.count()).select_from(table).scalar_subquery() for table in _PAYLOADS.values())
    return dict(zip(_PAYLOADS, connection.execute(select(*counts)).one(), strict=True))


def next_payload(connection: Connection, table: str, after: int) -> StoredPayload | None:
    """Return the payload in a table with the smallest id above `after`."""
    table_clause = _PAYLOADS[table]
    columns = (table_clause.c.compressed_data, table_clause.c.content_size, table_clause.c.content_sha256)
    if table_clause is PAGE:
        query = (
            select(PAGE.c.id, SIMULATION.c.job_id, *columns, ESTIMATOR.c.name)
            .add_columns(PAGE.c.page_number, PAGE.c.page_name, PAGE.c.page_dimension)
            .select_from(PAGE.outerjoin(ESTIMATOR).outerjoin(SIMULATION))
        )
    else:
        name = [ESTIMATOR.c.name] if table_clause is ESTIMATOR else []
        query = select(table_clause.c.id, SIMULATION.c.job_id, *columns, *name).select_from(
            table_clause.outerjoin(SIMULATION)
        )
    row = connection.execute(query.where(table_clause.c.id > after).order_by(table_clause.c.id).limit(1)).first()
    return None if row is None else StoredPayload(table, *row)


def correct_payload(connection: Connection, stored: StoredPayload, size: int, sha256: str) -> None:
    """Update size and digest of a payload, if they are still the ones that were found wrong."""
    table = _PAYLOADS[stored.table]
    unchanged = (
        (table.c.id == stored.id) & (table.c.content_sha256 == stored.sha256) & (table.c.content_size == stored.size)
    )
    connection.execute(update(table).where(unchanged).values(content_size=size, content_sha256=sha256))


def results_of(connection: Connection, estimator_id: int) -> tuple[int, list[int]] | None:
    """Return the simulation of an estimator, and the ids of its pages; None if the estimator is gone."""
    simulation = select(ESTIMATOR.c.simulation_id).where(ESTIMATOR.c.id == estimator_id)
    pages = select(PAGE.c.id).where(PAGE.c.estimator_id == estimator_id).order_by(PAGE.c.page_number)
    simulation_id = connection.execute(simulation).scalar()
    return None if simulation_id is None else (simulation_id, list(connection.execute(pages).scalars()))


def estimator_of(connection: Connection, page_id: int) -> int | None:
    """Return the estimator of a page; None if the page is gone."""
    return connection.execute(select(PAGE.c.estimator_id).where(PAGE.c.id == page_id)).scalar()


def payload_of(connection: Connection, table: str, number: int) -> bytes | None:
    """Return the payload of a row; None if the row is gone."""
    column = _PAYLOADS[table].c
    return connection.execute(select(column.compressed_data).where(column.id == number)).scalar()


def replace_payload(connection: Connection, table: str, number: int, payload: Payload) -> None:
    """Replace the payload of a row."""
    changed = update(_PAYLOADS[table]).where(_PAYLOADS[table].c.id == number)
    connection.execute(changed.values(payload.columns()))


def _bytes_in(table: Table) -> ColumnElement[int]:
    """Return the bytes of a simulation in one table, for a query or an update of simulations."""
    total = select(func.coalesce(func.sum(func.length(table.c.compressed_data)), 0))
    if table is PAGE:
        total = total.join_from(PAGE, ESTIMATOR).where(ESTIMATOR.c.simulation_id == SIMULATION.c.id)
    else:
        total = total.where(table.c.simulation_id == SIMULATION.c.id)
    return type_coerce(total.correlate(SIMULATION).scalar_subquery(), Integer)


_ALL_BYTES = _bytes_in(INPUT) + _bytes_in(ESTIMATOR) + _bytes_in(PAGE) + _bytes_in(LOGFILES)


def find_miscounted(connection: Connection) -> list[Record]:
    """Return simulations with a wrong byte count: id, job_id, stored_bytes, and `taken`, the actual bytes."""
    query = select(SIMULATION.c.id, SIMULATION.c.job_id, SIMULATION.c.stored_bytes, _ALL_BYTES.label("taken"))
    return list(connection.execute(query.where(SIMULATION.c.stored_bytes != _ALL_BYTES).order_by(SIMULATION.c.id)))


def recount_bytes(connection: Connection, simulation_id: int) -> None:
    """Update the byte count of a simulation."""
    row = SIMULATION.c.id == simulation_id
    connection.execute(update(SIMULATION).where(row).values(stored_bytes=_ALL_BYTES))


def _subjects() -> tuple[tuple[Select[Any], ColumnElement[str], Any], ...]:
    """Return for simulations and tasks: a query of job_id and task number, the state, and the end."""
    simulations = select(SIMULATION.c.id, SIMULATION.c.job_id, null().label("task_id"), _JOB_STATE.label("state"))
    tasks = select(SIMULATION.c.id, SIMULATION.c.job_id, TASK.c.task_id, _TASK_STATE.label("state"))
    return (
        (simulations.order_by(SIMULATION.c.id), _JOB_STATE, SIMULATION.c.end_time),
        (
            tasks.select_from(TASK.join(SIMULATION)).order_by(TASK.c.simulation_id, TASK.c.task_id),
            _TASK_STATE,
            TASK.c.end_time,
        ),
    )


def find_wrong_ends(connection: Connection) -> Iterator[Record]:
    """Yield simulations and tasks where state and end time disagree: id, job_id, task_id, state."""
    for query, state, end in _subjects():
        ended = state.in_(_FINAL)
        yield from connection.execute(query.where(or_(ended & end.is_(None), ~ended & end.is_not(None))))


def find_state_mismatches(connection: Connection, simulation_id: int | None = None) -> Iterator[Record]:
    """Yield simulations and tasks (of one simulation, if given) whose state is not the last one in their history.

    Each as id, job_id, task_id, state, and `recorded`, the last state in the history (None: it has no row).
    """
    of_one = true() if simulation_id is None else SIMULATION.c.id == simulation_id
    newest = select(func.max(HISTORY.c.id)).group_by(HISTORY.c.simulation_id, HISTORY.c.task_id)
    last_transitions = select(HISTORY.c.simulation_id, HISTORY.c.task_id, _TO.label("state")).where(
        HISTORY.c.id.in_(newest)
    )
    recorded = last_transitions.subquery()
    (simulations, _, _), (tasks, _, _) = _subjects()
    of_simulation = and_(recorded.c.simulation_id == SIMULATION.c.id, recorded.c.task_id.is_(None))
    of_task = and_(recorded.c.simulation_id == TASK.c.simulation_id, recorded.c.task_id == TASK.c.task_id)
    for query, state, condition in ((simulations, _JOB_STATE, of_simulation), (tasks, _TASK_STATE, of_task)):
        joined = query.outerjoin(recorded, condition).add_columns(recorded.c.state.label("recorded"))
        yield from connection.execute(joined.where(of_one, state.is_distinct_from(recorded.c.state)))


def add_transition(
    connection: Connection, simulation_id: int, task_id: int | None, recorded: str | None, state: str, audit: Audit
) -> None:
    """Insert the missing row at the end of a history."""
    values = {"simulation_id": simulation_id, "task_id": task_id, "from_state": recorded, "to_state": state}
    connection.execute(insert(HISTORY), {**values, "time": audit.time, "actor": audit.actor, "reason": audit.reason})


def find_invalid_transitions(connection: Connection) -> list[Record]:
    """Return rows of the history that do not continue the row before, or that are not an allowed transition.

    Each as id, job_id, task_id, from_state, to_state, and the to_state of the row before. An audit note keeps the
    state.
    """
    previous_state = func.lag(_TO).over(
        partition_by=(HISTORY.c.simulation_id, HISTORY.c.task_id), order_by=HISTORY.c.id
    )
    steps = select(
        *(HISTORY.c.id, HISTORY.c.simulation_id, HISTORY.c.task_id, HISTORY.c.reason),
        *(_FROM.label("from_state"), _TO.label("to_state"), previous_state.label("before")),
    ).subquery()
    transition = tuple_(steps.c.from_state, steps.c.to_state)
    allowed = or_(
        steps.c.from_state.is_(None),
        and_(steps.c.task_id.is_(None), transition.in_(_pairs(SIMULATION_TRANSITIONS))),
        and_(steps.c.task_id.is_not(None), transition.in_(_pairs(TASK_TRANSITIONS))),
        and_(steps.c.from_state == steps.c.to_state, steps.c.reason.is_not(None)),
    )
    query = (
        select(steps.c.id, SIMULATION.c.job_id, steps.c.task_id, steps.c.from_state, steps.c.to_state, steps.c.before)
        .join_from(steps, SIMULATION, SIMULATION.c.id == steps.c.simulation_id)
        .where(or_(steps.c.from_state.is_distinct_from(steps.c.before), ~allowed))
        .order_by(steps.c.id)
    )
    return list(connection.execute(query))


def _pairs(transitions: Transitions) -> list[tuple[str, str]]:
    return [(str(state), str(to)) for state, targets in transitions.items() for to in targets]


def unknown_states(connection: Connection) -> Iterator[Record]:
    """Yield simulations and tasks in an unknown state: id, job_id, task_id, state."""
    for query, state, _ in _subjects():
        yield from connection.execute(query.where(state.not_in([str(known) for known in EntityState])))


def open_tasks(connection: Connection) -> list[Record]:
    """Return tasks that have not ended although their simulation has: id, job_id, task_id, state, job_state."""
    _, (query, state, _) = _subjects()
    query_open = query.add_columns(_JOB_STATE.label("job_state")).where(_JOB_STATE.in_(_FINAL), state.not_in(_FINAL))
    return list(connection.execute(query_open))


def miscounted_tasks(connection: Connection) -> list[Record]:
    """Return tasks with impossible primaries: id, job_id, task_id, state, simulated, requested.

    A task never simulates more than was requested. A task that a worker reported as completed has simulated exactly
    that; only yaptide's own executors count primaries themselves, and may have fewer.
    """
    _, (query, state, _) = _subjects()
    reported = (
        select(literal(1))
        .where(HISTORY.c.simulation_id == TASK.c.simulation_id, HISTORY.c.task_id == TASK.c.task_id)
        .where(_TO.in_([str(EntityState.COMPLETED)]), HISTORY.c.actor == "worker")
        .correlate(TASK)
        .exists()
    )
    fewer = and_(state == str(EntityState.COMPLETED), TASK.c.simulated_primaries < TASK.c.requested_primaries)
    wrong = or_(TASK.c.simulated_primaries > TASK.c.requested_primaries, fewer & reported)
    return list(
        connection.execute(query.add_columns(TASK.c.simulated_primaries, TASK.c.requested_primaries).where(wrong))
    )


def find_incomplete(connection: Connection) -> Iterator[tuple[str, Record]]:
    """Yield what is missing and where: "input" or "tasks" (job_id, None), or "pages" of an estimator (job_id, name)."""
    simulations = select(SIMULATION.c.job_id, null()).order_by(SIMULATION.c.id)
    # Ended simulations from an older database may lack tasks; one that has not ended would never end.
    for missing, table, where in (("input", INPUT, true()), ("tasks", TASK, _JOB_STATE.not_in(_FINAL))):
        has = select(literal(1)).where(table.c.simulation_id == SIMULATION.c.id).correlate(SIMULATION).exists()
        yield from ((missing, row) for row in connection.execute(simulations.where(where, ~has)))
    has = select(literal(1)).where(PAGE.c.estimator_id == ESTIMATOR.c.id).correlate(ESTIMATOR).exists()
    estimators = select(SIMULATION.c.job_id, ESTIMATOR.c.name).join_from(ESTIMATOR, SIMULATION)
    yield from (("pages", row) for row in connection.execute(estimators.where(~has).order_by(ESTIMATOR.c.id)))


def find_orphans(connection: Connection) -> Iterator[tuple[str, str, Any, str]]:
    """Yield rows that refer to a missing row: table, column, value, and the table that should have it."""
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_keys:
            column, parent = key.parent, key.column.table.alias()
            lost = select(column).outerjoin_from(table, parent, parent.c[key.column.name] == column)
            query = lost.where(column.is_not(None), parent.c[key.column.name].is_(None)).distinct().order_by(column)
            for value in connection.execute(query).scalars():
                yield table.name, column.name, value, key.column.table.description
    known = select(literal(1)).where(TASK.c.simulation_id == HISTORY.c.simulation_id)
    known = known.where(TASK.c.task_id == HISTORY.c.task_id).correlate(HISTORY)
    lost_history = select(HISTORY.c.id).where(HISTORY.c.task_id.is_not(None), ~known.exists())
    lost_history = lost_history.where(HISTORY.c.simulation_id.in_(select(SIMULATION.c.id)))
    for value in connection.execute(lost_history.order_by(HISTORY.c.id)).scalars():
        yield "StateHistory", "id", value, "Task"


def find_halves(connection: Connection) -> Iterator[tuple[str, int, str]]:
    """Yield rows of a joined table whose other half is missing: table of the row, id, table of the missing half."""
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


def find_late_sequences(connection: Connection) -> Iterator[tuple[str, int, int]]:
    """Yield PostgreSQL sequences that would repeat a number: table, next number, largest number in use."""
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
    """Set a sequence to continue after the largest number in use."""
    largest = select(func.max(Base.metadata.tables[table].c.id)).scalar_subquery()
    connection.execute(select(func.setval(func.pg_get_serial_sequence(f'"{table}"', "id"), largest)))


def _counted() -> Sequence[Table]:
    """Return the tables whose ids the database generates."""
    tables = Base.metadata.sorted_tables
    return [table for table in tables if not table.c.id.foreign_keys and isinstance(table.c.id.type, Integer)]


def check_sqlite_file(connection: Connection) -> list[str]:
    """Return the errors that SQLite reports in its file; PostgreSQL has its own tools for this."""
    if connection.dialect.name != "sqlite":
        return []
    messages = connection.exec_driver_sql("PRAGMA integrity_check(100)").scalars()
    return [line for line in messages if line != "ok"]

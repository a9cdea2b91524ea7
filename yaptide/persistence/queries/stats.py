"""Queries for statistics."""

from datetime import datetime

from sqlalchemy import BigInteger, Connection, cast, func, literal, select, text

from yaptide.persistence.engine import Record
from yaptide.persistence.models.base import Base
from yaptide.persistence.models.simulations import OPEN
from yaptide.persistence.models.tables import ESTIMATOR, INPUT, LOGFILES, PAGE, SIMULATION, TASK, USER
from yaptide.persistence.models.tasks import WAITING

_PENDING = text("task_state = 'PENDING'")  # a literal, for the same reason as WAITING
_PAYLOADS = {"input": INPUT, "estimator": ESTIMATOR, "page": PAGE, "logfiles": LOGFILES}


def count_rows(connection: Connection) -> dict[str, int]:
    """Count the rows of each table."""
    tables = Base.metadata.sorted_tables
    counts = (select(func.count()).select_from(table).scalar_subquery() for table in tables)
    return dict(zip((table.name for table in tables), connection.execute(select(*counts)).one(), strict=True))


def count_payloads(connection: Connection) -> list[Record]:
    """Return for each kind of payload: kind, payloads, stored_bytes, and text_bytes of their JSON text."""
    rows = []
    for kind, table in _PAYLOADS.items():
        sums = (func.sum(func.length(table.c.compressed_data)), func.sum(table.c.content_size))
        stored, content = (cast(func.coalesce(total, 0), BigInteger) for total in sums)
        columns = (literal(kind).label("kind"), func.count().label("payloads"))
        query = select(*columns, stored.label("stored_bytes"), content.label("text_bytes")).select_from(table)
        rows.append(connection.execute(query).one())
    return rows


def list_largest(connection: Connection, count: int) -> list[Record]:
    """Return the simulations with the most bytes: job_id, username, job_state, stored_bytes."""
    query = (
        select(SIMULATION.c.job_id, USER.c.username, SIMULATION.c.job_state, SIMULATION.c.stored_bytes)
        .join_from(SIMULATION, USER)
        .order_by(SIMULATION.c.stored_bytes.desc(), SIMULATION.c.id)
    )
    return list(connection.execute(query.limit(count)))


def disk_bytes(connection: Connection) -> int:
    """Return the bytes that the database takes on disk, including indexes and free space."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one())
    pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
    return int(pages * size)


def open_simulations(connection: Connection) -> dict[str, int]:
    """Count the simulations in each state that is not final; states without any are omitted."""
    state = SIMULATION.c.job_state
    rows = connection.execute(select(state, func.count()).where(OPEN).group_by(state))
    return {str(name): count for name, count in rows}


def open_tasks(connection: Connection) -> dict[str, int]:
    """Count the waiting and the running tasks; states without any are omitted."""
    state = TASK.c.task_state
    rows = connection.execute(select(state, func.count()).where(WAITING).group_by(state))
    return {str(name): count for name, count in rows}


def oldest_waiting(connection: Connection) -> dict[str, datetime]:
    """Return for each simulator with waiting tasks the earliest submission of their simulations."""
    waits = select(literal(1)).where(TASK.c.simulation_id == SIMULATION.c.id, _PENDING).exists()
    kind = SIMULATION.c.sim_type
    query = select(kind, func.min(SIMULATION.c.start_time).label("submitted")).where(OPEN, waits).group_by(kind)
    return {row.sim_type: row.submitted for row in connection.execute(query)}


def stored_bytes(connection: Connection) -> int:
    """Return the bytes that the payloads of all simulations take."""
    total = func.coalesce(func.sum(SIMULATION.c.stored_bytes), 0)
    return int(connection.execute(select(cast(total, BigInteger))).scalar_one())

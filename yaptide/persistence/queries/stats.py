"""Queries about how much there is."""

from datetime import datetime

from sqlalchemy import BigInteger, Connection, cast, func, literal, select, text

from yaptide.persistence.engine import Record
from yaptide.persistence.models import (
    Base,
    EstimatorModel,
    InputModel,
    LogfilesModel,
    PageModel,
    SimulationModel,
    TaskModel,
    UserModel,
)
from yaptide.persistence.models.base import table_of
from yaptide.persistence.models.simulations import OPEN
from yaptide.persistence.models.tasks import WAITING

_SIMULATION = table_of(SimulationModel)
_TASK = table_of(TaskModel)
_USER = table_of(UserModel)
_PENDING = text("task_state = 'PENDING'")  # written out, for the same reason as WAITING
_PAYLOADS = {
    "input": table_of(InputModel),
    "estimator": table_of(EstimatorModel),
    "page": table_of(PageModel),
    "logfiles": table_of(LogfilesModel),
}


def count_rows(connection: Connection) -> dict[str, int]:
    """How many rows each table has."""
    tables = Base.metadata.sorted_tables
    counts = (select(func.count()).select_from(table).scalar_subquery() for table in tables)
    return dict(zip((table.name for table in tables), connection.execute(select(*counts)).one(), strict=True))


def count_payloads(connection: Connection) -> list[Record]:
    """For each kind of payload: kind, payloads, stored_bytes that they take, text_bytes of their JSON text."""
    found = []
    for kind, table in _PAYLOADS.items():
        sums = (func.sum(func.length(table.c.compressed_data)), func.sum(table.c.content_size))
        stored, content = (cast(func.coalesce(total, 0), BigInteger) for total in sums)
        columns = (literal(kind).label("kind"), func.count().label("payloads"))
        query = select(*columns, stored.label("stored_bytes"), content.label("text_bytes")).select_from(table)
        found.append(connection.execute(query).one())
    return found


def list_largest(connection: Connection, count: int) -> list[Record]:
    """The simulations that take most: job_id, username, job_state, stored_bytes."""
    query = (
        select(_SIMULATION.c.job_id, _USER.c.username, _SIMULATION.c.job_state, _SIMULATION.c.stored_bytes)
        .join_from(_SIMULATION, _USER)
        .order_by(_SIMULATION.c.stored_bytes.desc(), _SIMULATION.c.id)
    )
    return list(connection.execute(query.limit(count)))


def disk_bytes(connection: Connection) -> int:
    """Bytes that the database takes on its disk, indexes and free space included."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one())
    pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
    return int(pages * size)


def open_simulations(connection: Connection) -> dict[str, int]:
    """How many simulations there are in each state that is not final; states without any are left out."""
    state = _SIMULATION.c.job_state
    rows = connection.execute(select(state, func.count()).where(OPEN).group_by(state))
    return {str(found): count for found, count in rows}


def open_tasks(connection: Connection) -> dict[str, int]:
    """How many tasks wait and how many run; states without any are left out."""
    state = _TASK.c.task_state
    rows = connection.execute(select(state, func.count()).where(WAITING).group_by(state))
    return {str(found): count for found, count in rows}


def oldest_waiting(connection: Connection) -> dict[str, datetime]:
    """For each simulator for which tasks wait: when the oldest simulation of these was submitted."""
    waits = select(literal(1)).where(_TASK.c.simulation_id == _SIMULATION.c.id, _PENDING).exists()
    kind = _SIMULATION.c.sim_type
    query = select(kind, func.min(_SIMULATION.c.start_time).label("submitted")).where(OPEN, waits).group_by(kind)
    return {row.sim_type: row.submitted for row in connection.execute(query)}


def stored_bytes(connection: Connection) -> int:
    """Bytes that the payloads of all simulations take in the store."""
    total = func.coalesce(func.sum(_SIMULATION.c.stored_bytes), 0)
    return int(connection.execute(select(cast(total, BigInteger))).scalar_one())

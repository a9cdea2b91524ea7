"""Queries that read a simulation as a whole, and insert one from an archive."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from yaptide.persistence.engine import Record
from yaptide.persistence.models import SimulationModel
from yaptide.persistence.models.base import Base, table_of
from yaptide.persistence.models.tables import (
    BATCH_SIMULATION,
    CLUSTER,
    ESTIMATOR,
    HISTORY,
    INPUT,
    LOGFILES,
    PAGE,
    SIMULATION,
    TASK,
    USER,
)
from yaptide.persistence.queries.simulations import SUBTABLES

_PAYLOAD = ("id", "content_size", "content_sha256")


def describe_simulation(connection: Connection, job_id: str) -> Record | None:
    """Return all columns of a simulation, with `username` and `cluster_name` (None: it did not run on a cluster)."""
    query = (
        select(*SIMULATION.c, USER.c.username, CLUSTER.c.cluster_name)
        .join(USER, USER.c.id == SIMULATION.c.user_id)
        .outerjoin(BATCH_SIMULATION, BATCH_SIMULATION.c.id == SIMULATION.c.id)
        .outerjoin(CLUSTER, CLUSTER.c.id == BATCH_SIMULATION.c.cluster_id)
    )
    return connection.execute(query.where(SIMULATION.c.job_id == job_id)).first()


def list_tasks(connection: Connection, simulation_id: int) -> list[Record]:
    """Return all columns of a simulation's tasks, by number."""
    return _rows(connection, TASK, TASK.c.keys(), TASK.c.task_id, simulation_id=simulation_id)


def list_inputs(connection: Connection, simulation_id: int) -> list[Record]:
    """Return id, size and digest of the input of a simulation, which has just one."""
    return _rows(connection, INPUT, _PAYLOAD, INPUT.c.id, simulation_id=simulation_id)


def list_logfiles(connection: Connection, simulation_id: int) -> list[Record]:
    """Return id, size and digest of the log files of a simulation, in order of arrival."""
    return _rows(connection, LOGFILES, _PAYLOAD, LOGFILES.c.id, simulation_id=simulation_id)


def list_estimators(connection: Connection, simulation_id: int) -> list[Record]:
    """Return id, size, digest, name and file name of the estimators of a simulation, in their order."""
    columns = (*_PAYLOAD, "name", "file_name")
    return _rows(connection, ESTIMATOR, columns, ESTIMATOR.c.id, simulation_id=simulation_id)


def list_pages(connection: Connection, estimator_id: int) -> list[Record]:
    """Return id, size, digest, number, name and dimension of the pages of an estimator, by number."""
    columns = (*_PAYLOAD, "page_number", "page_name", "page_dimension")
    return _rows(connection, PAGE, columns, PAGE.c.page_number, estimator_id=estimator_id)


def _rows(connection: Connection, table: Table, columns: Sequence[str], order: Any, **parent: int) -> list[Record]:
    query = select(*(table.c[name] for name in columns)).order_by(order)
    return list(connection.execute(query.filter_by(**parent)).all())


def read_payload(connection: Connection, model: type[Base], number: int) -> bytes:
    """Return the stored bytes of a payload by the id of its row in `model`."""
    table = table_of(model)
    data: bytes = connection.execute(select(table.c.compressed_data).where(table.c.id == number)).scalar_one()
    return data


def cluster_named(connection: Connection, cluster_name: str) -> int | None:
    """Return the id of the cluster with this name."""
    return connection.execute(select(CLUSTER.c.id).where(CLUSTER.c.cluster_name == cluster_name)).scalar()


def add_simulation(connection: Connection, values: Mapping[str, Any], cluster_id: int | None) -> int:
    """Insert a simulation; return its id."""
    number = add_row(connection, SimulationModel, values)
    subtable, _ = SUBTABLES[values["platform"]]
    connection.execute(insert(subtable), {"id": number} | ({} if cluster_id is None else {"cluster_id": cluster_id}))
    return number


def add_tasks(connection: Connection, simulation_id: int, platform: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the tasks of a simulation."""
    if rows:
        common = {"simulation_id": simulation_id, "platform": platform}
        connection.execute(insert(TASK), [{**common, **row} for row in rows])
        _, add_subtasks = SUBTABLES[platform]
        connection.execute(add_subtasks, {"simulation_id": simulation_id})


def add_history(connection: Connection, simulation_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the history of a simulation, oldest first."""
    if rows:
        connection.execute(insert(HISTORY), [{"simulation_id": simulation_id, **row} for row in rows])


def add_row(connection: Connection, model: type[Base], values: Mapping[str, Any]) -> int:
    """Insert a row; return its id."""
    table = table_of(model)
    return int(connection.execute(insert(table).returning(table.c.id), values).scalar_one())

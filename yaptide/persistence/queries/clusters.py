"""Queries about clusters."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from yaptide.persistence.engine import Record
from yaptide.persistence.models.tables import BATCH_SIMULATION, CLUSTER


def list_names(connection: Connection) -> list[str]:
    """Return the names of all clusters in alphabetical order."""
    return list(connection.execute(select(CLUSTER.c.cluster_name).order_by(CLUSTER.c.cluster_name)).scalars())


def all_clusters(connection: Connection) -> list[Record]:
    """Return all clusters by name, with the number of their simulations."""
    columns = ("cluster_name", "host", "port", "scratch_folder")
    count = (
        select(func.count()).where(BATCH_SIMULATION.c.cluster_id == CLUSTER.c.id).correlate(CLUSTER).scalar_subquery()
    )
    query = select(*(CLUSTER.c[name] for name in columns), count.label("simulations"))
    return list(connection.execute(query.order_by(CLUSTER.c.cluster_name)))


def find_cluster(connection: Connection, name: str) -> Record | None:
    """Return the cluster with this name."""
    return connection.execute(select(CLUSTER).where(CLUSTER.c.cluster_name == name)).first()


def add_cluster(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert a cluster; the database raises IntegrityError if the name is taken."""
    connection.execute(insert(CLUSTER), dict(values))


def change_cluster(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Update values of a cluster."""
    connection.execute(update(CLUSTER).where(CLUSTER.c.cluster_name == name), dict(values))


def remove_cluster(connection: Connection, name: str) -> None:
    """Delete a cluster; the database raises IntegrityError if simulations ran on it."""
    connection.execute(delete(CLUSTER).where(CLUSTER.c.cluster_name == name))

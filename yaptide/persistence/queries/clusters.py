"""Queries about clusters."""

from sqlalchemy import Connection, select

from yaptide.persistence.models import ClusterModel


def names(connection: Connection) -> list[str]:
    """Names of all clusters, in alphabetical order."""
    return list(connection.execute(select(ClusterModel.cluster_name).order_by(ClusterModel.cluster_name)).scalars())

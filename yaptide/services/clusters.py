"""HPC clusters."""

from yaptide.persistence.queries import clusters
from yaptide.services.backend import Backend


def names(backend: Backend) -> list[str]:
    """Names of all clusters, in alphabetical order."""
    with backend.database.reading() as connection:
        return clusters.names(connection)

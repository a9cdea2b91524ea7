"""Whose simulation it is."""

from sqlalchemy import Connection

from yaptide.domain.errors import Forbidden, NotFound
from yaptide.persistence.engine import Record
from yaptide.persistence.queries import simulations
from yaptide.persistence.queries.users import User

#: The web front end knows this text and stays quiet about it.
NO_SUCH_JOB = "Job with provided ID does not exist"
NOT_YOURS = "Job with provided ID does not belong to the user"


def owned(connection: Connection, user: User, job_id: str) -> Record:
    """The simulation with this public name; raises NotFound, or Forbidden if it is somebody else's."""
    return checked(user, simulations.by_job(connection, job_id))


def checked(user: User, simulation: Record | None) -> Record:
    """The simulation that was found; raises what `owned` does."""
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    check_owner(user, simulation.user_id)
    return simulation


def check_owner(user: User, owner_id: int) -> None:
    """Raise Forbidden unless `user` is the owner."""
    if owner_id != user.id:
        raise Forbidden(NOT_YOURS)

"""Authorisation: what a user may do with a simulation. Everything that reads or changes one asks here."""

from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection

from yaptide.domain.errors import Forbidden, NotFound
from yaptide.persistence.engine import Record
from yaptide.persistence.queries import simulations
from yaptide.persistence.queries.users import User

#: The web front end recognises this text and does not show it.
NO_SUCH_JOB = "Job with provided ID does not exist"
NOT_YOURS = "Job with provided ID does not belong to the user"
#: Anyone with access to the command line on the machine of the database.
ADMINISTRATOR = User(0, "operator", "")


class Action(StrEnum):
    """An action on an existing simulation."""

    READ = "read"
    """Read its state, tasks, input, results, log files and history."""
    RUN = "run"
    """Get the update key, with which tasks are run and reported."""
    CANCEL = "cancel"
    DELETE = "delete"


class Owned(Protocol):
    """Anything that belongs to a user."""

    @property
    def user_id(self) -> int:
        """The id of the user."""


def may(user: User, action: Action, simulation: Owned) -> bool:  # noqa: ARG001 - all actions need the same rights
    """Return whether `user` may perform the action: the owner and the administrator may."""
    return user is ADMINISTRATOR or user.id == simulation.user_id


def listed_owner(user: User) -> int | None:
    """Return the user whose simulations `user` sees in lists and counts; None: those of all users."""
    return None if user is ADMINISTRATOR else user.id


def require_access(user: User, action: Action, simulation: Owned) -> None:
    """Raise Forbidden unless `user` may perform the action."""
    if not may(user, action, simulation):
        raise Forbidden(NOT_YOURS)


def find_readable(connection: Connection, user: User, job_id: str) -> Record:
    """Return the simulation with this job_id if `user` may read it; raise NotFound or Forbidden."""
    return require_readable(user, simulations.by_job(connection, job_id))


def require_readable(user: User, simulation: Record | None) -> Record:
    """Return a simulation that was looked up if `user` may read it; raise NotFound or Forbidden."""
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    require_access(user, Action.READ, simulation)
    return simulation

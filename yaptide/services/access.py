"""Authorisation: what a user may do with a simulation. Everything that reads or changes one asks here."""

from collections.abc import Collection
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection

from yaptide.domain import names
from yaptide.domain.errors import Forbidden, NotFound
from yaptide.persistence.engine import Record
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER
from yaptide.persistence.queries import simulations
from yaptide.persistence.queries.users import User

#: The web front end recognises this text and does not show it.
NO_SUCH_JOB = "Job with provided ID does not exist"
NOT_YOURS = "Job with provided ID does not belong to the user"
#: Anyone with access to the command line on the machine of the database.
ADMINISTRATOR = User(0, "operator", "")
#: How settings mark users of Keycloak.
_KEYCLOAK = "keycloak"


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


def may_use_clusters(user: User) -> bool:
    """Whether a user may submit to clusters: there they are who they are at Keycloak."""
    return user.is_keycloak


def parse_operator(text: str) -> tuple[str, str]:
    """Provider and name of a user as a setting gives them: `keycloak:bob`, or `alice` for one with a password."""
    provider, colon, name = text.partition(":")
    is_keycloak = bool(colon) and provider == _KEYCLOAK
    return (
        (KEYCLOAK_USER, names.normalize_name(name.strip()))
        if is_keycloak
        else (YAPTIDE_USER, names.normalize_name(text))
    )


def is_operator(operators: Collection[tuple[str, str]], user: User) -> bool:
    """Whether a user administers the installation: is one of `operators`, each as `parse_operator` gives it."""
    return (user.auth_provider, user.username) in operators


def require_operator(operators: Collection[tuple[str, str]], user: User) -> None:
    """Raise Forbidden unless `is_operator`."""
    if not is_operator(operators, user):
        raise Forbidden("Only operators see this page: an administrator names them in YAPTIDE_ADMINS")


def find_readable(connection: Connection, user: User, job_id: str) -> Record:
    """Return the simulation with this job_id if `user` may read it; raise NotFound or Forbidden."""
    return require_readable(user, simulations.by_job(connection, job_id))


def require_readable(user: User, simulation: Record | None) -> Record:
    """Return a simulation that was looked up if `user` may read it; raise NotFound or Forbidden."""
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    require_access(user, Action.READ, simulation)
    return simulation

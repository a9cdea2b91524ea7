"""Authorisation: what a user may do with a simulation. Everything that reads or changes one asks here."""

from collections.abc import Collection
from typing import Protocol

from sqlalchemy import Connection

from yaptide.domain import names
from yaptide.domain.errors import Forbidden, NotFound
from yaptide.domain.rights import ALLOWED, Action as Action
from yaptide.persistence.engine import Record
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER
from yaptide.persistence.queries import simulations
from yaptide.persistence.queries.users import User

#: The web front end recognises this text and does not show it.
NO_SUCH_JOB = "Job with provided ID does not exist"
NOT_YOURS = "Job with provided ID does not belong to the user"
#: By whether a wider scope would not help either.
_OUT_OF_SCOPE = {
    False: "The scope of this token is {}, which does not allow this: use a token with a wider scope",
    True: "Tokens cannot change the account: sign in with your password",
}
#: Anyone with access to the command line on the machine of the database.
ADMINISTRATOR = User(0, "operator", "")
#: How settings mark users of Keycloak.
_KEYCLOAK = "keycloak"


class Owned(Protocol):
    """Anything that belongs to a user."""

    @property
    def user_id(self) -> int:
        """The id of the user."""


def may(user: User, action: Action, simulation: Owned | None = None) -> bool:
    """Return whether `user` may perform the action, on this simulation: its owner and the administrator may.

    A program with a token may only do what the token's scope allows.
    """
    if user.token is not None and action not in ALLOWED[user.token.scope]:
        return False
    return simulation is None or user is ADMINISTRATOR or user.id == simulation.user_id


def require_right(user: User, action: Action) -> None:
    """Raise Forbidden unless the token of `user`, if any, allows the action."""
    if user.token is not None and not may(user, action):
        raise Forbidden(_OUT_OF_SCOPE[action == Action.CHANGE_ACCOUNT].format(user.token.scope))


def listed_owner(user: User) -> int | None:
    """Return the user whose simulations `user` sees in lists and counts; None: those of all users."""
    return None if user is ADMINISTRATOR else user.id


def require_access(user: User, action: Action, simulation: Owned) -> None:
    """Raise Forbidden unless `user` may perform the action."""
    require_right(user, action)
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
    """Raise Forbidden unless `is_operator`, now, whatever the user was when a token was created."""
    require_right(user, Action.OPERATE)
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

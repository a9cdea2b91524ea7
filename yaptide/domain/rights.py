"""The actions of users, and the scopes of API tokens: which actions each scope allows."""

from enum import StrEnum


class Action(StrEnum):
    """An action of a user on a simulation, on their own account, or on the installation."""

    READ = "read"
    """Read simulations: state, tasks, input, results, log files and history; and who the caller is."""
    SUBMIT = "submit"
    """Submit simulations, and convert projects."""
    CANCEL = "cancel"
    RUN = "run"
    """Get the update key, with which tasks are run and reported."""
    DELETE = "delete"
    """Delete a simulation."""
    VIEW_ACCOUNT = "view account"
    """List tokens and sessions."""
    CHANGE_ACCOUNT = "change account"
    """Change the password or credentials, create and revoke tokens, end sessions, delete the account."""
    OPERATE = "operate"
    """See the state of the installation and of all users' work; only for administrators."""


class Scope(StrEnum):
    """What a token may do. Each scope includes the ones before it."""

    READ = "read"
    SUBMIT = "submit"
    ALL = "all"
    ADMIN = "admin"


_READ = frozenset({Action.READ})
_SUBMIT = _READ | {Action.SUBMIT, Action.CANCEL}
_ALL = _SUBMIT | {Action.RUN, Action.DELETE, Action.VIEW_ACCOUNT}
#: No scope allows CHANGE_ACCOUNT: a stolen token must not lock its owner out, or renew itself.
ALLOWED: dict[Scope, frozenset[Action]] = {
    Scope.READ: _READ,
    Scope.SUBMIT: _SUBMIT,
    Scope.ALL: _ALL,
    Scope.ADMIN: _ALL | {Action.OPERATE},
}


def least_scope(action: Action) -> Scope | None:
    """Return the narrowest scope that allows an action; None if none does."""
    return next((scope for scope in Scope if action in ALLOWED[scope]), None)

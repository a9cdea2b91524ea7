"""Local users: register, check a password, change it, remove."""

import secrets
from functools import cache

from sqlalchemy.exc import IntegrityError

from yaptide.domain.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from yaptide.persistence.engine import retried
from yaptide.persistence.queries import users
from yaptide.persistence.queries.users import User as User
from yaptide.services import passwords
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.backend import Backend

MAX_NAME = 128


def register(backend: Backend, username: str, password: str | None) -> User:
    """Add a local user; without a password they cannot sign in until they are given one.

    Raises InvalidInput for an unusable name or password, Conflict if the name is taken.
    """
    check_name(username)
    password_hash = None if password is None else passwords.make(password)
    try:
        with backend.database.writing() as connection:
            return users.add_local(connection, username, password_hash)
    except IntegrityError:
        raise Conflict("User existed") from None


def ensure(backend: Backend, username: str) -> User:
    """The local user of this name, made if there is none (who then cannot sign in over the network)."""
    with backend.database.reading() as connection:
        found = users.local_user(connection, username)
    if found is not None:
        return found[0]
    try:
        return register(backend, username, None)
    except Conflict:
        return ensure(backend, username)


def check_password(backend: Backend, username: str, password: str) -> User:
    """The local user with this name and password.

    Raises NotAuthenticated with one and the same message, and after the same time, whether the name or the password is
    wrong.
    """
    with backend.database.reading() as connection:
        found = users.local_user(connection, username)
    user, stored = found or (None, None)
    fits = passwords.verify(stored or _decoy(), password)
    if user is None or stored is None or not fits:
        raise NotAuthenticated("Invalid login or password")
    if passwords.outdated(stored):
        with backend.database.writing() as connection:
            users.set_password(connection, user.id, passwords.make(password))
    return user


@retried
def set_password(backend: Backend, username: str, password: str) -> None:
    """Give a local user another password and end their sessions; raises NotFound, InvalidInput."""
    password_hash = passwords.make(password)
    with backend.database.writing() as connection:
        found = users.local_user(connection, username)
        if found is None:
            raise NotFound(f"There is no local user {username!r}")
        users.set_password(connection, found[0].id, password_hash)
        users.end_sessions(connection, found[0].id)


@retried
def remove(backend: Backend, username: str) -> None:
    """Remove a local user with all their simulations; raises NotFound."""
    with backend.database.writing() as connection:
        found = users.local_user(connection, username)
        if found is None or not users.remove(connection, found[0].id):
            raise NotFound(f"There is no local user {username!r}")


def listing(backend: Backend) -> list[dict[str, object]]:
    """All users by name, with the number of their simulations."""
    with backend.database.reading() as connection:
        rows = users.listing(connection)
    return [{"id": row[0], "username": row[1], "auth_provider": row[2], "simulations": row[3]} for row in rows]


def owner_of(backend: Backend, job_id: str) -> User:
    """Whose simulation it is, for operators, who may do on a user's behalf what the user may; raises NotFound."""
    with backend.database.reading() as connection:
        user = users.owner_of(connection, job_id)
    if user is None:
        raise NotFound(NO_SUCH_JOB)
    return user


def check_name(username: str) -> None:
    """Raise InvalidInput unless `username` can be a user's name."""
    if not username or username != username.strip() or not username.isprintable() or len(username) > MAX_NAME:
        raise InvalidInput(f"A user name has 1 to {MAX_NAME} printable characters and no space at its ends")


@cache
def _decoy() -> str:
    """A hash of nothing anybody knows, to compare with where there is no user."""
    return passwords.make(secrets.token_hex())

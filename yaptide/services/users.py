"""Users: register, check a password, change it; and those whom Keycloak vouches for.

Operators have more in `yaptide.services.administration`.
"""

import logging
import secrets
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from yaptide.domain.errors import Conflict, Forbidden, NotAuthenticated, NotFound
from yaptide.domain.names import composed
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.models.users import YAPTIDE_USER
from yaptide.persistence.queries import users
from yaptide.persistence.queries.users import Account, Subject, User as User
from yaptide.services import administration, devices, passwords
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.backend import Backend
from yaptide.services.devices import Origin
from yaptide.services.passwords import Match

log = logging.getLogger(__name__)

_ANOTHERS = (
    "The account {!r} belongs to another user of Keycloak, who had this name before: ask an administrator, who can "
    "rename that account, or give it to you (yaptide users link)"
)
#: What is wrong with it is not told.
WRONG = "Invalid login or password"


def register_user(
    backend: Backend, username: str, password: str | None, queue: passwords.Queue = passwords.KNOWN
) -> User:
    """Add a local user; without a password they cannot sign in until they are given one.

    Raises InvalidInput for an unusable name or password, Conflict if the name is taken, Busy.
    """
    return administration.add_user(backend.database, username, password, None, backend.limits.password, queue)


def sign_up(backend: Backend, username: str, password: str, address: str = "") -> User:
    """Add somebody at `address` who asks for it as a local user.

    Raises Forbidden if this is not wanted here, TooManyAttempts, and what `register_user` does.
    """
    if not backend.limits.registration:
        raise Forbidden("Nobody can register here: ask the operator of this server for an account")
    backend.throttle.admit_registration(address)
    return register_user(backend, username, password, passwords.STRANGERS)


def find_user(backend: Backend, username: str) -> User | None:
    """The local user of this name, or None."""
    account = _account(backend, username)
    return None if account is None else account.user


def ensure_user(backend: Backend, username: str) -> User:
    """The local user of this name, made if there is none (who then cannot sign in over the network)."""
    found = find_user(backend, username)
    if found is not None:
        return found
    try:
        return register_user(backend, username, None)
    except Conflict:  # somebody was quicker, or the name looks like that of another user
        found = find_user(backend, username)
        if found is None:
            raise
        return found


def of_keycloak(backend: Backend, subject: Subject, username: str) -> User:
    """The user whose account at Keycloak this is, made if there is none; a local user of that name is somebody else.

    Who is called otherwise at Keycloak than before is so here too, or keeps the old name if another account has the new
    one. An account of which nobody knows yet whose it is, as older versions made them, belongs to the first who comes
    by its name. Raises InvalidInput for the name, Forbidden if it is that of somebody else's account.
    """
    administration.check_name(username)
    with backend.database.reading() as connection:
        user = users.keycloak_account(connection, subject)
    if user is None:
        return _new_of_keycloak(backend, subject, username)
    return user if user.username == username else _renamed(backend, user, username)


@retry_contended
def _new_of_keycloak(backend: Backend, subject: Subject, username: str) -> User:
    try:
        with backend.database.writing() as connection:
            user = users.keycloak_user(connection, username)
            if user is None:
                return users.add_keycloak(connection, username, subject)
            if users.claim_account(connection, user.id, subject):
                return user
    except IntegrityError:  # somebody was quicker elsewhere
        pass
    with backend.database.reading() as connection:
        user = users.keycloak_account(connection, subject)
    if user is None:
        log.warning("subject %s of Keycloak is not let in as %s: the account is another's", subject.subject, username)
        raise Forbidden(_ANOTHERS.format(username))
    return user


def confirm_subject(connection: Connection, user: User, subject: Subject) -> None:
    """Have an account stay whose it is until the transaction ends; raises Forbidden if that is somebody else by now."""
    users.lock_user(connection, user.id)
    if users.subject_of(connection, user.id) != subject:
        raise Forbidden(_ANOTHERS.format(user.username))


@retry_contended
def _renamed(backend: Backend, user: User, username: str) -> User:
    try:
        with backend.database.writing() as connection:
            users.rename(connection, user, username)
    except IntegrityError:  # another account has that name: one's own is more than its name
        return user
    return user._replace(username=username)


def check_password(backend: Backend, username: str, password: str, origin: Origin = Origin()) -> User:  # noqa: B008
    """The local user with this name and password, of which somebody at `origin` says that it is theirs.

    Raises NotAuthenticated with one and the same message, and after the same time, whether the name or the password is
    wrong; TooManyAttempts and Busy without a look at the password. Where the user has signed in before, what strangers
    do elsewhere makes no difference.
    """
    account = _account(backend, username)
    place = devices.recognize_device(backend, account, origin)
    with backend.throttle.attempt(composed(username), origin.address, place):
        return _fitting(backend, account, password, passwords.KNOWN if place else passwords.STRANGERS)


def confirm_password(backend: Backend, user: User, password: str) -> None:
    """Have a local user who is signed in show that they know their password; raises what `check_password` does."""
    with backend.throttle.attempt(user.username, place=f"session {user.id}"):
        _fitting(backend, _account(backend, user.username), password, passwords.KNOWN)


def _account(backend: Backend, username: str) -> Account | None:
    """The local user of this name as it is, which may be an old one, or as names are stored."""
    with backend.database.reading() as connection:
        found = users.local_user(connection, username)
        if found is None and composed(username) != username:
            return users.local_user(connection, composed(username))
        return found


def _fitting(backend: Backend, account: Account | None, password: str, queue: passwords.Queue) -> User:
    stored = None if account is None else account.password_hash
    match = passwords.verify_password(stored or _decoy(), password, queue)
    if account is None or stored is None or match is Match.NONE:
        raise NotAuthenticated(WRONG)
    if match is Match.OUTDATED:
        renewed = passwords.make_hash(password)  # takes its time, which nobody else has to wait for
        with backend.database.writing() as connection:
            users.set_password(connection, account.user.id, renewed, instead_of=stored)
    return account.user


def set_password(backend: Backend, username: str, password: str) -> None:
    """Give a local user another password and end their sessions; raises NotFound, InvalidInput."""
    user = administration.find_user(backend.database, username, YAPTIDE_USER)
    administration.set_password(backend.database, user, password, backend.limits.password)


class Storage(NamedTuple):
    """Bytes that the payloads of a user's simulations take, and how many they may take (None: no limit)."""

    used: int
    quota: int | None


def read_storage(backend: Backend, user: User) -> Storage:
    """How much a user stores."""
    with backend.database.reading() as connection:
        return Storage(users.count_used_bytes(connection, user.id), users.get_quota(connection, user.id))


def owner_of(backend: Backend, job_id: str) -> User:
    """Whose simulation it is, for operators, who may do on a user's behalf what the user may; raises NotFound."""
    with backend.database.reading() as connection:
        user = users.owner_of(connection, job_id)
    if user is None:
        raise NotFound(NO_SUCH_JOB)
    return user


@cache
def _decoy() -> str:
    """A hash of nothing anybody knows, to compare with where there is no user."""
    return passwords.make_hash(secrets.token_hex())

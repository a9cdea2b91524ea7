"""Users: register, check and change passwords; and Keycloak users.

`yaptide.services.administration` has the operations for administrators.
"""

import logging
import secrets
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from yaptide.domain.errors import Conflict, Forbidden, NotAuthenticated, NotFound
from yaptide.domain.names import normalize_name
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.models.users import YAPTIDE_USER
from yaptide.persistence.queries import users
from yaptide.persistence.queries.users import Account, Subject, User as User
from yaptide.services import administration, devices, passwords
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.administration import Ending as Ending
from yaptide.services.backend import Backend
from yaptide.services.devices import Origin
from yaptide.services.passwords import Match

log = logging.getLogger(__name__)

_OTHER_SUBJECT = (
    "The account {!r} belongs to another user of Keycloak, who had this name before: ask an administrator to "
    "rename that account, or to link it to you (yaptide users link)"
)
#: Does not tell which of them is wrong.
WRONG = "Invalid login or password"


def register_user(
    backend: Backend, username: str, password: str | None, queue: passwords.Queue = passwords.KNOWN
) -> User:
    """Add a local user; without a password the user cannot sign in until one is set.

    Raises InvalidInput for an invalid name or password, Conflict if the name is taken, Busy.
    """
    return administration.add_user(backend.database, username, password, None, backend.limits.password, queue)


def sign_up(backend: Backend, username: str, password: str, address: str = "") -> User:
    """Register a local user on request from `address`.

    Raises Forbidden if registration is closed, TooManyAttempts, and what `register_user` raises.
    """
    if not backend.limits.registration:
        raise Forbidden("Registration is closed: ask the administrator of this server for an account")
    if (YAPTIDE_USER, normalize_name(username)) in backend.operators:
        raise Forbidden("This name is kept for an administrator of this server, who adds the user on its command line")
    backend.throttle.admit_registration(address)
    return register_user(backend, username, password, passwords.STRANGERS)


def find_user(backend: Backend, username: str) -> User | None:
    """Return the local user of this name, or None."""
    account = _account(backend, username)
    return None if account is None else account.user


def ensure_user(backend: Backend, username: str) -> User:
    """Return the local user of this name; create one, without a password, if there is none."""
    user = find_user(backend, username)
    if user is not None:
        return user
    try:
        return register_user(backend, username, None)
    except Conflict:  # another process was faster, or the name looks like that of another user
        user = find_user(backend, username)
        if user is None:
            raise
        return user


def ensure_keycloak_user(backend: Backend, subject: Subject, username: str) -> User:
    """Return the user with this Keycloak identity, created if necessary; a local user of that name is a different one.

    The name follows changes in Keycloak, unless another account has the new name. An account without an identity, as
    created by older versions, belongs to the first user who signs in with its name. Raises InvalidInput for an invalid
    name, Forbidden if it belongs to another user's account.
    """
    administration.check_name(username)
    with backend.database.reading() as connection:
        user = users.keycloak_account(connection, subject)
    if user is None:
        return _add_keycloak(backend, subject, username)
    return user if user.username == username else _rename(backend, user, username)


@retry_contended
def _add_keycloak(backend: Backend, subject: Subject, username: str) -> User:
    try:
        with backend.database.writing() as connection:
            user = users.keycloak_user(connection, username)
            if user is None:
                return users.add_keycloak(connection, username, subject)
            if users.claim_account(connection, user.id, subject):
                return user
    except IntegrityError:  # another process was faster
        pass
    with backend.database.reading() as connection:
        user = users.keycloak_account(connection, subject)
    if user is None:
        log.warning(
            "rejected Keycloak subject %s as %s: the account belongs to another subject", subject.subject, username
        )
        raise Forbidden(_OTHER_SUBJECT.format(username))
    return user


def confirm_subject(connection: Connection, user: User, subject: Subject) -> None:
    """Lock an account until the transaction ends; raise Forbidden if it no longer belongs to `subject`."""
    users.lock_user(connection, user.id)
    if users.subject_of(connection, user.id) != subject:
        raise Forbidden(_OTHER_SUBJECT.format(user.username))


@retry_contended
def _rename(backend: Backend, user: User, username: str) -> User:
    try:
        with backend.database.writing() as connection:
            users.rename_user(connection, user, username)
    except IntegrityError:  # another account has that name; the user keeps the account with the old one
        return user
    return user._replace(username=username)


def check_password(backend: Backend, username: str, password: str, origin: Origin = Origin()) -> User:  # noqa: B008
    """Return the local user with this name and password, for a request from `origin`.

    Raises NotAuthenticated with the same message, after the same time, whether the name or the password is wrong;
    TooManyAttempts and Busy without checking the password. For origins where the user has signed in before, attempts
    from elsewhere make no difference.
    """
    account = _account(backend, username)
    place = devices.recognize_device(backend, account, origin)
    with backend.throttle.attempt(normalize_name(username), origin.address, place):
        return _verify(backend, account, password, passwords.KNOWN if place else passwords.STRANGERS)


def confirm_password(backend: Backend, user: User, password: str) -> None:
    """Verify the password of a signed-in local user; raise what `check_password` raises."""
    with backend.throttle.attempt(user.username, place=f"session {user.id}"):
        _verify(backend, _account(backend, user.username), password, passwords.KNOWN)


def _account(backend: Backend, username: str) -> Account | None:
    """Return the local user of this exact name (older names are not in normal form), or of its normal form."""
    with backend.database.reading() as connection:
        account = users.local_user(connection, username)
        if account is None and normalize_name(username) != username:
            return users.local_user(connection, normalize_name(username))
        return account


def _verify(backend: Backend, account: Account | None, password: str, queue: passwords.Queue) -> User:
    stored = None if account is None else account.password_hash
    match = passwords.verify_password(stored or _decoy(), password, queue)
    if account is None or stored is None or match is Match.NONE:
        raise NotAuthenticated(WRONG)
    if match is Match.OUTDATED:
        renewed = passwords.make_hash(password)  # slow, therefore outside the transaction
        with backend.database.writing() as connection:
            users.set_password(connection, account.user.id, renewed, instead_of=stored)
    return account.user


def change_password(
    backend: Backend,
    user: User,
    password: str,
    new_password: str,
    ending: Ending = Ending(),  # noqa: B008
) -> None:
    """Replace the password of a signed-in user, and end what `ending` says; all sessions, unless it is given.

    Raises Conflict for a user of Keycloak, and what `confirm_password` and `set_password` raise.
    """
    if user.is_keycloak:
        raise Conflict("You sign in through Keycloak: change your password there")
    confirm_password(backend, user, password)
    administration.set_password(backend.database, user, new_password, backend.limits.password, ending)


def set_password(backend: Backend, username: str, password: str) -> None:
    """Set the password of a local user and end all sessions of the user; raise NotFound, InvalidInput."""
    user = administration.find_user(backend.database, username, YAPTIDE_USER)
    administration.set_password(backend.database, user, password, backend.limits.password)


class Storage(NamedTuple):
    """Bytes that the payloads of a user's simulations take, and how many they may take (None: no limit)."""

    used: int
    quota: int | None


def read_storage(backend: Backend, user: User) -> Storage:
    """Return the storage of a user."""
    with backend.database.reading() as connection:
        return Storage(users.count_used_bytes(connection, user.id), users.get_quota(connection, user.id))


def owner_of(backend: Backend, job_id: str) -> User:
    """Return the owner of a simulation, for administrators who act on the user's behalf; raise NotFound."""
    with backend.database.reading() as connection:
        user = users.owner_of(connection, job_id)
    if user is None:
        raise NotFound(NO_SUCH_JOB)
    return user


@cache
def _decoy() -> str:
    """Return the hash of a random password, for comparison if the user does not exist."""
    return passwords.make_hash(secrets.token_hex())

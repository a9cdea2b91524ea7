"""Queries about users and their sessions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from yaptide.domain.names import make_skeleton
from yaptide.domain.rights import Scope
from yaptide.persistence.engine import Record
from yaptide.persistence.models import (
    KeycloakUserModel,
    SessionModel,
    SimulationModel,
    UserModel,
    YaptideUserModel,
)
from yaptide.persistence.models.base import table_of
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER

_USER = table_of(UserModel)
_LOCAL = table_of(YaptideUserModel)
_KEYCLOAK = table_of(KeycloakUserModel)
_SESSION = table_of(SessionModel)


class HeldToken(NamedTuple):
    """The API token with which a program acts for a user."""

    id: int
    name: str
    scope: Scope
    expires: datetime
    last_used: datetime | None


class User(NamedTuple):
    """A user; `token` is what a program acts with, None for a session and for administrators' commands."""

    id: int
    username: str
    auth_provider: str
    token: HeldToken | None = None

    @property
    def is_keycloak(self) -> bool:
        """Whether the user signs in through Keycloak."""
        return self.auth_provider == KEYCLOAK_USER


class Subject(NamedTuple):
    """The identity of a Keycloak user, which does not depend on the name: realm and subject."""

    issuer: str | None
    subject: str | None


class SignIn(NamedTuple):
    """When, from which address and with which program a session began; empty: unknown."""

    started: datetime
    address: str = ""
    device: str = ""


class Account(NamedTuple):
    """A local user, with what is needed to sign in."""

    user: User
    password_hash: str | None
    known_networks: list[str]


_HAS_SESSION = (
    (_SESSION.c.user_id == _USER.c.id)
    & (_SESSION.c.id == bindparam("session"))
    & (_SESSION.c.expires > bindparam("now", type_=_SESSION.c.expires.type))
)
#: The user of a session; other queries add to it.
BY_SESSION = select(_USER.c.id, _USER.c.username, _USER.c.auth_provider).join(_SESSION, _HAS_SESSION)
_LOCAL_USER = (
    select(_USER.c.id, _USER.c.username, _USER.c.auth_provider, _LOCAL.c.password_hash, _LOCAL.c.known_networks)
    .join(_LOCAL, _LOCAL.c.id == _USER.c.id)
    .where(_USER.c.username == bindparam("username"))
)

_OF_KEYCLOAK = select(_USER.c.id, _USER.c.username, _USER.c.auth_provider).join(_KEYCLOAK, _KEYCLOAK.c.id == _USER.c.id)
_NO_SUBJECT = Subject(None, None)
_NO_CREDENTIALS: dict[str, Any] = {"cert": None, "private_key": None}

_THIS = _USER.c.id == bindparam("user")
_LOCK = select(_USER.c.id).where(_THIS).with_for_update(key_share=True)
_QUOTA = select(_USER.c.quota_bytes).where(_THIS)
_USED = select(func.sum(SimulationModel.stored_bytes)).where(SimulationModel.user_id == bindparam("user"))


def by_session(connection: Connection, session: str, now: datetime) -> User | None:
    """Return the user of a session that has not ended."""
    row = connection.execute(BY_SESSION, {"session": session, "now": now}).first()
    return None if row is None else User(*row)


def local_user(connection: Connection, username: str) -> Account | None:
    """Return the local user of this name, or None."""
    row = connection.execute(_LOCAL_USER, {"username": username}).first()
    return None if row is None else Account(User(*row[:3]), row.password_hash, (row.known_networks or "").split())


def known_networks(connection: Connection, user_id: int) -> list[str]:
    """Return digests of the networks from which a local user has signed in, the latest first."""
    networks = connection.execute(select(_LOCAL.c.known_networks).where(_LOCAL.c.id == user_id)).scalar()
    return (networks or "").split()


def set_known_networks(connection: Connection, user_id: int, networks: Sequence[str]) -> None:
    """Replace the known networks of a local user."""
    row = _LOCAL.c.id == user_id
    connection.execute(update(_LOCAL).where(row).values(known_networks=" ".join(networks)))


def owner_of(connection: Connection, job_id: str) -> User | None:
    """Return the user who owns the simulation with this job_id."""
    query = select(_USER.c.id, _USER.c.username, _USER.c.auth_provider)
    query = query.join(SimulationModel, SimulationModel.user_id == _USER.c.id)
    row = connection.execute(query.where(SimulationModel.job_id == job_id)).first()
    return None if row is None else User(*row)


def lock_user(connection: Connection, user_id: int) -> bool:
    """Lock a user: adding simulations of the user, or removing the user, waits until the transaction ends.

    Returns False if the user does not exist (any more).
    """
    return connection.execute(_LOCK, {"user": user_id}).first() is not None


def get_quota(connection: Connection, user_id: int) -> int | None:
    """Return the quota of a user in bytes of payloads; None: no limit."""
    return connection.execute(_QUOTA, {"user": user_id}).scalar()


def count_used_bytes(connection: Connection, user_id: int) -> int:
    """Return the bytes that the payloads of a user's simulations take."""
    return int(connection.execute(_USED, {"user": user_id}).scalar() or 0)


def add_local(connection: Connection, username: str, password_hash: str | None) -> User:
    """Insert a local user; the database raises IntegrityError if the name is taken or looks like another."""
    values = {"username": username, "auth_provider": YAPTIDE_USER}
    user_id = connection.execute(insert(_USER).returning(_USER.c.id), values).scalar_one()
    own = {"id": user_id, "name_skeleton": make_skeleton(username), "password_hash": password_hash}
    connection.execute(insert(_LOCAL), own)
    return User(user_id, username, YAPTIDE_USER)


def keycloak_account(connection: Connection, subject: Subject) -> User | None:
    """Return the account of a Keycloak identity, or None."""
    row = connection.execute(_OF_KEYCLOAK.where(*_belongs_to(subject))).first()
    return None if row is None else User(*row)


def subject_of(connection: Connection, user_id: int) -> Subject:
    """Return the Keycloak identity of a user, as far as it is known."""
    row = connection.execute(select(_KEYCLOAK.c.issuer, _KEYCLOAK.c.subject).where(_KEYCLOAK.c.id == user_id)).first()
    return _NO_SUBJECT if row is None else Subject(*row)


def keycloak_user(connection: Connection, username: str) -> User | None:
    """Return the Keycloak user of this name, or None."""
    row = connection.execute(_OF_KEYCLOAK.where(_USER.c.username == username)).first()
    return None if row is None else User(*row)


def add_keycloak(connection: Connection, username: str, subject: Subject) -> User:
    """Insert a Keycloak user; the database raises IntegrityError if name or subject already have an account."""
    values = {"username": username, "auth_provider": KEYCLOAK_USER}
    user_id = connection.execute(insert(_USER).returning(_USER.c.id), values).scalar_one()
    connection.execute(insert(_KEYCLOAK), {"id": user_id, **subject._asdict()})
    return User(user_id, username, KEYCLOAK_USER)


def claim_account(connection: Connection, user_id: int, subject: Subject) -> bool:
    """Link a Keycloak account without a subject to `subject`; False if it already has one."""
    free = (_KEYCLOAK.c.id == user_id) & _KEYCLOAK.c.subject.is_(None)
    return connection.execute(update(_KEYCLOAK).where(free).values(**subject._asdict())).rowcount == 1


def link_account(connection: Connection, user_id: int, subject: Subject | None) -> None:
    """Link a Keycloak account to `subject`, or to none; its SSH credentials are removed.

    The database raises IntegrityError if the subject has another account.
    """
    values = (subject or _NO_SUBJECT)._asdict()
    connection.execute(update(_KEYCLOAK).where(_KEYCLOAK.c.id == user_id).values(**values, **_NO_CREDENTIALS))


def rename_user(connection: Connection, user: User, username: str) -> None:
    """Rename a user; the database raises IntegrityError if the name is taken or looks like another.

    SSH credentials of Keycloak users are removed, because the certificate is for the old name.
    """
    connection.execute(update(_USER).where(_USER.c.id == user.id).values(username=username))
    table, values = (
        (_KEYCLOAK, _NO_CREDENTIALS) if user.is_keycloak else (_LOCAL, {"name_skeleton": make_skeleton(username)})
    )
    connection.execute(update(table).where(table.c.id == user.id).values(values))


def _belongs_to(subject: Subject) -> tuple[ColumnElement[bool], ...]:
    return _KEYCLOAK.c.issuer == subject.issuer, _KEYCLOAK.c.subject == subject.subject


def password_hash(connection: Connection, user_id: int) -> str | None:
    """Return the hash of a local user's password; None: the user has none."""
    stored: str | None = connection.execute(select(_LOCAL.c.password_hash).where(_LOCAL.c.id == user_id)).scalar()
    return stored


def set_password(connection: Connection, user_id: int, password_hash: str, instead_of: str | None = None) -> None:
    """Replace the hash of a local user's password, if it is still `instead_of`, where that is given."""
    row = _LOCAL.c.id == user_id
    if instead_of is not None:
        row &= _LOCAL.c.password_hash == instead_of
    connection.execute(update(_LOCAL).where(row).values(password_hash=password_hash))


def remove_user(connection: Connection, user_id: int) -> bool:
    """Delete a user with all data; False if the user does not exist."""
    return connection.execute(delete(_USER).where(_USER.c.id == user_id)).rowcount == 1


def add_session(connection: Connection, session: str, user_id: int, expires: datetime, sign_in: SignIn) -> None:
    """Insert a session, and delete the user's expired ones."""
    is_over = _SESSION.c.expires <= sign_in.started
    connection.execute(delete(_SESSION).where(_SESSION.c.user_id == user_id, is_over))
    place = {"address": sign_in.address or None, "device": sign_in.device or None}
    values = {"id": session, "user_id": user_id, "expires": expires, "started": sign_in.started, **place}
    connection.execute(insert(_SESSION), values)


def list_sessions(connection: Connection, user_id: int, now: datetime, most: int) -> list[Record]:
    """Return the sessions of a user that have not expired, the latest first."""
    columns = (_SESSION.c[name] for name in ("id", "started", "expires", "address", "device"))
    rows = select(*columns).where(_SESSION.c.user_id == user_id, _SESSION.c.expires > now)
    return list(connection.execute(rows.order_by(_SESSION.c.started.desc().nulls_last(), _SESSION.c.id).limit(most)))


def session_start(connection: Connection, session: str) -> datetime | None:
    """Return when a session began, as far as it is known."""
    start: datetime | None = connection.execute(select(_SESSION.c.started).where(_SESSION.c.id == session)).scalar()
    return start


def renew_session(connection: Connection, session: str, user_id: int, expires: datetime) -> bool:
    """Extend a session of this user; False if it does not exist (any more)."""
    row = (_SESSION.c.id == session) & (_SESSION.c.user_id == user_id)
    return connection.execute(update(_SESSION).where(row).values(expires=expires)).rowcount == 1


def has_session(connection: Connection, session: str) -> bool:
    """Return whether the session exists, for any user."""
    return connection.execute(select(_SESSION.c.id).where(_SESSION.c.id == session)).first() is not None


def end_session(connection: Connection, session: str) -> None:
    """Delete a session, which invalidates its tokens."""
    connection.execute(delete(_SESSION).where(_SESSION.c.id == session))


def end_sessions(connection: Connection, user_id: int, keep: str | None = None) -> int:
    """Delete all sessions of a user, except the one to `keep`; return their number."""
    ending = _SESSION.c.user_id == user_id
    if keep is not None:
        ending &= _SESSION.c.id != keep
    return connection.execute(delete(_SESSION).where(ending)).rowcount


def end_own_session(connection: Connection, user_id: int, session: str) -> bool:
    """Delete a session if it is one of this user; return whether it was."""
    ending = (_SESSION.c.id == session) & (_SESSION.c.user_id == user_id)
    return connection.execute(delete(_SESSION).where(ending)).rowcount == 1

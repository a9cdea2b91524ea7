"""Queries about API tokens."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from yaptide.domain.rights import Scope
from yaptide.persistence.engine import Record
from yaptide.persistence.models.tables import TOKEN, USER
from yaptide.persistence.queries.users import HeldToken, User

_LISTED = tuple(TOKEN.c[name] for name in ("name", "scope", "created", "expires", "last_used"))

_HELD = (TOKEN.c.id, TOKEN.c.name, TOKEN.c.scope, TOKEN.c.expires, TOKEN.c.last_used)
_BY_DIGEST = (
    select(USER.c.id, USER.c.username, USER.c.auth_provider, *_HELD)
    .join(TOKEN, TOKEN.c.user_id == USER.c.id)
    .where(
        TOKEN.c.token_sha256 == bindparam("digest"),
        TOKEN.c.expires > bindparam("now", type_=TOKEN.c.expires.type),
    )
)


def by_digest(connection: Connection, digest: str, now: datetime) -> User | None:
    """Return the user of a token that has not expired, with the token; None for any other."""
    row = connection.execute(_BY_DIGEST, {"digest": digest, "now": now}).first()
    if row is None:
        return None
    user_id, username, provider, number, name, scope, expires, last_used = row
    return User(user_id, username, provider, HeldToken(number, name, Scope(scope), expires, last_used))


def set_last_used(connection: Connection, token_id: int, now: datetime, accuracy: timedelta) -> None:
    """Set the time of the last use, unless it is known to this accuracy."""
    is_due = TOKEN.c.last_used.is_(None) | (TOKEN.c.last_used <= now - accuracy)
    connection.execute(update(TOKEN).where(TOKEN.c.id == token_id, is_due).values(last_used=now))


def add_token(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Insert a token; the database raises IntegrityError if the user has one of this name."""
    connection.execute(insert(TOKEN), {"user_id": user_id, **values})


def list_tokens(connection: Connection, user_id: int | None) -> list[Record]:
    """Return name, scope, times and `username` of the tokens of a user (None: of all), by user and name."""
    query = select(*_LISTED, USER.c.username, USER.c.auth_provider).join(USER, USER.c.id == TOKEN.c.user_id)
    if user_id is not None:
        query = query.where(TOKEN.c.user_id == user_id)
    return list(connection.execute(query.order_by(USER.c.username, USER.c.auth_provider, TOKEN.c.name)))


def count_tokens(connection: Connection, user_id: int) -> int:
    """Return the number of a user's tokens."""
    return connection.execute(select(func.count()).where(TOKEN.c.user_id == user_id)).scalar_one()


def remove_token(connection: Connection, user_id: int, name: str) -> bool:
    """Delete a token of a user; False if there is none of this name."""
    row = (TOKEN.c.user_id == user_id) & (TOKEN.c.name == name)
    return connection.execute(delete(TOKEN).where(row)).rowcount == 1


def remove_expired(connection: Connection, user_id: int, now: datetime) -> None:
    """Delete the tokens of a user that have expired."""
    connection.execute(delete(TOKEN).where(TOKEN.c.user_id == user_id, TOKEN.c.expires <= now))


def remove_tokens(connection: Connection, user_id: int) -> int:
    """Delete all tokens of a user; return their number."""
    return connection.execute(delete(TOKEN).where(TOKEN.c.user_id == user_id)).rowcount

"""Queries about API tokens."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from yaptide.domain.rights import Scope
from yaptide.persistence.engine import Record
from yaptide.persistence.models import TokenModel, UserModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.queries.users import HeldToken, User

_USER = table_of(UserModel)
_TOKEN = table_of(TokenModel)
_LISTED = tuple(_TOKEN.c[name] for name in ("name", "scope", "created", "expires", "last_used"))

_HELD = (_TOKEN.c.id, _TOKEN.c.name, _TOKEN.c.scope, _TOKEN.c.expires, _TOKEN.c.last_used)
_BY_DIGEST = (
    select(_USER.c.id, _USER.c.username, _USER.c.auth_provider, *_HELD)
    .join(_TOKEN, _TOKEN.c.user_id == _USER.c.id)
    .where(
        _TOKEN.c.token_sha256 == bindparam("digest"),
        _TOKEN.c.expires > bindparam("now", type_=_TOKEN.c.expires.type),
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
    is_due = _TOKEN.c.last_used.is_(None) | (_TOKEN.c.last_used <= now - accuracy)
    connection.execute(update(_TOKEN).where(_TOKEN.c.id == token_id, is_due).values(last_used=now))


def add_token(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Insert a token; the database raises IntegrityError if the user has one of this name."""
    connection.execute(insert(_TOKEN), {"user_id": user_id, **values})


def list_tokens(connection: Connection, user_id: int | None) -> list[Record]:
    """Return name, scope, times and `username` of the tokens of a user (None: of all), by user and name."""
    query = select(*_LISTED, _USER.c.username, _USER.c.auth_provider).join(_USER, _USER.c.id == _TOKEN.c.user_id)
    if user_id is not None:
        query = query.where(_TOKEN.c.user_id == user_id)
    return list(connection.execute(query.order_by(_USER.c.username, _USER.c.auth_provider, _TOKEN.c.name)))


def count_tokens(connection: Connection, user_id: int) -> int:
    """Return the number of a user's tokens."""
    return connection.execute(select(func.count()).where(_TOKEN.c.user_id == user_id)).scalar_one()


def remove_token(connection: Connection, user_id: int, name: str) -> bool:
    """Delete a token of a user; False if there is none of this name."""
    row = (_TOKEN.c.user_id == user_id) & (_TOKEN.c.name == name)
    return connection.execute(delete(_TOKEN).where(row)).rowcount == 1


def remove_expired(connection: Connection, user_id: int, now: datetime) -> None:
    """Delete the tokens of a user that have expired."""
    connection.execute(delete(_TOKEN).where(_TOKEN.c.user_id == user_id, _TOKEN.c.expires <= now))


def remove_tokens(connection: Connection, user_id: int) -> int:
    """Delete all tokens of a user; return their number."""
    return connection.execute(delete(_TOKEN).where(_TOKEN.c.user_id == user_id)).rowcount

"""Signing in and out. A session is a row; tokens are signed, short-lived proof of having seen it.

Both tokens name the session. Whoever deletes the row has signed out, whatever tokens are still on the way: a refresh
that arrives after the logout finds nothing.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from yaptide.domain.errors import Forbidden, NotAuthenticated
from yaptide.persistence.engine import retried
from yaptide.persistence.queries import users as queries
from yaptide.persistence.queries.users import User
from yaptide.services import users
from yaptide.services.backend import Backend, now

_ACCESS = "access"
_REFRESH = "refresh"
_ALGORITHM = "HS256"

#: The web front end knows this text and stays quiet about it.
NO_TOKEN = "No token provided"  # noqa: S105 - a message, not a secret
EXPIRED = "Log in again: the token is invalid or has expired"


@dataclass(frozen=True, slots=True)
class Token:
    """A token and when it ends."""

    text: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The two tokens of a new session."""

    access: Token
    refresh: Token


def sign_in(backend: Backend, username: str, password: str, address: str = "") -> SignedIn:
    """Begin a session for whoever is at `address`; raises what `users.check_password` does."""
    return begin(backend, users.check_password(backend, username, password, address))


@retried
def begin(backend: Backend, user: User) -> SignedIn:
    """Begin a session of a user who has proved who they are; raises NotAuthenticated if they are gone."""
    session = secrets.token_urlsafe(32)
    refresh = _issue(backend, _REFRESH, session)
    try:
        with backend.database.writing() as connection:
            queries.add_session(connection, session, user.id, refresh.expires, now())
    except IntegrityError:
        raise NotAuthenticated(users.WRONG) from None  # the user has just been removed
    return SignedIn(_issue(backend, _ACCESS, session), refresh)


def authenticate(backend: Backend, access_token: str | None) -> User:
    """Who holds this access token; raises NotAuthenticated without one, Forbidden if it is worthless."""
    session = _session(backend, access_token, _ACCESS)
    with backend.database.glancing() as connection:
        user = queries.by_session(connection, session, now())
    if user is None:
        raise Forbidden(EXPIRED)
    return user


def refresh(backend: Backend, refresh_token: str | None) -> Token:
    """A new access token.

    Raises NotAuthenticated without a token or after the logout (which may overtake this very request), Forbidden if the
    token is forged or too old.
    """
    session = _session(backend, refresh_token, _REFRESH)
    with backend.database.reading() as connection:
        user = queries.by_session(connection, session, now())
    if user is None:
        raise NotAuthenticated(NO_TOKEN)
    return _issue(backend, _ACCESS, session)


def sign_out(backend: Backend, *tokens: str | None) -> None:
    """End the session that any of the tokens names; tokens that are missing or worthless are no error."""
    for token, kind in zip(tokens, (_ACCESS, _REFRESH), strict=False):
        try:
            session = _session(backend, token, kind)
        except (NotAuthenticated, Forbidden):
            continue
        with backend.database.writing() as connection:
            queries.end_session(connection, session)
        return


def _issue(backend: Backend, kind: str, session: str) -> Token:
    import jwt  # noqa: PLC0415 - it takes long to import, and commands sign nobody in

    lifetime = backend.limits.access if kind == _ACCESS else backend.limits.refresh
    expires = now() + lifetime
    claims = {"sid": session, "use": kind, "exp": expires}
    return Token(jwt.encode(claims, backend.signing_key, algorithm=_ALGORITHM), expires)


def _session(backend: Backend, token: str | None, kind: str) -> str:
    import jwt  # noqa: PLC0415 - see above

    if not token:
        raise NotAuthenticated(NO_TOKEN)
    try:
        claims = jwt.decode(
            token, backend.signing_key, algorithms=[_ALGORITHM], options={"require": ["sid", "use", "exp"]}
        )
    except jwt.InvalidTokenError:
        raise Forbidden(EXPIRED) from None
    if claims["use"] != kind or not isinstance(claims["sid"], str):
        raise Forbidden(EXPIRED)
    return claims["sid"]

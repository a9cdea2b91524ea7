"""Signing in and out. A session is a row; tokens are signed, short-lived proof of having seen it.

Both tokens name the session. Whoever deletes the row has signed out, whatever tokens are still on the way: a refresh
that arrives after the logout finds nothing.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from yaptide.domain.errors import Forbidden, NotAuthenticated, NotConfigured
from yaptide.persistence.engine import Record, retry_contended
from yaptide.persistence.queries import simulations, users as queries
from yaptide.persistence.queries.users import Subject, User
from yaptide.services import access, devices, users
from yaptide.services.backend import Backend, Token as Token, utc_now
from yaptide.services.devices import Origin

_ACCESS = "access"
_REFRESH = "refresh"
_ALGORITHM = "HS256"

#: The web front end knows this text and stays quiet about it.
NO_TOKEN = "No token provided"  # noqa: S105 - a message, not a secret
EXPIRED = "Log in again: the token is invalid or has expired"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The two tokens of a session."""

    access: Token
    refresh: Token
    device: Token | None = None
    """What makes the device known; see `yaptide.services.devices`."""
    remark: str | None = None
    """What did not work, though the user is signed in."""


def sign_in(backend: Backend, username: str, password: str, origin: Origin = Origin()) -> SignedIn:  # noqa: B008
    """Begin a session, and know from now on where it was; raises what `users.check_password` does."""
    user = users.check_password(backend, username, password, origin)
    return replace(begin_session(backend, user), device=devices.remember_device(backend, user, origin))


def sign_in_through_keycloak(
    backend: Backend, token: str | None, username: str | None, access_token: str | None, refresh_token: str | None
) -> SignedIn:
    """Begin the session of who has an access token of Keycloak, or go on with it; it ends with that token.

    `username` has to be that of the token; None if it comes with nothing but the token.

    `access_token` and `refresh_token` are ours, if there is a session. Who goes on with one that a logout has ended
    meanwhile stays signed out (NotAuthenticated). Raises NotConfigured, and what `keycloak.identify_user` does.
    """
    from yaptide.services import credentials, keycloak  # noqa: PLC0415 - as jwt below

    if backend.keycloak is None:
        raise NotConfigured("Signing in through Keycloak is not configured on this server")
    identity = keycloak.identify_user(backend.keycloak, token)
    if username not in (None, identity.username):
        raise Forbidden("The user name is not that of Keycloak's token")
    username = identity.username
    user = users.of_keycloak(backend, identity.subject, username)
    # A certificate is issued to the name at Keycloak, also where that is taken here.
    remark = credentials.renew_credentials(backend, user._replace(username=username), token or "", identity.subject)
    present = _named(backend, access_token, refresh_token)
    ends = min(identity.expires, utc_now() + backend.limits.refresh)
    if present is not None and _go_on(backend, present, user, ends):
        signed_in = _tokens(backend, present, ends)
    else:
        signed_in = begin_session(backend, user, ends, identity.subject)
    return replace(signed_in, remark=remark)


@retry_contended
def begin_session(
    backend: Backend, user: User, ends: datetime | None = None, subject: Subject | None = None
) -> SignedIn:
    """Begin a session of a user who has proved who they are, until `ends`, or as long as the settings allow.

    Raises NotAuthenticated if the user is gone, Forbidden if the account is no longer that of `subject` of Keycloak.
    """
    session = secrets.token_urlsafe(32)
    ends = ends or utc_now() + backend.limits.refresh
    try:
        with backend.database.writing() as connection:
            if subject is not None:
                users.confirm_subject(connection, user, subject)
            queries.add_session(connection, session, user.id, ends, utc_now())
    except IntegrityError:
        raise NotAuthenticated(users.WRONG) from None  # the user has just been removed
    return _tokens(backend, session, ends)


@retry_contended
def _go_on(backend: Backend, session: str, user: User, ends: datetime) -> bool:
    """Have a session end later; False if it was somebody else's, and has ended now."""
    with backend.database.writing() as connection:
        if queries.renew_session(connection, session, user.id, ends):
            return True
        if not queries.has_session(connection, session):
            raise NotAuthenticated(NO_TOKEN)
        queries.end_session(connection, session)
        return False


def session_of_token(backend: Backend, access_token: str | None) -> str:
    """The session that an access token names, which may have ended.

    Raises NotAuthenticated without one, Forbidden if it is worthless.
    """
    return _session(backend, access_token, _ACCESS)[0]


def authenticate_user(backend: Backend, access_token: str | None) -> User:
    """Who holds this access token; raises what `session_of_token` does, Forbidden after the logout."""
    session = session_of_token(backend, access_token)
    with backend.database.read_committed() as connection:
        user = queries.by_session(connection, session, utc_now())
    if user is None:
        raise Forbidden(EXPIRED)
    return user


def authenticate_with(
    backend: Backend, connection: Connection, access_token: str | None, job_id: str
) -> tuple[User, Record]:
    """Who holds this access token, and their simulation with this public name, in one round trip.

    Raises what `authenticate_user` and `access.find_readable` do.
    """
    found = simulations.by_session(connection, session_of_token(backend, access_token), job_id, utc_now())
    if found is None:
        raise Forbidden(EXPIRED)
    user, simulation = found
    return user, access.require_readable(user, simulation)


def refresh_access(backend: Backend, refresh_token: str | None) -> Token:
    """A new access token, which ends with the session at the latest.

    Raises NotAuthenticated without a token and when the session is over, by time or by a logout (which may overtake
    this very request), Forbidden if the token is forged.
    """
    session, ends = _read(backend, refresh_token, _REFRESH)
    with backend.database.reading() as connection:
        user = queries.by_session(connection, session, utc_now())
    if user is None:
        raise NotAuthenticated(NO_TOKEN)
    return _access(backend, session, ends)


def has_ended(backend: Backend, access_token: str | None) -> bool:
    """Whether an access token is one of ours whose time is over; its session may go on."""
    with suppress(NotAuthenticated, Forbidden):
        return _read(backend, access_token, _ACCESS)[1] <= utc_now()
    return False


def goes_on(backend: Backend, refresh_token: str | None) -> bool:
    """Whether a session can still be refreshed."""
    with suppress(NotAuthenticated, Forbidden):
        return bool(refresh_access(backend, refresh_token))
    return False


def sign_out(backend: Backend, access_token: str | None, refresh_token: str | None) -> None:
    """End the session that any of the tokens names; tokens that are missing or worthless are no error."""
    session = _named(backend, access_token, refresh_token)
    if session is not None:
        with backend.database.writing() as connection:
            queries.end_session(connection, session)


def _named(backend: Backend, access_token: str | None, refresh_token: str | None) -> str | None:
    """The session that the first of the tokens names that is worth anything."""
    for token, kind in ((access_token, _ACCESS), (refresh_token, _REFRESH)):
        with suppress(NotAuthenticated, Forbidden):
            return _session(backend, token, kind)[0]
    return None


def _tokens(backend: Backend, session: str, ends: datetime) -> SignedIn:
    return SignedIn(_access(backend, session, ends), _issue(backend, _REFRESH, session, ends))


def _access(backend: Backend, session: str, ends: datetime) -> Token:
    return _issue(backend, _ACCESS, session, min(ends, utc_now() + backend.limits.access))


def _issue(backend: Backend, kind: str, session: str, expires: datetime) -> Token:
    import jwt  # noqa: PLC0415 - it takes long to import, and commands sign nobody in

    claims = {"sid": session, "use": kind, "exp": expires}
    return Token(jwt.encode(claims, backend.signing_key, algorithm=_ALGORITHM), expires)


def _session(backend: Backend, token: str | None, kind: str) -> tuple[str, datetime]:
    """The session that a token names, and when the token ends, which it has not yet."""
    session, ends = _read(backend, token, kind)
    if ends <= utc_now():
        raise Forbidden(EXPIRED)
    return session, ends


def _read(backend: Backend, token: str | None, kind: str) -> tuple[str, datetime]:
    """The session that a token names, and when the token ends, or has ended."""
    if not token:
        raise NotAuthenticated(NO_TOKEN)
    claims = _claims(token, backend.signing_key)
    if claims["use"] != kind:
        raise Forbidden(EXPIRED)
    return claims["sid"], datetime.fromtimestamp(claims["exp"], UTC)


def is_signed(backend: Backend, token: str) -> bool:
    """Whether a token is from here, be its time over or not."""
    import jwt  # noqa: PLC0415 - see above

    try:
        jwt.decode(token, backend.signing_key, algorithms=[_ALGORITHM], options={"verify_exp": False})
    except jwt.InvalidTokenError:
        return False
    return True


@lru_cache(4096)
def _claims(token: str, key: bytes) -> dict[str, Any]:
    """What a token of ours says, whether or not its time is over; raises Forbidden for any other.

    A browser comes with the same one hundreds of times.
    """
    import jwt  # noqa: PLC0415 - see above

    options: Any = {"require": ["sid", "use", "exp"], "verify_exp": False}
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=[_ALGORITHM], options=options)
    except jwt.InvalidTokenError:
        raise Forbidden(EXPIRED) from None
    if not isinstance(claims["sid"], str) or not isinstance(claims["exp"], int):
        raise Forbidden(EXPIRED)
    return claims

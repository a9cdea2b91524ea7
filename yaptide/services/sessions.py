"""Signing in and out. A session is a row; tokens are signed, short-lived references to it.

Both tokens contain the session id. Deleting the row signs the user out, even if requests with its tokens are still on
the way: a refresh that arrives after the logout fails.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from yaptide.domain.errors import Forbidden, NotAuthenticated, NotConfigured
from yaptide.persistence.engine import Record, explain_rejection, retry_contended
from yaptide.persistence.queries import simulations, users as queries
from yaptide.persistence.queries.users import SignIn, Subject, User
from yaptide.services import access, devices, users
from yaptide.services.backend import Backend, Token as Token, utc_now
from yaptide.services.devices import Origin

_ACCESS = "access"
_REFRESH = "refresh"
_ALGORITHM = "HS256"
#: Characters that are stored of the place of a sign-in.
_LONGEST_ADDRESS, _LONGEST_PROGRAM = 64, 200

#: The web front end recognises this text and does not show it.
NO_TOKEN = "No token provided"  # noqa: S105 - a message, not a secret
EXPIRED = "Log in again: the token is invalid or has expired"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The two tokens of a session."""

    access: Token
    refresh: Token
    device: Token | None = None
    """Token that identifies the device; see `yaptide.services.devices`."""
    remark: str | None = None
    """A warning about what failed although the user is signed in."""


def sign_in(backend: Backend, username: str, password: str, origin: Origin = Origin()) -> SignedIn:  # noqa: B008
    """Begin a session and remember its origin; raise what `users.check_password` raises."""
    user = users.check_password(backend, username, password, origin)
    return replace(begin_session(backend, user, origin=origin), device=devices.remember_device(backend, user, origin))


def sign_in_through_keycloak(
    backend: Backend,
    token: str | None,
    username: str | None,
    access_token: str | None,
    refresh_token: str | None,
    origin: Origin = Origin(),  # noqa: B008
) -> SignedIn:
    """Begin or continue the session of a user with a Keycloak access token; it ends with that token.

    `username` must be that of the token; None takes the token's. `access_token` and `refresh_token` are those of
    yaptide, if there is a session. A session that a logout has ended in the meantime cannot be continued
    (NotAuthenticated). Raises NotConfigured, and what `keycloak.identify_user` raises.
    """
    from yaptide.services import credentials, keycloak  # noqa: PLC0415 - as jwt below

    if backend.keycloak is None:
        raise NotConfigured("Sign-in through Keycloak is not configured on this server")
    identity = keycloak.identify_user(backend.keycloak, token)
    if username not in (None, identity.username):
        raise Forbidden("The user name does not match Keycloak's token")
    username = identity.username
    user = users.ensure_keycloak_user(backend, identity.subject, username)
    # A certificate is issued to the name at Keycloak, even if the name is taken here.
    remark = credentials.renew_credentials(backend, user._replace(username=username), token or "", identity.subject)
    present = _session_of(backend, access_token, refresh_token)
    ends = min(identity.expires, utc_now() + backend.limits.refresh)
    if present is not None and _continue_session(backend, present, user, ends):
        signed_in = _tokens(backend, present, ends)
    else:
        signed_in = begin_session(backend, user, ends, identity.subject, origin)
    return replace(signed_in, remark=remark)


@retry_contended
def begin_session(
    backend: Backend,
    user: User,
    ends: datetime | None = None,
    subject: Subject | None = None,
    origin: Origin = Origin(),  # noqa: B008
) -> SignedIn:
    """Begin a session of an authenticated user until `ends`, or for the configured lifetime.

    Raises NotAuthenticated if the user was deleted, Forbidden if the account no longer belongs to `subject`.
    """
    session = secrets.token_urlsafe(32)
    ends = ends or utc_now() + backend.limits.refresh
    removed = explain_rejection(lambda _: NotAuthenticated(users.WRONG))  # the user, a moment ago
    with removed, backend.database.writing() as connection:
        if subject is not None:
            users.confirm_subject(connection, user, subject)
        queries.add_session(connection, session, user.id, ends, _describe(origin))
    return _tokens(backend, session, ends)


def _describe(origin: Origin) -> SignIn:
    """Return the part of an origin that its user sees later. A client chooses the program's name."""
    program = "".join(character for character in origin.program if character.isprintable())
    return SignIn(utc_now(), origin.address[:_LONGEST_ADDRESS], program[:_LONGEST_PROGRAM])


@retry_contended
def _continue_session(backend: Backend, session: str, user: User, ends: datetime) -> bool:
    """Extend a session; return False, and end it, if it belongs to another user."""
    with backend.database.writing() as connection:
        if queries.renew_session(connection, session, user.id, ends):
            return True
        if not queries.has_session(connection, session):
            raise NotAuthenticated(NO_TOKEN)
        queries.end_session(connection, session)
        return False


def session_of_token(backend: Backend, access_token: str | None) -> str:
    """Return the session in an access token; the session may have ended.

    Raises NotAuthenticated without a token, Forbidden if it is invalid.
    """
    return _session(backend, access_token, _ACCESS)[0]


def authenticate_user(backend: Backend, access_token: str | None) -> User:
    """Return the user of an access token; raise what `session_of_token` raises, Forbidden after a logout."""
    session = session_of_token(backend, access_token)
    with backend.database.read_committed() as connection:
        user = queries.by_session(connection, session, utc_now())
    if user is None:
        raise Forbidden(EXPIRED)
    return user


def authenticate_with(
    backend: Backend, connection: Connection, caller: User | str | None, job_id: str
) -> tuple[User, Record]:
    """Return the caller of a request, and the simulation with this job_id.

    The caller is a user who is authenticated already, or an access token; that takes one round trip for both. Raises
    what `authenticate_user` and `access.find_readable` raise.
    """
    if isinstance(caller, User):
        return caller, access.find_readable(connection, caller, job_id)
    row = simulations.by_session(connection, session_of_token(backend, caller), job_id, utc_now())
    if row is None:
        raise Forbidden(EXPIRED)
    user, simulation = row
    return user, access.require_readable(user, simulation)


def refresh_access(backend: Backend, refresh_token: str | None) -> Token:
    """Return a new access token, which ends with the session at the latest.

    Raises NotAuthenticated without a token or if the session has expired or a logout has ended it (which may overtake
    this request), Forbidden if the token is invalid.
    """
    session, ends = _read(backend, refresh_token, _REFRESH)
    with backend.database.reading() as connection:
        user = queries.by_session(connection, session, utc_now())
    if user is None:
        raise NotAuthenticated(NO_TOKEN)
    return _access(backend, session, ends)


def has_ended(backend: Backend, access_token: str | None) -> bool:
    """Return whether an access token of this server has expired; its session may continue."""
    with suppress(NotAuthenticated, Forbidden):
        return _read(backend, access_token, _ACCESS)[1] <= utc_now()
    return False


def can_refresh(backend: Backend, refresh_token: str | None) -> bool:
    """Return whether a session can still be refreshed."""
    with suppress(NotAuthenticated, Forbidden):
        return bool(refresh_access(backend, refresh_token))
    return False


def sign_out(backend: Backend, access_token: str | None, refresh_token: str | None) -> None:
    """End the session of either token; missing or invalid tokens are ignored."""
    session = _session_of(backend, access_token, refresh_token)
    if session is not None:
        with backend.database.writing() as connection:
            queries.end_session(connection, session)


def _session_of(backend: Backend, access_token: str | None, refresh_token: str | None) -> str | None:
    """Return the session of the first valid token."""
    for token, kind in ((access_token, _ACCESS), (refresh_token, _REFRESH)):
        with suppress(NotAuthenticated, Forbidden):
            return _session(backend, token, kind)[0]
    return None


def _tokens(backend: Backend, session: str, ends: datetime) -> SignedIn:
    return SignedIn(_access(backend, session, ends), _issue(backend, _REFRESH, session, ends))


def _access(backend: Backend, session: str, ends: datetime) -> Token:
    return _issue(backend, _ACCESS, session, min(ends, utc_now() + backend.limits.access))


def _issue(backend: Backend, kind: str, session: str, expires: datetime) -> Token:
    import jwt  # noqa: PLC0415 - slow to import, and most commands sign nobody in

    claims = {"sid": session, "use": kind, "exp": expires}
    return Token(jwt.encode(claims, backend.signing_key, algorithm=_ALGORITHM), expires)


def _session(backend: Backend, token: str | None, kind: str) -> tuple[str, datetime]:
    """Return the session in a token that has not expired, and the token's expiry."""
    session, ends = _read(backend, token, kind)
    if ends <= utc_now():
        raise Forbidden(EXPIRED)
    return session, ends


def _read(backend: Backend, token: str | None, kind: str) -> tuple[str, datetime]:
    """Return the session in a token, and the token's expiry, which may have passed."""
    if not token:
        raise NotAuthenticated(NO_TOKEN)
    claims = _claims(token, backend.signing_key)
    if claims["use"] != kind:
        raise Forbidden(EXPIRED)
    return claims["sid"], datetime.fromtimestamp(claims["exp"], UTC)


def is_signed(backend: Backend, token: str) -> bool:
    """Return whether this server has signed a token, which may have expired."""
    import jwt  # noqa: PLC0415 - see above

    try:
        jwt.decode(token, backend.signing_key, algorithms=[_ALGORITHM], options={"verify_exp": False})
    except jwt.InvalidTokenError:
        return False
    return True


@lru_cache(4096)
def _claims(token: str, key: bytes) -> dict[str, Any]:
    """Return the claims of a token of this server, which may have expired; raise Forbidden for any other.

    Cached, because a browser sends the same token hundreds of times.
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

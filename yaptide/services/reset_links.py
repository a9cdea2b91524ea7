"""Links with which users set a new password: for one use, within an hour.

A link is a signed token of the user and a digest of the present password hash. Setting a password changes the hash, so
the link, and every other one of that user, is invalid afterwards; no table is needed.
"""

import hashlib
import hmac
import secrets
from datetime import timedelta
from typing import Any

from yaptide.domain.errors import Conflict, NotAuthenticated
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import users as queries
from yaptide.persistence.queries.users import User
from yaptide.services import administration, passwords
from yaptide.services.administration import Ending
from yaptide.services.backend import Backend, Token, utc_now

LIFETIME = timedelta(hours=1)
#: The page that a link opens.
PATH = "/reset-password"
INVALID = "This link has expired or was used already: ask an administrator for a new one"

_USE = "reset"
_ALGORITHM = "HS256"


def make_link(backend: Backend, user: User, url: str) -> Token:
    """Return a link on the server at `url` for a local user; raise Conflict for a user of Keycloak."""
    if user.is_keycloak:
        raise Conflict(f"{user.username} signs in through Keycloak and has no password here")
    token = make_token(backend, user)
    return Token(f"{url.rstrip('/')}{PATH}?token={token.text}", token.expires)


def make_token(backend: Backend, user: User) -> Token:
    """Return the token of a link."""
    import jwt  # noqa: PLC0415 - as in yaptide.services.sessions

    expires = utc_now() + LIFETIME
    present = _present_hash(backend, user)
    claims = {"use": _USE, "user": user.username, "of": _digest(backend, user, present), "exp": expires}
    return Token(jwt.encode(claims, backend.signing_key, algorithm=_ALGORITHM), expires)


def _present_hash(backend: Backend, user: User) -> str:
    """Return the hash of the present password.

    A user without one gets an unknown password: without it, the link would also open the account of a later user with
    the same name and id. Its hash is a usual one, so that a sign-in takes the same time as for other names.
    """
    with backend.database.reading() as connection:
        present = queries.password_hash(connection, user.id)
    return present or _set_first_hash(backend, user, passwords.make_hash(secrets.token_urlsafe(32)))


@retry_contended
def _set_first_hash(backend: Backend, user: User, first: str) -> str:
    """Set the hash of a password unless there is one by now; return what the user has."""
    with backend.database.writing() as connection:
        queries.lock_user(connection, user.id)
        present = queries.password_hash(connection, user.id)
        if present is None:
            queries.set_password(connection, user.id, first)
    return present or first


def find_user(backend: Backend, token: str) -> User:
    """Return the user of a link that is still valid; raise NotAuthenticated."""
    return _open(backend, token)[0]


def reset_password(backend: Backend, token: str, password: str, *, end_tokens: bool = True) -> User:
    """Set the password of a link's user and end all sessions, and the API tokens if wished; return the user.

    Raises NotAuthenticated, InvalidInput for a password that is rejected, Busy.
    """
    user, present = _open(backend, token)
    ending = Ending(tokens=end_tokens)
    if not administration.set_password(
        backend.database, user, password, backend.limits.password, ending, instead_of=present
    ):
        raise NotAuthenticated(INVALID)  # another request was faster
    return user


def _open(backend: Backend, token: str) -> tuple[User, str | None]:
    """Return the user of a link, and the hash of the present password."""
    import jwt  # noqa: PLC0415 - as above

    options: Any = {"require": ["use", "user", "of", "exp"]}
    try:
        claims = jwt.decode(token, backend.signing_key, algorithms=[_ALGORITHM], options=options)
    except jwt.InvalidTokenError:
        raise NotAuthenticated(INVALID) from None
    if claims["use"] != _USE:
        raise NotAuthenticated(INVALID)
    with backend.database.reading() as connection:
        account = queries.local_user(connection, claims["user"])
    if account is None or not hmac.compare_digest(claims["of"], _digest(backend, account.user, account.password_hash)):
        raise NotAuthenticated(INVALID)
    return account.user, account.password_hash


def _digest(backend: Backend, user: User, password_hash: str | None) -> str:
    message = f"reset {user.id} {password_hash}".encode()
    return hmac.new(backend.signing_key, message, hashlib.sha256).hexdigest()

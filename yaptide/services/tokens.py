"""API tokens: programs send one instead of signing in with a password.

A token is the prefix `yap_`, 32 random bytes in base64url, and the CRC-32 of all that in base64url. So secret scanners
recognise one with certainty, and typing errors are rejected without a query. Only its SHA-256 is stored. A slow hash,
as for passwords, would add nothing, because 256 random bits cannot be guessed; and the database can find it by index.
The time of that search tells nothing either: it depends on the digest, which a caller cannot choose.
"""

import base64
import hashlib
import re
import secrets
import unicodedata
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from yaptide.domain.ages import parse_age
from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated, NotFound
from yaptide.domain.rights import Action, Scope
from yaptide.persistence.engine import Record, explain_rejection, retry_contended
from yaptide.persistence.queries import tokens as queries, users
from yaptide.persistence.queries.users import User
from yaptide.services.access import is_operator, require_right
from yaptide.services.backend import Backend, utc_now

PREFIX = "yap_"
#: Lifetime of a token if its user does not choose one, and the longest: forgotten tokens must not last for ever.
LIFETIME, LONGEST = "90d", timedelta(days=366)
#: Maximum number of tokens of a user, and of characters of a name.
MOST, MAX_NAME = 100, 64
#: Does not tell which of them is the reason.
INVALID = "This token is not valid: it is wrong, has expired or was revoked. Create a new one"

_FORM = re.compile(r"(yap_[A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just created; `text` is shown once and cannot be read again."""

    text: str = field(repr=False)
    name: str
    scope: Scope
    created: datetime
    expires: datetime


def is_token(text: str) -> bool:
    """Return whether a text is meant as an API token, valid or not; the signed tokens of sessions are not."""
    return text.startswith(PREFIX)


def make_text() -> str:
    """Return the text of a new token."""
    body = PREFIX + _encode(secrets.token_bytes(32))
    return body + _checksum(body)


def authenticate_token(backend: Backend, text: str) -> User:
    """Return the user of a token, with the token; raise NotAuthenticated, with one message for every reason."""
    form, now = _FORM.fullmatch(text), utc_now()
    user = None
    if form is not None and form[2] == _checksum(form[1]):
        with backend.database.read_committed() as connection:
            user = queries.by_digest(connection, _digest(text), now)
    if user is None or user.token is None:
        raise NotAuthenticated(INVALID)
    backend.last_uses.note(backend.database, user.token, now)
    return user


@retry_contended
def create_token(backend: Backend, user: User, name: str, scope: Scope, lifetime: str = LIFETIME) -> NewToken:
    """Create a token of a user and delete the user's expired ones.

    `lifetime` is an age such as ``90d``. Raises InvalidInput, Forbidden for a scope that the user may not give,
    Conflict if the user has a token of this name or too many, NotFound if the user was removed.
    """
    name, created = _check_name(name), utc_now()
    token = NewToken(make_text(), name, scope, created, created + _check_lifetime(lifetime))
    if scope is Scope.ADMIN and not is_operator(backend.operators, user):
        raise Forbidden(f"Only administrators may create a token of scope {scope}: YAPTIDE_ADMINS names them")
    values = {"name": name, "token_sha256": _digest(token.text), "scope": scope}
    taken = Conflict(f"There is a token {name!r} already: revoke it first, or choose another name")
    with explain_rejection(lambda _: taken), backend.database.writing() as connection:
        if not users.lock_user(connection, user.id):
            raise NotFound(f"There is no user {user.username!r}")
        queries.remove_expired(connection, user.id, created)
        if queries.count_tokens(connection, user.id) >= MOST:
            raise Conflict(f"You have {MOST} tokens, which is the maximum: revoke one that you no longer use")
        queries.add_token(connection, user.id, {**values, "created": created, "expires": token.expires})
    return token


def list_tokens(backend: Backend, user: User | None) -> list[Record]:
    """Return name, scope, times and user of the tokens of a user (None: of all), by name; expired ones, too."""
    with backend.database.reading() as connection:
        return queries.list_tokens(connection, None if user is None else user.id)


def revoke_token(backend: Backend, user: User, name: str) -> None:
    """Delete a token of a user, which ends its use at once; a program may revoke its own token.

    Raises NotFound, and Forbidden to a program that revokes another one.
    """
    if user.token is None or user.token.name != name:
        require_right(user, Action.CHANGE_ACCOUNT)
    name = unicodedata.normalize("NFC", name)
    with backend.database.writing() as connection:
        if not queries.remove_token(connection, user.id, name):
            raise NotFound(f"There is no token {name[:MAX_NAME]!r}")


def _check_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    if not name or name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise InvalidInput(f"A token name must have 1 to {MAX_NAME} printable characters, and no space at its ends")
    return name


def _check_lifetime(text: str) -> timedelta:
    lifetime = parse_age(text)
    if not timedelta() < lifetime <= LONGEST:
        raise InvalidInput(f"A token must expire after 1h to {LONGEST.days}d, e.g. {LIFETIME}")
    return lifetime


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _encode(zlib.crc32(body.encode()).to_bytes(4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

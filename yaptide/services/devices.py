"""Places where a user has signed in before, so that attackers who guess the password cannot lock the user out.

A device is recognised by a cookie from an earlier sign-in, a network by a digest in the database. Neither signs anyone
in: they only determine the counter for wrong passwords from there.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import users
from yaptide.persistence.queries.users import Account, User
from yaptide.services.backend import Backend, Token, utc_now
from yaptide.services.throttle import network_of

#: How long a device is known after a sign-in; browsers keep cookies no longer.
KNOWN_FOR = timedelta(days=400)
#: Maximum number of known users per device, and of known networks per user.
USERS, NETWORKS = 8, 20

_USE = "device"
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a request: its address, the device cookie from an earlier sign-in, and the name of the program."""

    address: str = ""
    device: str | None = None
    program: str = ""


def recognize_device(backend: Backend, account: Account | None, origin: Origin) -> str | None:
    """Return a name for the origin if this user has signed in from there before, else None."""
    if account is None:
        return None
    device, known = _read(backend, origin.device)
    if _digest(backend, account.user, "") in known:
        return f"device {device} {account.user.id}"
    network = network_of(origin.address)
    if network and _digest(backend, account.user, network) in account.known_networks:
        return f"network {network} {account.user.id}"
    return None


def remember_device(backend: Backend, user: User, origin: Origin) -> Token:
    """Remember an origin after a sign-in; return the token that the device must keep."""
    network = network_of(origin.address)
    if network:
        _remember_network(backend, user, _digest(backend, user, network))
    device, known = _read(backend, origin.device)
    user_digest = _digest(backend, user, "")
    known = [user_digest, *(other for other in known if other != user_digest)][:USERS]
    return _issue(backend, device, known)


@retry_contended
def _remember_network(backend: Backend, user: User, network: str) -> None:
    """Move a network to the front unless it is near it, so that alternating networks are not written each time."""
    with backend.database.reading() as connection:
        if network in users.known_networks(connection, user.id)[: NETWORKS // 2]:
            return
    with backend.database.writing() as connection:
        others = [other for other in users.known_networks(connection, user.id) if other != network]
        users.set_known_networks(connection, user.id, [network, *others][:NETWORKS])


def _digest(backend: Backend, user: User, network: str) -> str:
    """Return a digest that distinguishes users or networks without revealing them."""
    message = f"known {user.id} {network}".encode()
    return hmac.new(backend.signing_key, message, hashlib.sha256).hexdigest()[:16]


def _issue(backend: Backend, device: str, known: list[str]) -> Token:
    import jwt  # noqa: PLC0415 - as in yaptide.services.sessions

    expires = utc_now() + KNOWN_FOR
    claims = {"use": _USE, "device": device, "users": known, "exp": expires}
    return Token(jwt.encode(claims, backend.signing_key, algorithm=_ALGORITHM), expires)


def _read(backend: Backend, cookie: str | None) -> tuple[str, list[str]]:
    """Return the name of a device, a new one without a valid cookie, and the known users there."""
    import jwt  # noqa: PLC0415 - as above

    options: Any = {"require": ["use", "device", "users", "exp"]}
    try:
        claims = jwt.decode(cookie or "", backend.signing_key, algorithms=[_ALGORITHM], options=options)
    except jwt.InvalidTokenError:
        return secrets.token_hex(8), []
    return (claims["device"], claims["users"]) if claims["use"] == _USE else (secrets.token_hex(8), [])

"""Cookies with the tokens of a session.

Browsers send the cookies of a host to every port. So that two servers on one host do not use each other's cookies,
their names end with a tag of the installation. It is derived from the key that signs tokens, which all processes of an
installation share and keep over restarts.

Cookies outlive their tokens: a client with an expired token is asked to log in again, instead of being treated as a new
visitor.
"""

import hashlib
import hmac
from datetime import timedelta
from functools import lru_cache

from flask import Request, Response, request

from yaptide.services import sessions
from yaptide.services.backend import Backend
from yaptide.services.sessions import SignedIn, Token

ACCESS = "access_token"
REFRESH = "refresh_token"
#: Remains after signing out, see `yaptide.services.devices`.
DEVICE = "known_device"

#: How long a browser keeps an expired token.
KEPT = {ACCESS: timedelta(days=30), REFRESH: timedelta(days=30), DEVICE: timedelta()}


def name_of(backend: Backend, kind: str) -> str:
    """Return the name of a cookie in this installation."""
    return f"{kind}_{_tag(backend.signing_key)}"


@lru_cache(16)
def _tag(key: bytes) -> str:
    return hmac.new(key, b"names of cookies", hashlib.sha256).hexdigest()[:8]


def read_token(backend: Backend, kind: str, of: Request = request) -> str | None:
    """Return the token in a cookie, valid or not; None without the cookie.

    Previous versions used names without a tag. Their tokens expire within the lifetime of a session, so such cookies
    disappear after an upgrade.
    """
    token = of.cookies.get(name_of(backend, kind))
    return of.cookies.get(kind) if token is None and _has_bare(backend, kind, of) else token


def _has_bare(backend: Backend, kind: str, of: Request) -> bool:
    """Return whether the cookie without a tag belongs to this installation, not to another server on this host."""
    return sessions.is_signed(backend, of.cookies.get(kind, ""))


def set_token(backend: Backend, response: Response, kind: str, token: Token) -> None:
    """Set the cookie with a token."""
    name, expires = name_of(backend, kind), token.expires + KEPT[kind]
    response.set_cookie(
        name, token.text, expires=expires, httponly=True, samesite="Lax", secure=request.is_secure, path=_path()
    )


def _path() -> str:
    """The path of all addresses of this server."""
    return request.script_root or "/"


def set_session(backend: Backend, response: Response, signed_in: SignedIn) -> None:
    """Set the cookies of a session, and that of the device if it is known."""
    set_token(backend, response, ACCESS, signed_in.access)
    set_token(backend, response, REFRESH, signed_in.refresh)
    if signed_in.device is not None:
        set_token(backend, response, DEVICE, signed_in.device)


def clear_tokens(backend: Backend, response: Response) -> None:
    """Delete the cookies of both tokens."""
    bare = [kind for kind in (ACCESS, REFRESH) if _has_bare(backend, kind, request)]
    for name in (name_of(backend, ACCESS), name_of(backend, REFRESH), *bare):
        response.delete_cookie(name, httponly=True, samesite="Lax", secure=request.is_secure, path=_path())

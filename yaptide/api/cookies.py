"""The cookies of who has signed in.

Browsers send the cookies of a host to every port of it. So that two servers on one host leave each other's users alone,
names of cookies end with a mark of the installation. It is made from the key that signs tokens, which all processes of
an installation have in common and keep over restarts.

Cookies outlive the tokens in them: who comes with one that has ended is told to log in again, and not taken for
somebody who never was here.
"""

import hashlib
import hmac
from datetime import timedelta
from functools import lru_cache

from flask import Request, Response, request

from yaptide.services import sessions
from yaptide.services.backend import Backend
from yaptide.services.sessions import Token

ACCESS = "access_token"
REFRESH = "refresh_token"
#: What a sign-in leaves for good, see `yaptide.services.devices`; a logout does not take it away.
DEVICE = "known_device"

#: How long a browser keeps a token that has ended.
KEPT = {ACCESS: timedelta(days=30), REFRESH: timedelta(days=30), DEVICE: timedelta()}


def name_of(backend: Backend, kind: str) -> str:
    """What the cookie of a kind is called in this installation."""
    return f"{kind}_{_mark(backend.signing_key)}"


@lru_cache(16)
def _mark(key: bytes) -> str:
    return hmac.new(key, b"names of cookies", hashlib.sha256).hexdigest()[:8]


def read(backend: Backend, kind: str, of: Request = request) -> str | None:
    """The token in a cookie of a request, whatever it is worth; None without one.

    The bare name is what versions before gave out. Tokens that they signed end within the lifetime of a session, and
    after that nobody comes with a bare name any more.
    """
    token = of.cookies.get(name_of(backend, kind))
    return of.cookies.get(kind) if token is None and _has_bare(backend, kind, of) else token


def _has_bare(backend: Backend, kind: str, of: Request) -> bool:
    """Whether there is a cookie of the bare name that is from here, and not of another server on this host."""
    return sessions.is_signed(backend, of.cookies.get(kind, ""))


def keep(backend: Backend, response: Response, kind: str, token: Token) -> None:
    """Have the browser keep a token."""
    name, expires = name_of(backend, kind), token.expires + KEPT[kind]
    response.set_cookie(
        name, token.text, expires=expires, httponly=True, samesite="Lax", secure=request.is_secure, path="/"
    )


def clear(backend: Backend, response: Response) -> None:
    """Have the browser forget both tokens."""
    bare = [kind for kind in (ACCESS, REFRESH) if _has_bare(backend, kind, request)]
    for name in (name_of(backend, ACCESS), name_of(backend, REFRESH), *bare):
        response.delete_cookie(name, httponly=True, samesite="Lax", secure=request.is_secure, path="/")

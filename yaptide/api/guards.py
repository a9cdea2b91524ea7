"""Checks before every route, and security headers of every response.

Browsers send a user's cookies with requests that any page makes. So state-changing requests from pages of other origins
are rejected. This includes sign-in: otherwise a page could sign its visitor in as another user. Other programs send
neither `Origin` nor `Sec-Fetch-Site` and are not affected.
"""

from collections.abc import Collection

from apiflask import APIFlask
from flask import Response, current_app, request

from yaptide.domain.errors import Forbidden, InvalidInput

_ORIGINS = "ORIGINS"
_READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: Headers of HTML pages: no external resources, no scripts, no embedding in frames, no referrer.
_OF_PAGES = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    # With no-referrer, browsers would send the forms of our own pages with `Origin: null`.
    "Referrer-Policy": "same-origin",
}


def register_guards(app: APIFlask, origins: Collection[str]) -> None:
    """Guard all routes of `app`; pages from `origins` are treated like the server's own pages."""
    app.config[_ORIGINS] = frozenset(map(str.lower, origins))
    app.before_request(_refuse_cross_site_requests)
    app.before_request(_refuse_repeated_keys)
    app.after_request(_add_security_headers)


def _refuse_cross_site_requests() -> None:
    if request.method not in _READS and _is_cross_site():
        raise Forbidden(
            "State-changing requests from pages of other origins are not allowed; "
            "an administrator can allow an origin with YAPTIDE_CORS_ORIGINS"
        )


def _is_cross_site() -> bool:
    """Return whether a browser sends this request for a page of an origin that is not allowed.

    `Sec-Fetch-Site`, the browser's own comparison of the origins, comes first, because a proxy may have changed the
    host name of the server. Browsers send it only over TLS and to localhost; pages cannot change it.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site == "same-origin" or (origin or "").lower() in current_app.config[_ORIGINS]:
        return False
    if site in ("same-site", "cross-site"):
        return True
    return origin is not None and origin.lower() != f"{request.scheme}://{request.host}".lower()


def _refuse_repeated_keys() -> None:
    """Reject repeated query keys: proxies, logs and the server could read different values."""
    if b"&" not in request.query_string:  # true for most requests
        return
    for key, values in request.args.lists():
        if len(values) > 1:
            raise InvalidInput(f"Query parameter {key[:100]!r} is repeated")


def _add_security_headers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.mimetype == "text/html":
        for name, value in _OF_PAGES.items():
            response.headers.setdefault(name, value)
    return response

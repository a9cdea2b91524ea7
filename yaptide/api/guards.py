"""What is seen to before a route, whichever it is, and what each answer tells the browser.

Browsers send the cookies of a user along with what any page asks for. So whatever changes something is refused to pages
from elsewhere, signing in as well: otherwise a page could sign its reader in as somebody else. Programs that are no
browsers send neither of the headers that tell, and are none of this module's business.
"""

from collections.abc import Collection

from apiflask import APIFlask
from flask import Response, current_app, request

from yaptide.domain.errors import Forbidden, InvalidInput

_ORIGINS = "ORIGINS"
_READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: Of pages: they fetch nothing from elsewhere, run no script, are in nobody's frame, and tell nobody where a link was.
_OF_PAGES = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    # With no-referrer, browsers would send the forms of our own pages with `Origin: null`.
    "Referrer-Policy": "same-origin",
}


def register(app: APIFlask, origins: Collection[str]) -> None:
    """Guard all routes of `app`; pages from `origins` may do whatever those of the server itself may."""
    app.config[_ORIGINS] = frozenset(map(str.lower, origins))
    app.before_request(_refuse_pages_from_elsewhere)
    app.before_request(_refuse_doubled_keys)
    app.after_request(_tell_browsers)


def _refuse_pages_from_elsewhere() -> None:
    if request.method not in _READS and _is_from_elsewhere():
        raise Forbidden(
            "A page from elsewhere may not change anything here; "
            "an administrator can allow its origin by YAPTIDE_CORS_ORIGINS"
        )


def _is_from_elsewhere() -> bool:
    """Whether a browser says that a page of another origin asks, and not one of a front end that is known.

    What the browser itself makes of the two origins (`Sec-Fetch-Site`) comes first: a proxy may have changed the name
    that the server goes by. Browsers send it by TLS and to this machine only, but no page can change it.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site == "same-origin" or (origin or "").lower() in current_app.config[_ORIGINS]:
        return False
    if site in ("same-site", "cross-site"):
        return True
    return origin is not None and origin.lower() != f"{request.scheme}://{request.host}".lower()


def _refuse_doubled_keys() -> None:
    """Which of two values counts would depend on who reads the query: a proxy, a log, or we."""
    if b"&" not in request.query_string:  # as of nearly all requests
        return
    for key, values in request.args.lists():
        if len(values) > 1:
            raise InvalidInput(f"The query has {key[:100]!r} more than once")


def _tell_browsers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.mimetype == "text/html":
        for name, value in _OF_PAGES.items():
            response.headers.setdefault(name, value)
    return response

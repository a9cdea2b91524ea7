"""Who is signed in on a page, and the protection of its forms.

Pages use the API's session cookies. A page whose access token has expired renews it by itself as long as the session
lasts, so users need not sign in again after a pause. Forms carry a CSRF token (Flask-WTF) bound to the browser.
"""

import hashlib
import hmac
from urllib.parse import urlsplit

from apiflask import APIBlueprint, APIFlask
from flask import Flask, Response, g, request, session as browser, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect
from werkzeug.utils import redirect

from yaptide.api import cookies
from yaptide.api.http import authenticate_page, get_backend
from yaptide.domain.errors import NotAuthenticated
from yaptide.services import sessions
from yaptide.services.users import User

_csrf = CSRFProtect()


class _PageSession(SecureCookieSessionInterface):
    """Flask's session, whose cookie is Secure over TLS, like those of `cookies`."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return whether browsers may send the cookie over TLS only."""
        return request.is_secure


#: Flask's session has this of those who signed in through Keycloak: they go there again, without a question.
THROUGH_KEYCLOAK = "through_keycloak"


def prepare(app: APIFlask) -> None:
    """Configure Flask's own session, which only holds the CSRF token and messages to be shown once."""
    backend = app.extensions["yaptide"]
    app.session_interface = _PageSession()
    app.config["SECRET_KEY"] = hmac.new(backend.signing_key, b"forms of pages", hashlib.sha256).digest()
    app.config["SESSION_COOKIE_NAME"] = cookies.name_of(backend, "page")
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False  # the API is guarded by the Origin header: programs send no token
    app.config["WTF_CSRF_TIME_LIMIT"] = None  # a page may stay open for as long as its session
    app.config["WTF_CSRF_SSL_STRICT"] = False  # `guards` compares the Origin header already
    _csrf.init_app(app)


def protect(blueprint: APIBlueprint) -> None:
    """Check the CSRF token of every form of a blueprint, and keep a renewed access token."""
    blueprint.before_request(_csrf.protect)
    blueprint.after_request(_keep_access_token)


def find_user() -> User | None:
    """Return the user who is signed in, or None."""
    if "page_user" not in g:
        g.page_user = _authenticate()
    user: User | None = g.page_user
    return user


def require_user() -> User:
    """Return the user who is signed in; raises NotAuthenticated, which `errors` answers with the sign-in page."""
    user = find_user()
    if user is None:
        raise NotAuthenticated("Sign in to see this page")
    return user


def find_session() -> str | None:
    """Return the id of the session of the signed-in user, or None."""
    if find_user() is None:
        return None
    renewed = g.get("new_access")
    token = cookies.read_token(get_backend(), cookies.ACCESS) if renewed is None else renewed.text
    return sessions.session_of_token(get_backend(), token)


def _authenticate() -> User | None:
    try:
        user, renewed = authenticate_page(get_backend(), request)
    except NotAuthenticated:
        return None
    if renewed is not None:
        g.new_access = renewed
    return user


def _keep_access_token(response: Response) -> Response:
    token = g.pop("new_access", None)
    if token is not None:
        cookies.set_token(get_backend(), response, cookies.ACCESS, token)
    return response


def is_htmx() -> bool:
    """Return whether htmx asks for a part of a page that is open."""
    return request.headers.get("HX-Request") == "true"


def wants_page() -> bool:
    """Return whether the client prefers HTML to JSON, as browsers do when they open an address."""
    accepted = request.accept_mimetypes
    return accepted.best_match(("application/json", "text/html")) == "text/html"


def redirect_to(address: str) -> Response:
    """Send the browser to another page, after a form too."""
    return redirect(address, 303, Response)  # type: ignore[return-value]


def redirect_to_sign_in() -> Response:
    """Send the browser to the sign-in page, and back to where it was afterwards."""
    here = (
        request.headers.get("HX-Current-URL", "")
        if is_htmx()
        else f"{request.script_root}{request.full_path}".rstrip("?")
    )
    parts = urlsplit(here)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    is_page = request.method == "GET" or is_htmx()
    page = "account_pages.begin_keycloak" if browser.get(THROUGH_KEYCLOAK) else "account_pages.show_sign_in"
    address = url_for(page, next=local_path(path) if is_page else None)
    if is_htmx():
        return Response(status=401, headers={"HX-Redirect": address})
    return redirect_to(address)


def local_path(path: str) -> str | None:
    r"""Return `path` if it is a path on this server, otherwise None: `//host` and `/\host` lead elsewhere."""
    parts = urlsplit(path.replace("\\", "/"))
    if parts.scheme or parts.netloc or not parts.path.startswith("/") or any(ord(c) < 32 for c in path):
        return None
    return path

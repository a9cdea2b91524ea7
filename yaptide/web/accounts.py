"""Signing in and out, and a user's own account."""

from flask import Response, render_template, request, url_for
from flask.typing import ResponseReturnValue

from yaptide.api import cookies
from yaptide.api.http import access_token, get_backend
from yaptide.domain.errors import YaptideError
from yaptide.services import sessions
from yaptide.services.devices import Origin
from yaptide.web import session
from yaptide.web.blueprints import new_blueprint

blueprint = new_blueprint("account_pages", __name__)


@blueprint.get("/sign-in")
def show_sign_in() -> ResponseReturnValue:
    """Show the form to sign in, or go on if somebody is signed in."""
    if session.find_user() is not None:
        return session.redirect_to(_next_address())
    return _sign_in_form()


@blueprint.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Sign in with a password."""
    backend, form = get_backend(), request.form
    origin = Origin(request.remote_addr or "", cookies.read(backend, cookies.DEVICE))
    try:
        signed_in = sessions.sign_in(backend, form.get("username", ""), form.get("password", ""), origin)
    except YaptideError as error:
        return _sign_in_form(str(error)), 401
    response = session.redirect_to(_next_address())
    return _keep_tokens(response, signed_in)


def _keep_tokens(response: Response, signed_in: sessions.SignedIn) -> Response:
    backend = get_backend()
    cookies.keep(backend, response, cookies.ACCESS, signed_in.access)
    cookies.keep(backend, response, cookies.REFRESH, signed_in.refresh)
    if signed_in.device is not None:
        cookies.keep(backend, response, cookies.DEVICE, signed_in.device)
    return response


@blueprint.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End the session."""
    backend = get_backend()
    sessions.sign_out(backend, access_token(), cookies.read(backend, cookies.REFRESH))
    response = session.redirect_to(url_for("account_pages.show_sign_in"))
    cookies.clear(backend, response)
    return response


def _next_address() -> str:
    """Return where to go after signing in: a path on this server that the address asks for, or the list."""
    return session.local_path(request.values.get("next", "")) or url_for("simulation_pages.list_simulations")


def _sign_in_form(error: str = "") -> str:
    username = request.form.get("username", "")
    return render_template("sign_in.html", error=error, username=username, next=request.values.get("next", ""))

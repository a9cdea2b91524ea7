"""Signing in and out, registering, and a user's own account."""

from flask import Response, flash, render_template, request, session as browser, url_for
from flask.typing import ResponseReturnValue

from yaptide.api import cookies
from yaptide.api.http import access_token, get_backend
from yaptide.domain.errors import InvalidInput, YaptideError
from yaptide.services import authorization, sessions, users
from yaptide.services.devices import Origin
from yaptide.services.users import User
from yaptide.web import errors, session
from yaptide.web.blueprints import new_blueprint

blueprint = new_blueprint("account_pages", __name__)

#: What Flask's session of the browser has of a sign-in at Keycloak that goes on.
_ATTEMPT = "keycloak_attempt"


@blueprint.get("/sign-in")
def show_sign_in() -> ResponseReturnValue:
    """Show the form to sign in, or continue if a user is signed in."""
    if session.find_user() is not None:
        return session.redirect_to(_next_address())
    return _sign_in_form()


@blueprint.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Sign in with a password."""
    form = request.form
    try:
        signed_in = sessions.sign_in(get_backend(), form.get("username", ""), form.get("password", ""), _origin())
    except YaptideError as error:
        return _sign_in_form(str(error)), errors.status_of(error)
    return _keep_tokens(session.redirect_to(_next_address()), signed_in)


def _origin() -> Origin:
    return Origin(request.remote_addr or "", cookies.read_token(get_backend(), cookies.DEVICE))


def _keep_tokens(response: Response, signed_in: sessions.SignedIn) -> Response:
    cookies.set_session(get_backend(), response, signed_in)
    return response


@blueprint.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End the session."""
    backend = get_backend()
    sessions.sign_out(backend, access_token(), cookies.read_token(backend, cookies.REFRESH))
    browser.clear()
    response = session.redirect_to(url_for("account_pages.show_sign_in"))
    cookies.clear_tokens(backend, response)
    return response


def _next_address() -> str:
    """Return where to go after signing in: a path on this server that the address asks for, or the list."""
    return session.local_path(request.values.get("next", "")) or url_for("simulation_pages.list_simulations")


def _sign_in_form(error: str = "") -> str:
    return render_template(
        "sign_in.html",
        error=error,
        username=request.form.get("username", ""),
        next=session.local_path(request.values.get("next", "")),
        can_register=get_backend().limits.registration,
        has_keycloak=_has_keycloak(),
    )


def _has_keycloak() -> bool:
    keycloak = get_backend().keycloak
    return keycloak is not None and bool(keycloak.web_client)


@blueprint.get("/sign-in/keycloak")
def begin_keycloak() -> ResponseReturnValue:
    """Send the browser to Keycloak, which sends it back to `finish_keycloak`."""
    attempt = authorization.begin_sign_in(get_backend(), _callback())
    browser[_ATTEMPT] = {"state": attempt.state, "verifier": attempt.verifier, "next": _next_address()}
    return session.redirect_to(attempt.address)


def _callback() -> str:
    return url_for("account_pages.finish_keycloak", _external=True)


@blueprint.get("/sign-in/keycloak/back")
def finish_keycloak() -> ResponseReturnValue:
    """Sign in with what Keycloak has given the browser."""
    backend, attempt = get_backend(), browser.pop(_ATTEMPT, {})
    try:
        token = authorization.finish_sign_in(backend, attempt, request.args, _callback())
        signed_in = sessions.sign_in_through_keycloak(backend, token, None, None, None)
    except YaptideError as error:
        return _sign_in_form(str(error)), errors.status_of(error)
    if signed_in.remark:
        flash(signed_in.remark, "warning")
    browser[session.THROUGH_KEYCLOAK] = True
    return _keep_tokens(session.redirect_to(attempt["next"]), signed_in)


@blueprint.get("/register")
def show_registration() -> ResponseReturnValue:
    """Show the form to register."""
    if session.find_user() is not None:
        return session.redirect_to(_next_address())
    return _registration_form()


@blueprint.post("/register")
def register() -> ResponseReturnValue:
    """Add a user with a password, and sign in."""
    form = request.form
    username, password = form.get("username", ""), form.get("password", "")
    try:
        _require_equal(password, form.get("repeated", ""))
        users.sign_up(get_backend(), username, password, request.remote_addr or "")
        signed_in = sessions.sign_in(get_backend(), username, password, _origin())
    except YaptideError as error:
        return _registration_form(str(error)), errors.status_of(error)
    return _keep_tokens(session.redirect_to(_next_address()), signed_in)


def _require_equal(password: str, repeated: str) -> None:
    if password != repeated:
        raise InvalidInput("The two passwords differ: type the same one twice")


def _registration_form(error: str = "") -> str:
    limits = get_backend().limits
    username = request.form.get("username", "")
    return render_template("register.html", error=error, username=username, limits=limits)


@blueprint.get("/account")
def show_account() -> ResponseReturnValue:
    """Show what a user stores, and the form to change the password."""
    return _account_page(session.require_user())


@blueprint.post("/account/password")
def change_password() -> ResponseReturnValue:
    """Change the password, which ends all sessions of the user but this one."""
    user, backend, form = session.require_user(), get_backend(), request.form
    password = form.get("new_password", "")
    try:
        _require_equal(password, form.get("repeated", ""))
        users.change_password(backend, user, form.get("password", ""), password)
        signed_in = sessions.begin_session(backend, user)
    except YaptideError as error:
        return _account_page(user, str(error)), errors.status_of(error)
    flash("Your password has been changed. All other sessions have ended", "success")
    return _keep_tokens(session.redirect_to(url_for("account_pages.show_account")), signed_in)


def _account_page(user: User, error: str = "") -> str:
    backend = get_backend()
    storage = users.read_storage(backend, user)
    return render_template("account.html", user=user, storage=storage, error=error, limits=backend.limits)

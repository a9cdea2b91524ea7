"""Signing in and out, registering, and a user's own account."""

from flask import Response, flash, render_template, request, send_file, session as browser, url_for
from flask.typing import ResponseReturnValue

from yaptide.api import cookies
from yaptide.api.http import access_token, get_backend, get_origin
from yaptide.domain.errors import InvalidInput, YaptideError
from yaptide.domain.rights import Scope
from yaptide.services import accounts, keycloak_login, reset_links, sessions, tokens, users
from yaptide.services.access import is_operator
from yaptide.services.backend import utc_now
from yaptide.services.tokens import NewToken
from yaptide.services.users import Ending, User
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
        signed_in = sessions.sign_in(get_backend(), form.get("username", ""), form.get("password", ""), get_origin())
    except YaptideError as error:
        return _sign_in_form(str(error)), errors.status_of(error)
    return _keep_tokens(session.redirect_to(_next_address()), signed_in)


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
    attempt = keycloak_login.begin_sign_in(get_backend(), _callback())
    browser[_ATTEMPT] = {"state": attempt.state, "verifier": attempt.verifier, "next": _next_address()}
    return session.redirect_to(attempt.address)


def _callback() -> str:
    return url_for("account_pages.finish_keycloak", _external=True)


@blueprint.get("/sign-in/keycloak/back")
def finish_keycloak() -> ResponseReturnValue:
    """Sign in with what Keycloak has given the browser."""
    backend, attempt = get_backend(), browser.pop(_ATTEMPT, {})
    try:
        token = keycloak_login.finish_sign_in(backend, attempt, request.args, _callback())
        signed_in = sessions.sign_in_through_keycloak(backend, token, None, None, None, get_origin())
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
        signed_in = sessions.sign_in(get_backend(), username, password, get_origin())
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


@blueprint.get("/reset-password")
def show_reset() -> ResponseReturnValue:
    """Show the form to set a new password, for a user with a link from an administrator."""
    return _reset_form(request.args.get("token", ""))


@blueprint.post("/reset-password")
def reset_password() -> ResponseReturnValue:
    """Set a new password with a link."""
    form = request.form
    token, password = form.get("token", ""), form.get("new_password", "")
    try:
        _require_equal(password, form.get("repeated", ""))
        reset_links.reset_password(get_backend(), token, password, end_tokens="end_tokens" in form)
    except YaptideError as error:
        return _reset_form(token, str(error)), errors.status_of(error)
    flash("Your password has been changed. Sign in with the new one", "success")
    return session.redirect_to(url_for("account_pages.show_sign_in"))


def _reset_form(token: str, error: str = "") -> str:
    backend, user = get_backend(), None
    try:
        user = reset_links.find_user(backend, token)
    except YaptideError as invalid:
        error = str(invalid)
    return render_template("reset_password.html", user=user, token=token, error=error, limits=backend.limits)


@blueprint.get("/account")
def show_account() -> ResponseReturnValue:
    """Show what a user stores, the API tokens and sessions, and the forms to change them."""
    return _account_page(session.require_user())


@blueprint.post("/account/password")
def change_password() -> ResponseReturnValue:
    """Change the password, which ends all sessions of the user but this one."""
    user, form = session.require_user(), request.form
    password = form.get("new_password", "")
    try:
        _require_equal(password, form.get("repeated", ""))
        ending = Ending(tokens="end_tokens" in form, keep=session.find_session())
        users.change_password(get_backend(), user, form.get("password", ""), password, ending)
    except YaptideError as error:
        return _account_page(user, password=str(error)), errors.status_of(error)
    return _back_to_account("Your password has been changed. All other sessions have ended")


@blueprint.post("/account/tokens")
def create_token() -> ResponseReturnValue:
    """Create an API token and show it, once."""
    user, form = session.require_user(), request.form
    try:
        scope = _scope(form.get("scope", ""))
        token = tokens.create_token(get_backend(), user, form.get("name", ""), scope, form.get("expires", ""))
    except YaptideError as error:
        return _account_page(user, tokens=str(error)), errors.status_of(error)
    return _account_page(user, token)


def _scope(text: str) -> Scope:
    if text not in list(Scope):
        raise InvalidInput(f"Unknown scope {text[:40]!r}: use {', '.join(Scope)}")
    return Scope(text)


@blueprint.post("/account/tokens/revoke")
def revoke_token() -> ResponseReturnValue:
    """Revoke an API token."""
    name = request.form.get("name", "")
    tokens.revoke_token(get_backend(), session.require_user(), name)
    return _back_to_account(f"The token {name} has been revoked")


@blueprint.post("/account/sessions/end")
def end_sessions() -> ResponseReturnValue:
    """End one session, or all but this one."""
    user, backend, name = session.require_user(), get_backend(), request.form.get("id", "")
    if name:
        accounts.end_session(backend, user, name)
    else:
        accounts.end_other_sessions(backend, user, session.find_session())
    return _back_to_account("The session has ended" if name else "All other sessions have ended")


@blueprint.get("/account/export")
def export_account() -> ResponseReturnValue:
    """Return an archive of all simulations that have ended."""
    file, _ = accounts.open_export(get_backend(), session.require_user())
    return send_file(file, "application/zip", as_attachment=True, download_name="yaptide.zip", max_age=0)


@blueprint.post("/account/delete")
def delete_account() -> ResponseReturnValue:
    """Delete the account with everything that belongs to it."""
    user, backend, form = session.require_user(), get_backend(), request.form
    name, password = form.get("username", ""), form.get("password", "")
    try:
        accounts.delete_account(backend, user, name, password, session.find_session())
    except YaptideError as error:
        return _account_page(user, deletion=str(error)), errors.status_of(error)
    browser.clear()
    flash("Your account has been deleted", "success")
    response = session.redirect_to(url_for("account_pages.show_sign_in"))
    cookies.clear_tokens(backend, response)
    return response


def _back_to_account(message: str) -> Response:
    flash(message, "success")
    return session.redirect_to(url_for("account_pages.show_account"))


def _account_page(user: User, new_token: NewToken | None = None, **problems: str) -> str:
    """Return the page; `problems` are messages for its parts: password, tokens, deletion."""
    backend = get_backend()
    return render_template(
        "account.html",
        user=user,
        storage=users.read_storage(backend, user),
        problems=problems,
        limits=backend.limits,
        tokens=tokens.list_tokens(backend, user),
        new_token=new_token,
        scopes=[scope for scope in Scope if scope != Scope.ADMIN or is_operator(backend.operators, user)],
        lifetime=tokens.LIFETIME,
        sessions=accounts.list_sessions(backend, user, session.find_session()),
        now=utc_now(),
    )

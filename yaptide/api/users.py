"""Signing in and out, and a user's own account."""

from apiflask import APIBlueprint
from flask import Response, request

from yaptide.api import schemas
from yaptide.api.http import (
    ACCESS,
    REFRESH,
    access_token,
    answer,
    backend,
    clear_tokens,
    milliseconds,
    set_token,
    user,
)
from yaptide.domain.errors import Conflict, Forbidden, NotAuthenticated, NotConfigured
from yaptide.services import sessions, users

blueprint = APIBlueprint("users", __name__, tag="Users")


@blueprint.put("/auth/register")
@blueprint.input(schemas.Credentials, location="json")
@blueprint.output(schemas.Message, status_code=201)
def register(json_data: schemas.Credentials) -> Response:
    """Add a user with a password."""
    try:
        users.sign_up(backend(), json_data.username, json_data.password)
    except Conflict as error:
        raise Forbidden(str(error)) from error  # the status that existing clients know
    return answer({"message": "User created"}, 201)


@blueprint.post("/auth/login")
@blueprint.input(schemas.Credentials, location="json")
@blueprint.output(schemas.SignedIn, status_code=202)
def login(json_data: schemas.Credentials) -> Response:
    """Sign in; sets the cookies `access_token` and `refresh_token`."""
    signed_in = sessions.sign_in(backend(), json_data.username, json_data.password, request.remote_addr or "")
    times = {
        "access_exp": milliseconds(signed_in.access.expires),
        "refresh_exp": milliseconds(signed_in.refresh.expires),
    }
    response = answer({"message": "Successfully logged in", **times}, 202)
    set_token(response, ACCESS, signed_in.access)
    set_token(response, REFRESH, signed_in.refresh)
    return response


@blueprint.get("/auth/refresh")
@blueprint.output(schemas.SignedIn)
def refresh() -> Response:
    """Get a new access token for the refresh token in the cookie."""
    try:
        token = sessions.refresh(backend(), request.cookies.get(REFRESH))
    except NotAuthenticated as error:
        response = answer({"message": str(error)}, 401)
        clear_tokens(response)  # a logout that overtook this request must have the last word
        return response
    response = answer({"message": "User refreshed", "access_exp": milliseconds(token.expires)})
    set_token(response, ACCESS, token)
    return response


@blueprint.get("/auth/status")
@blueprint.output(schemas.Somebody)
def status() -> Response:
    """Who is signed in."""
    return answer({"message": "User status", "username": user().username})


@blueprint.delete("/auth/logout")
@blueprint.output(schemas.Message)
def logout() -> Response:
    """Sign out; also fine for those who are not signed in."""
    sessions.sign_out(backend(), access_token(), request.cookies.get(REFRESH))
    response = answer({"message": "User logged out"})
    clear_tokens(response)
    return response


@blueprint.post("/auth/keycloak")
@blueprint.output(schemas.SignedIn, status_code=202)
def keycloak_login() -> Response:
    """Sign in with a token of Keycloak."""
    raise NotConfigured("Signing in through Keycloak is not configured on this server")


@blueprint.delete("/auth/keycloak")
@blueprint.output(schemas.Message)
def keycloak_logout() -> Response:
    """Sign out."""
    return logout()


@blueprint.post("/user/update")
@blueprint.input(schemas.UserUpdate, location="json")
@blueprint.output(schemas.Message, status_code=202)
def update(json_data: schemas.UserUpdate) -> Response:
    """Change the password; ends all sessions of the user."""
    somebody = user()
    if json_data.new_password is not None:
        users.check_password(backend(), somebody.username, json_data.password or "", request.remote_addr or "")
        users.set_password(backend(), somebody.username, json_data.new_password)
    return answer({"message": "User updated"}, 202)

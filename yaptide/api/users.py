"""Signing in and out, and a user's own account."""

from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from yaptide.api import cookies, schemas
from yaptide.api.cookies import ACCESS, DEVICE, REFRESH
from yaptide.api.http import access_token, answer, backend, bearer_token, milliseconds, user
from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated
from yaptide.services import administration, credentials, sessions, users
from yaptide.services.devices import Origin

blueprint = APIBlueprint("users", __name__, tag="Users")


@blueprint.put("/auth/register")
@blueprint.input(schemas.Credentials, location="json")
@blueprint.output(schemas.Message, status_code=201)
def register(json_data: schemas.Credentials) -> Response:
    """Add a user with a password."""
    try:
        users.sign_up(backend(), json_data.username, json_data.password, request.remote_addr or "")
    except Conflict as error:
        raise Forbidden(str(error)) from error  # the status that existing clients know
    return answer({"message": "User created"}, 201)


@blueprint.post("/auth/login")
@blueprint.input(schemas.Credentials, location="json")
@blueprint.output(schemas.SignedIn, status_code=202)
def login(json_data: schemas.Credentials) -> Response:
    """Sign in; sets the cookies `access_token_…` and `refresh_token_…`, and `known_device_…`, which signs nobody in."""
    return _welcome(sessions.sign_in(backend(), json_data.username, json_data.password, _origin()))


def _origin() -> Origin:
    return Origin(request.remote_addr or "", _cookie(DEVICE))


def _welcome(signed_in: sessions.SignedIn) -> Response:
    remark = f"; {signed_in.remark}" if signed_in.remark else ""
    times = {
        "access_exp": milliseconds(signed_in.access.expires),
        "refresh_exp": milliseconds(signed_in.refresh.expires),
    }
    response = answer({"message": f"Successfully logged in{remark}", **times}, 202)
    cookies.keep(backend(), response, ACCESS, signed_in.access)
    cookies.keep(backend(), response, REFRESH, signed_in.refresh)
    if signed_in.device is not None:
        cookies.keep(backend(), response, DEVICE, signed_in.device)
    return response


def _cookie(kind: str) -> str | None:
    return cookies.read(backend(), kind)


@blueprint.get("/auth/refresh")
@blueprint.output(schemas.SignedIn)
def refresh() -> Response:
    """Get a new access token for the refresh token in the cookie."""
    token = sessions.refresh(backend(), _cookie(REFRESH))
    response = answer({"message": "User refreshed", "access_exp": milliseconds(token.expires)})
    cookies.keep(backend(), response, ACCESS, token)
    return response


@blueprint.get("/auth/status")
@blueprint.output(schemas.Somebody)
def status() -> Response:
    """Who is signed in."""
    somebody = user()
    document: dict[str, Any] = {"message": "User status", "username": somebody.username}
    if somebody.is_keycloak:
        ends = credentials.ends(administration.certificate(backend().database, somebody))
        document |= {} if ends is None else {"certificate_exp": milliseconds(ends)}
    return answer(document)


@blueprint.delete("/auth/logout")
@blueprint.output(schemas.Message)
def logout() -> Response:
    """Sign out; also fine for those who are not signed in."""
    sessions.sign_out(backend(), _cookie(ACCESS) or access_token(), _cookie(REFRESH))
    response = answer({"message": "User logged out"})
    cookies.clear(backend(), response)
    return response


@blueprint.post("/auth/keycloak")
@blueprint.input(schemas.KeycloakName, location="json")
@blueprint.output(schemas.SignedIn, status_code=202)
def keycloak_login(json_data: schemas.KeycloakName) -> Response:
    """Sign in with an access token of Keycloak as `Authorization: Bearer`, or go on with the session; sets the cookies.

    The session ends with that token. The message also says what did not work, such as getting an SSH certificate.
    """
    tokens = bearer_token(), json_data.username, _cookie(ACCESS), _cookie(REFRESH)
    try:
        return _welcome(sessions.sign_in_through_keycloak(backend(), *tokens))
    except NotAuthenticated as error:  # a logout has the last word; the next sign-in begins anew
        response = answer({"message": str(error)}, 401)
        cookies.clear(backend(), response)
        return response


@blueprint.delete("/auth/keycloak")
@blueprint.output(schemas.Message)
def keycloak_logout() -> Response:
    """Sign out."""
    return logout()


@blueprint.post("/user/update")
@blueprint.input(schemas.UserUpdate, location="json")
@blueprint.output(schemas.Message, status_code=202)
def update(json_data: schemas.UserUpdate) -> Response:
    """Change the password, which ends all sessions of the user; or store SSH credentials of a user of Keycloak."""
    somebody = user()
    if (json_data.cert is None) != (json_data.private is None):
        raise InvalidInput("cert and private belong together: send both, or none of them")
    if json_data.cert is not None and json_data.private is not None:
        credentials.store(backend(), somebody, json_data.cert, json_data.private)
    if json_data.new_password is not None:
        if somebody.is_keycloak:
            raise Conflict("You sign in through Keycloak, and have your password there")
        users.confirm_password(backend(), somebody, json_data.password or "")
        users.set_password(backend(), somebody.username, json_data.new_password)
    return answer({"message": "User updated"}, 202)

"""Routes for signing in and out, and for the user's own account."""

from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from yaptide.api import cookies, schemas
from yaptide.api.cookies import ACCESS, REFRESH
from yaptide.api.http import (
    access_token,
    bearer_token,
    get_backend,
    get_origin,
    get_user,
    http_date,
    json_response,
    to_milliseconds,
)
from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated
from yaptide.services import administration, credentials, sessions, users
from yaptide.services.keycloak_login import describe_client

blueprint = APIBlueprint("users", __name__, tag="Users")


@blueprint.put("/auth/register")
@blueprint.input(schemas.Credentials, location="json")
@blueprint.output(schemas.Message, status_code=201)
def register_user(json_data: schemas.Credentials) -> Response:
    """Add a user with a password."""
    try:
        users.sign_up(get_backend(), json_data.username, json_data.password, request.remote_addr or "")
    except Conflict as error:
        raise Forbidden(str(error)) from error  # existing clients expect 403
    return json_response({"message": "User created"}, 201)


@blueprint.post("/auth/login")
@blueprint.input(schemas.Credentials, location="json")
@blueprint.output(schemas.SignedIn, status_code=202)
def sign_in(json_data: schemas.Credentials) -> Response:
    """Sign in. Sets the cookies `access_token_…`, `refresh_token_…` and `known_device_…`; the last grants no access."""
    return _signed_in(sessions.sign_in(get_backend(), json_data.username, json_data.password, get_origin()))


def _signed_in(signed_in: sessions.SignedIn) -> Response:
    remark = f"; {signed_in.remark}" if signed_in.remark else ""
    times = {
        "access_exp": to_milliseconds(signed_in.access.expires),
        "refresh_exp": to_milliseconds(signed_in.refresh.expires),
    }
    response = json_response({"message": f"Successfully logged in{remark}", **times}, 202)
    cookies.set_session(get_backend(), response, signed_in)
    return response


def _cookie(kind: str) -> str | None:
    return cookies.read_token(get_backend(), kind)


@blueprint.get("/auth/refresh")
@blueprint.output(schemas.SignedIn)
def refresh_token() -> Response:
    """Get a new access token for the refresh token in the cookie."""
    token = sessions.refresh_access(get_backend(), _cookie(REFRESH))
    response = json_response({"message": "User refreshed", "access_exp": to_milliseconds(token.expires)})
    cookies.set_token(get_backend(), response, ACCESS, token)
    return response


@blueprint.get("/auth/status")
@blueprint.output(schemas.CurrentUser)
def get_session() -> Response:
    """Show the user who is signed in, and the API token of the request, if any."""
    user = get_user()
    document: dict[str, Any] = {"message": "User status", "username": user.username}
    if user.token is not None:
        held = {"name": user.token.name, "scope": user.token.scope, "expires": http_date(user.token.expires)}
        document["token"] = held
    if user.is_keycloak:
        ends = credentials.certificate_end(administration.read_certificate(get_backend().database, user))
        document |= {} if ends is None else {"certificate_exp": to_milliseconds(ends)}
    return json_response(document)


@blueprint.delete("/auth/logout")
@blueprint.output(schemas.Message)
def sign_out() -> Response:
    """Sign out. Also succeeds without a session."""
    sessions.sign_out(get_backend(), _cookie(ACCESS) or access_token(), _cookie(REFRESH))
    response = json_response({"message": "User logged out"})
    cookies.clear_tokens(get_backend(), response)
    return response


@blueprint.get("/auth/keycloak")
@blueprint.output(schemas.KeycloakClient)
def describe_keycloak() -> Response:
    """Show at which realm of Keycloak, and as which client, a program signs in. 404 if there is none."""
    issuer, client_id = describe_client(get_backend())
    return json_response({"message": "Keycloak", "issuer": issuer, "client_id": client_id})


@blueprint.post("/auth/keycloak")
@blueprint.input(schemas.KeycloakName, location="json")
@blueprint.output(schemas.SignedIn, status_code=202)
def keycloak_login(json_data: schemas.KeycloakName) -> Response:
    """Sign in with an access token of Keycloak (`Authorization: Bearer`), or continue the session; sets the cookies.

    The session ends when that token expires. The message also reports problems, e.g. with getting an SSH certificate.
    """
    tokens = bearer_token(), json_data.username, _cookie(ACCESS), _cookie(REFRESH)
    try:
        return _signed_in(sessions.sign_in_through_keycloak(get_backend(), *tokens, get_origin()))
    except NotAuthenticated as error:  # signed out meanwhile: the next sign-in starts a new session
        response = json_response({"message": str(error)}, 401)
        cookies.clear_tokens(get_backend(), response)
        return response


@blueprint.delete("/auth/keycloak")
@blueprint.output(schemas.Message)
def keycloak_logout() -> Response:
    """Sign out."""
    return sign_out()


@blueprint.post("/user/update")
@blueprint.input(schemas.UserUpdate, location="json")
@blueprint.output(schemas.Message, status_code=202)
def update_user(json_data: schemas.UserUpdate) -> Response:
    """Change the password, which ends all sessions of the user, or store SSH credentials of a user of Keycloak."""
    user = get_user()
    if (json_data.cert is None) != (json_data.private is None):
        raise InvalidInput("cert and private belong together: send both or neither")
    if json_data.cert is not None and json_data.private is not None:
        credentials.store_credentials(get_backend(), user, json_data.cert, json_data.private)
    if json_data.new_password is not None:
        users.change_password(get_backend(), user, json_data.password or "", json_data.new_password)
    return json_response({"message": "User updated"}, 202)

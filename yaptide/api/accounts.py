"""Routes for a user's own account: password, sessions, export, deletion."""

from apiflask import APIBlueprint
from flask import Response, send_file

from yaptide.api import cookies, schemas
from yaptide.api.http import get_backend, get_session_id, get_user, http_date, json_response
from yaptide.api.openapi import FILE, respond_with
from yaptide.services import accounts, users
from yaptide.services.users import Ending

blueprint = APIBlueprint("accounts", __name__, tag="Users")


@blueprint.post("/user/password")
@blueprint.input(schemas.NewPassword, location="json")
@blueprint.output(schemas.Message)
def change_password(json_data: schemas.NewPassword) -> Response:
    """Change the password. The session of the request goes on."""
    user, ending = get_user(), Ending(json_data.end_sessions, json_data.end_tokens, get_session_id())
    users.change_password(get_backend(), user, json_data.password, json_data.new_password, ending)
    return json_response({"message": "Password changed"})


@blueprint.get("/user/sessions")
@blueprint.output(schemas.Sessions)
def list_sessions() -> Response:
    """List the user's sessions."""
    listed = accounts.list_sessions(get_backend(), get_user(), get_session_id())
    documents = [
        {**each._asdict(), "started": http_date(each.started), "expires": http_date(each.expires)} for each in listed
    ]
    return json_response({"message": "Sessions", "sessions": documents})


@blueprint.delete("/user/sessions")
@blueprint.input(schemas.SessionQuery, location="query", arg_name="query")
@blueprint.output(schemas.Message)
def end_sessions(query: schemas.SessionQuery) -> Response:
    """End one session of the user, or without `id` all but that of the request."""
    user = get_user()
    if query.id is None:
        count = accounts.end_other_sessions(get_backend(), user, get_session_id())
        return json_response({"message": f"{count} other sessions ended"})
    accounts.end_session(get_backend(), user, query.id)
    return json_response({"message": "Session ended"})


@blueprint.get("/user/export")
@blueprint.doc(responses=respond_with(200, "A zip archive that `yaptide import` reads", FILE))
def export_account() -> Response:
    """Download all simulations of the user that have ended: input, results, log files and history.

    The header `Yaptide-Unfinished` has the number of those that have not ended, which are not included.
    """
    file, unfinished = accounts.open_export(get_backend(), get_user())
    response = send_file(file, "application/octet-stream", as_attachment=True, download_name="yaptide.zip")
    response.headers["Yaptide-Unfinished"] = str(unfinished)
    return response


@blueprint.delete("/user")
@blueprint.input(schemas.Farewell, location="json")
@blueprint.output(schemas.Message)
def delete_account(json_data: schemas.Farewell) -> Response:
    """Delete the user with all simulations, results, sessions and tokens. This cannot be undone.

    The body has the user name and the password. Users of Keycloak sign in again at most 10 minutes before. While
    simulations run, the answer is 409: cancel them first.
    """
    user = get_user()
    accounts.delete_account(get_backend(), user, json_data.username, json_data.password, get_session_id())
    response = json_response({"message": "Account deleted"})
    cookies.clear_tokens(get_backend(), response)
    return response

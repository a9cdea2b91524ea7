"""Routes for a user's API tokens."""

from typing import Any

from apiflask import APIBlueprint
from flask import Response

from yaptide.api import schemas
from yaptide.api.http import get_backend, get_user, http_date, json_response
from yaptide.domain.rights import Scope
from yaptide.services import tokens

blueprint = APIBlueprint("tokens", __name__, tag="Users")


@blueprint.post("/user/tokens")
@blueprint.input(schemas.TokenRequest, location="json")
@blueprint.output(schemas.CreatedToken, status_code=201)
def create_token(json_data: schemas.TokenRequest) -> Response:
    """Create an API token for programs, sent as `Authorization: Bearer yap_…`. Only this response contains it."""
    user = get_user()
    token = tokens.create_token(get_backend(), user, json_data.name, Scope(json_data.scope), json_data.expires)
    document = {"message": "Keep this token, it is not shown again", "token": token.text, **_describe(token)}
    return json_response(document, 201)


@blueprint.get("/user/tokens")
@blueprint.output(schemas.Tokens)
def list_tokens() -> Response:
    """List the user's API tokens, without their texts."""
    rows = tokens.list_tokens(get_backend(), get_user())
    listed = [{**_describe(row), "last_used": http_date(row.last_used)} for row in rows]
    return json_response({"message": "API tokens", "tokens": listed})


@blueprint.delete("/user/tokens")
@blueprint.input(schemas.TokenQuery, location="query", arg_name="query")
@blueprint.output(schemas.Message)
def revoke_token(query: schemas.TokenQuery) -> Response:
    """Revoke an API token at once. A program can revoke the token that it uses, but no other one."""
    tokens.revoke_token(get_backend(), get_user(), query.name)
    return json_response({"message": "Token revoked"})


def _describe(token: Any) -> dict[str, Any]:
    times = {"created": http_date(token.created), "expires": http_date(token.expires)}
    return {"name": token.name, "scope": token.scope, **times}

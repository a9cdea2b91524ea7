"""What the OpenAPI document says that the schemas of the routes do not: who may call, and what errors look like."""

from typing import Any

from yaptide.api.schemas import ResultsReport

_SIGNED_IN = "signed in"
_KEY = "who has the update key"
_KEYCLOAK = "signed in through Keycloak"

#: Who may call what, where being signed in is not what it takes; `x-for` in the document.
WHO = {
    "GET /": "anybody",
    "GET /healthz": "anybody",
    "GET /readyz": "anybody",
    "PUT /auth/register": "anybody",
    "POST /auth/login": "anybody",
    "POST /auth/keycloak": "who has an access token of Keycloak",
    "DELETE /auth/logout": "anybody",
    "DELETE /auth/keycloak": "anybody",
    "GET /auth/refresh": "who has the cookie `refresh_token_…`",
    "POST /jobs": _KEY,
    "POST /tasks": _KEY,
    "POST /tasks/list": _KEY,
    "POST /results": _KEY,
    "POST /logfiles": _KEY,
    "POST /jobs/batch": _KEYCLOAK,
    "GET /clusters": _KEYCLOAK,
}


def who_may_call(method: str, path: str) -> str:
    """Who may call a route."""
    return _KEY if path.startswith("/worker/") else WHO.get(f"{method} {path}", _SIGNED_IN)


def security(cookie: str) -> dict[str, dict[str, str]]:
    """How users prove who they are, `cookie` being the name of what holds the access token."""
    return {
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "Set by signing in"},
        "bearer": {"type": "http", "scheme": "bearer", "description": "The access token, for scripts"},
    }


_ERROR = {
    "description": "Refused; the message says why, and what to do",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Message"}}},
}


def describe(spec: dict[str, Any] | str) -> dict[str, Any] | str:
    """Complete the document that APIFlask makes of the routes."""
    if isinstance(spec, str):  # it would be YAML, which nobody asks for
        return spec
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            who = operation["x-for"] = who_may_call(method.upper(), path)
            operation["security"] = [{"cookie": []}, {"bearer": []}] if who.startswith(_SIGNED_IN) else []
            operation["responses"].pop("400", None)
            operation["responses"]["default"] = _ERROR
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
    schemas = spec["components"]["schemas"]
    schemas.pop("ValidationError", None)
    schemas["ResultsReport"] = ResultsReport.model_json_schema()  # read by its own route, and not by APIFlask
    results = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ResultsReport"}}}}
    spec["paths"]["/results"]["post"]["requestBody"] = {**results, "required": True}
    return spec

"""Parts of the OpenAPI document that the schemas of the routes do not contain: access and errors."""

from typing import Any

from yaptide.api.rights import RIGHTS
from yaptide.api.schemas import ResultsReport
from yaptide.domain.rights import least_scope

_SIGNED_IN = "signed-in users"
_KEY = "workers with the update key"
_KEYCLOAK = "signed-in users of Keycloak"

#: Callers of the routes that do not need a session; `x-for` in the document.
WHO = {
    "GET /": "anyone",
    "GET /healthz": "anyone",
    "GET /readyz": "anyone",
    "PUT /auth/register": "anyone",
    "POST /auth/login": "anyone",
    "POST /auth/keycloak": "clients with an access token of Keycloak",
    "DELETE /auth/logout": "anyone",
    "GET /auth/keycloak": "anyone",
    "DELETE /auth/keycloak": "anyone",
    "GET /auth/refresh": "clients with the cookie `refresh_token_…`",
    "POST /jobs": _KEY,
    "POST /tasks": _KEY,
    "POST /tasks/list": _KEY,
    "POST /results": _KEY,
    "POST /logfiles": _KEY,
    "POST /jobs/batch": _KEYCLOAK,
    "GET /clusters": _KEYCLOAK,
}


#: Meaning of each error status; the response is `{"message": ...}`.
ERRORS = {
    400: "the request is invalid",
    401: "not signed in, wrong name or password, or the simulation to delete belongs to another user",
    403: "not allowed; also an invalid or expired token, or a change requested by a page of another origin",
    404: "not found",
    408: "the request was sent too slowly",
    409: "not possible in the current state",
    413: "the body is too large",
    422: "another simulation was submitted with this Idempotency-Key",
    429: "too many wrong passwords, sign-ins or registrations: wait `Retry-After` seconds",
    431: "the request header is too long",
    500: "internal error; see the server's log for details",
    503: "not configured on this server, the database is unavailable, or, with `Retry-After`, the server is busy",
    507: "a disk or the database is full",
}

#: Header with the idempotency key of a submission.
IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY_PARAMETER = {
    "in": "header",
    "name": IDEMPOTENCY_KEY,
    "required": False,
    "description": "Chosen by the sender for each submission: a repetition with the same key and body within a day "
    "gets the same job_id, and nothing runs twice",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

#: Content of a body or response that is a file.
FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

#: Errors of every route: malformed requests, repeated query keys, an unavailable server, a full disk.
_ANYWHERE = frozenset({400, 408, 431, 500, 503, 507})
#: Errors of single routes, in addition to those that `errors_of` derives.
OWN_ERRORS = {
    "PUT /auth/register": {429},
    "POST /auth/login": {401, 429},
    "GET /auth/keycloak": {404},
    "POST /auth/keycloak": {401},
    "GET /auth/refresh": {401, 403},
    "POST /user/update": {409, 429},
    "POST /check": {409},
    "POST /user/password": {409, 429},
    "DELETE /user": {404, 409, 413, 429},
    "DELETE /user/sessions": {404},
    "GET /user/export": {409},
    "POST /user/tokens": {404, 409},
    "DELETE /user/tokens": {404},
    "POST /jobs/direct": {409, 422},
    "POST /jobs/batch": {409, 422},
    "POST /results": {409},
    "POST /worker/{simulation_id}/tasks/{task_id}/claim": {409},
    "POST /worker/{simulation_id}/merge/claim": {409},
    "PUT /worker/{simulation_id}/merge/results": {409},
}


def who_may_call(method: str, path: str) -> str:
    """Return who may call a route."""
    return _KEY if path.startswith("/worker/") else WHO.get(f"{method} {path}", _SIGNED_IN)


def errors_of(method: str, path: str, query: frozenset[str]) -> set[int]:
    """Return the statuses of all errors of a route with these query keys."""
    who = who_may_call(method, path)
    errors = {*_ANYWHERE, *OWN_ERRORS.get(f"{method} {path}", ())}
    if method != "GET":
        errors.add(403)  # request from a page of another origin
    if method in ("POST", "PUT"):
        errors.add(413)
    if who in (_SIGNED_IN, _KEYCLOAK):
        errors |= {401, 403}
    if who == _KEY or "job_id" in query:
        errors.add(404)
    return errors


def security_schemes(cookie: str) -> dict[str, dict[str, str]]:
    """Return the security schemes for users and workers; `cookie` is the name of the cookie with the access token."""
    bearer = "An API token (`yap_…`), or the access token of a session"
    return {
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "Set by signing in"},
        "bearer": {"type": "http", "scheme": "bearer", "description": bearer},
        "update_key": {"type": "http", "scheme": "bearer", "description": "The update key of the simulation"},
    }


def complete_document(spec: dict[str, Any] | str) -> dict[str, Any] | str:
    """Complete the document that APIFlask generates from the routes."""
    if isinstance(spec, str):  # YAML, which is not served
        return spec
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method.upper(), path)
    spec["tags"] = list({tag["name"]: tag for tag in spec["tags"]}.values())  # blueprints may share one
    components = spec["components"]
    components["schemas"]["ResultsReport"] = ResultsReport.model_json_schema()  # parsed by its route, not by APIFlask
    components["responses"] = {f"Error{status}": _error(status, meaning) for status, meaning in ERRORS.items()}
    return spec


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    who = operation["x-for"] = who_may_call(method, path)
    if f"{method} {path}" in RIGHTS:
        operation["x-scope"] = least_scope(RIGHTS[f"{method} {path}"]) or "none"
    query = frozenset(parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query")
    for status in sorted(errors_of(method, path, query)):
        operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    if f"{method} {path}" in ("POST /jobs/direct", "POST /jobs/batch"):
        operation["parameters"].append(_KEY_PARAMETER)
    if path.startswith("/worker/"):
        operation["security"] = [{"update_key": []}]
    else:
        operation["security"] = [{"cookie": []}, {"bearer": []}] if who in (_SIGNED_IN, _KEYCLOAK) else []
    if f"{method} {path}" == "POST /results":
        operation["requestBody"] = {"content": json_content("ResultsReport")}
    elif method == "PUT" and path.startswith("/worker/"):
        operation["requestBody"] = {"content": FILE}
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True


def respond_with(status: int, description: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return `responses` for `doc()` of a route whose response no pydantic schema describes."""
    return {status: {"description": description, "content": content}}


def json_content(schema: str) -> dict[str, Any]:
    """Return JSON content with the schema of this name."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _error(status: int, meaning: str) -> dict[str, Any]:
    wait = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}
    headers = {"headers": wait} if status in (429, 503) else {}
    return {"description": meaning, "content": json_content("Message"), **headers}

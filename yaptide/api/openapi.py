"""What the OpenAPI document says that the schemas of the routes do not: who may call, and how they are refused."""

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


#: What a status of an error means; the answer is `{"message": ...}`.
ERRORS = {
    400: "the request is not acceptable as it is",
    401: "nobody is signed in, name and password do not belong together, or the simulation to delete is not yours",
    403: "not allowed; also a token that is forged or too old, or a change that a page from elsewhere asks for",
    404: "there is no such thing",
    408: "the request came too slowly",
    409: "the present state does not allow it",
    413: "the body is too large",
    429: "too many wrong passwords, sign-ins or registrations: wait for as many seconds as `Retry-After` says",
    431: "the head of the request is too long",
    500: "an internal error; the server's log has the details",
    503: "not configured on this server, or the database cannot be reached, or, with `Retry-After`, too much to do",
    507: "no room is left",
}

#: Content of a body, or of an answer, that is a file.
FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

#: Errors of every route: what cannot be read, a query with a key twice, a server or a disk that cannot do it just now.
_ANYWHERE = frozenset({400, 408, 431, 500, 503, 507})
#: Errors of single routes, beside those that follow from what they ask for (`errors_of`).
OWN_ERRORS = {
    "PUT /auth/register": {429},
    "POST /auth/login": {401, 429},
    "POST /auth/keycloak": {401},
    "GET /auth/refresh": {401, 403},
    "POST /user/update": {409, 429},
    "POST /jobs/direct": {409},
    "POST /jobs/batch": {409},
    "POST /results": {409},
    "POST /worker/{simulation_id}/tasks/{task_id}/claim": {409},
    "POST /worker/{simulation_id}/merge/claim": {409},
    "PUT /worker/{simulation_id}/merge/results": {409},
}


def who_may_call(method: str, path: str) -> str:
    """Who may call a route."""
    return _KEY if path.startswith("/worker/") else WHO.get(f"{method} {path}", _SIGNED_IN)


def errors_of(method: str, path: str, query: frozenset[str]) -> set[int]:
    """Statuses of all errors that a route with these keys in its query can answer."""
    who = who_may_call(method, path)
    errors = {*_ANYWHERE, *OWN_ERRORS.get(f"{method} {path}", ())}
    if method != "GET":
        errors.add(403)  # a page from elsewhere
    if method in ("POST", "PUT"):
        errors.add(413)
    if who.startswith(_SIGNED_IN):
        errors |= {401, 403}
    if who == _KEY or "job_id" in query:
        errors.add(404)
    return errors


def security(cookie: str) -> dict[str, dict[str, str]]:
    """How users prove who they are, `cookie` being the name of what holds the access token, and how workers do."""
    return {
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "Set by signing in"},
        "bearer": {"type": "http", "scheme": "bearer", "description": "The access token, for scripts"},
        "update_key": {"type": "http", "scheme": "bearer", "description": "The update key of the simulation"},
    }


def complete_document(spec: dict[str, Any] | str) -> dict[str, Any] | str:
    """Complete the document that APIFlask makes of the routes."""
    if isinstance(spec, str):  # it would be YAML, which nobody asks for
        return spec
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method.upper(), path)
    components = spec["components"]
    components["schemas"]["ResultsReport"] = ResultsReport.model_json_schema()  # read by its own route, not by APIFlask
    components["responses"] = {f"Error{status}": _error(status, meaning) for status, meaning in ERRORS.items()}
    return spec


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    who = operation["x-for"] = who_may_call(method, path)
    query = frozenset(given["name"] for given in operation["parameters"] if given["in"] == "query")
    for status in sorted(errors_of(method, path, query)):
        operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    if path.startswith("/worker/"):
        operation["security"] = [{"update_key": []}]
    else:
        operation["security"] = [{"cookie": []}, {"bearer": []}] if who.startswith(_SIGNED_IN) else []
    if f"{method} {path}" == "POST /results":
        operation["requestBody"] = {"content": json_content("ResultsReport")}
    elif method == "PUT" and path.startswith("/worker/"):
        operation["requestBody"] = {"content": FILE}
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True


def respond_with(status: int, description: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """What `doc(responses=...)` of a route takes for an answer that no schema of pydantic describes."""
    return {status: {"description": description, "content": content}}


def json_content(schema: str) -> dict[str, Any]:
    """Content that is JSON, of the schema of this name."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _error(status: int, meaning: str) -> dict[str, Any]:
    wait = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}
    headers = {"headers": wait} if status in (429, 503) else {}
    return {"description": meaning, "content": json_content("Message"), **headers}

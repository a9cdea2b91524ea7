"""Checks responses against the OpenAPI document."""

import re
from functools import lru_cache
from typing import Any

import jsonschema_rs
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

#: Larger responses are results, and are not parsed.
_MOST = 1 << 20
_JSON = "application/json"


class CheckedClient(FlaskClient):
    """A client that fails if a response does not match the OpenAPI document."""

    def open(self, *arguments: Any, **named: Any) -> TestResponse:
        """Send a request and check the response."""
        response = super().open(*arguments, **named)
        check_answer(self.application, response)
        return response


def check_answer(app: Flask, response: TestResponse) -> None:
    """Fail unless status, type and JSON of a response match the document."""
    route = _route(app, response)
    answers = _answers(app).get(route)
    if answers is None:  # an HTML page or an unknown route
        return
    status = response.status_code
    assert status in answers, f"{route} has responded {status}: {response.get_data()[:500]!r}"
    if status == 304:  # without a body
        return
    schema = answers[status].get(_JSON)
    assert response.mimetype in answers[status], f"{route} has responded {status} as {response.mimetype}"
    if schema is None or response.content_encoding or (response.content_length or _MOST) >= _MOST:
        return
    fault = next(schema.iter_errors(response.json), None)
    assert fault is None, f"{route} has responded {status} with undocumented JSON: {fault}"


def _route(app: Flask, response: TestResponse) -> str:
    request = response.request
    try:
        rule, _ = app.url_map.bind_to_environ(request.environ).match(return_rule=True)
    except HTTPException:
        return "none"
    template = re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule)
    return f"{request.method} {template}"


@lru_cache(1)
def _answers(app: Flask) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the schema of each content type, by route and status."""
    with app.app_context():
        document: dict[str, Any] = app.spec  # type: ignore[attr-defined]
    return {
        f"{method.upper()} {path}": {
            int(status): _schemas(document, answer) for status, answer in operation["responses"].items()
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


def _schemas(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    shared = answer.get("$ref", "").rpartition("/")[2]
    content = (document["components"]["responses"][shared] if shared else answer).get("content", {})
    parts = {"components": document["components"]}
    return {kind: jsonschema_rs.validator_for(media["schema"] | parts) for kind, media in content.items()}

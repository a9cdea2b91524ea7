"""Errors in one shape: a status and `{"message": ...}` that a user can act on. No traceback leaves the server."""

import logging

from apiflask import APIFlask
from apiflask.exceptions import HTTPError
from flask import Response, request
from werkzeug.exceptions import HTTPException

from yaptide.api.http import json_response
from yaptide.disk import is_full
from yaptide.domain.errors import (
    Busy,
    ClusterRefused,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    InvalidInput,
    NotAuthenticated,
    NotConfigured,
    NotFound,
    RetryLater,
    StorageFull,
    TooLarge,
    TooManyAttempts,
    Unavailable,
    Unreachable,
    YaptideError,
)

log = logging.getLogger(__name__)

STATUS: dict[type[YaptideError], int] = {
    InvalidInput: 400,
    NotAuthenticated: 401,
    Forbidden: 403,
    ClusterRefused: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    TooManyAttempts: 429,
    Busy: 503,
    NotConfigured: 503,
    Unavailable: 503,
    ClusterUnavailable: 503,
    Unreachable: 503,
    StorageFull: 507,
}


def register_handlers(app: APIFlask) -> None:
    """Give every error of `app` the one shape."""
    app.config["VALIDATION_ERROR_STATUS_CODE"] = 400
    app.config["AUTO_VALIDATION_ERROR_RESPONSE"] = app.config["AUTO_404_RESPONSE"] = False  # `description` says it
    app.error_processor(_refused_by_framework)
    app.register_error_handler(YaptideError, refuse)
    app.register_error_handler(OSError, _refused_by_system)
    app.register_error_handler(HTTPException, refuse_http)
    app.register_error_handler(Exception, _unexpected)


def refuse(error: YaptideError) -> Response:
    """Return the response to an error of ours."""
    if isinstance(error, Unavailable):  # what the database says of itself, its address and its user, is for the log
        log.warning("%s: %s", request.url_rule, error)
        return json_response({"message": "The server cannot do this just now; try again later"}, STATUS[Unavailable])
    response = json_response({"message": str(error)}, STATUS.get(type(error), 400))
    if isinstance(error, RetryLater):
        response.headers["Retry-After"] = str(error.seconds)
    return response


def _refused_by_framework(error: HTTPError) -> Response:
    detail = error.detail if isinstance(error.detail, dict) else {}
    fields = [
        f"{name}: {', '.join(map(str, told))}" if name != "_schema" else ", ".join(map(str, told))
        for place in detail.values()
        if isinstance(place, dict)
        for name, told in place.items()
    ]
    return json_response({"message": "; ".join(fields) or error.message}, error.status_code)


def refuse_http(error: HTTPException) -> Response:
    """Return the response to an error of HTTP, such as an unknown address."""
    response = json_response({"message": error.description or error.name}, error.code or 500)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _refused_by_system(error: OSError) -> Response:
    if not is_full(error):
        return _unexpected(error)
    return refuse(StorageFull("No room is left on the server: try again later"))


def _unexpected(error: Exception) -> Response:
    log.error("%s failed", request.url_rule, exc_info=error)
    return json_response({"message": "An internal error; the server's log has the details"}, 500)

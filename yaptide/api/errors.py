"""Errors in one shape: a status and `{"message": ...}` that tells users what to do. Tracebacks are only logged."""

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
    KeyReused,
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

#: Seconds after which a client should try again if the database does not respond.
_DATABASE_RESTARTS = 2

STATUS: dict[type[YaptideError], int] = {
    InvalidInput: 400,
    NotAuthenticated: 401,
    Forbidden: 403,
    ClusterRefused: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    KeyReused: 422,
    TooManyAttempts: 429,
    Busy: 503,
    NotConfigured: 503,
    Unavailable: 503,
    ClusterUnavailable: 503,
    Unreachable: 503,
    StorageFull: 507,
}


def register_handlers(app: APIFlask) -> None:
    """Register handlers that give every error of `app` the same shape."""
    app.config["VALIDATION_ERROR_STATUS_CODE"] = 400
    app.config["AUTO_VALIDATION_ERROR_RESPONSE"] = app.config["AUTO_404_RESPONSE"] = False  # openapi.py adds them
    app.error_processor(_refused_by_framework)
    app.register_error_handler(YaptideError, refuse)
    app.register_error_handler(OSError, _refused_by_system)
    app.register_error_handler(HTTPException, refuse_http)
    app.register_error_handler(Exception, _unexpected)


def refuse(error: YaptideError) -> Response:
    """Return the response to an error of ours."""
    if isinstance(error, Unavailable):  # the database's message names its address and user: only for the log
        log.warning("%s: %s", request.url_rule, error)
        message = "The server is temporarily unavailable; try again later"
        response = json_response({"message": message}, STATUS[Unavailable])
        response.headers["Retry-After"] = str(_DATABASE_RESTARTS)  # without it, clients do not try again
        return response
    response = json_response({"message": str(error)}, STATUS.get(type(error), 400))
    if isinstance(error, RetryLater):
        response.headers["Retry-After"] = str(error.seconds)
    return response


def _refused_by_framework(error: HTTPError) -> Response:
    detail = error.detail if isinstance(error.detail, dict) else {}
    fields = [
        f"{name}: {', '.join(map(str, problems))}" if name != "_schema" else ", ".join(map(str, problems))
        for place in detail.values()
        if isinstance(place, dict)
        for name, problems in place.items()
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
    return refuse(StorageFull("The server's disk is full: try again later"))


def _unexpected(error: Exception) -> Response:
    log.error("%s failed", request.url_rule, exc_info=error)
    return json_response({"message": "Internal error; see the server's log for details"}, 500)

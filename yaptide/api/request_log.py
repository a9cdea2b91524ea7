"""Logs every request in one line, and counts it in `yaptide.services.metrics`.

Neither contains text chosen by a client: the route is its path template, the method is one of the known methods.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
from apiflask import APIFlask
from flask import request

from yaptide import logs
from yaptide.services import metrics

log = structlog.stdlib.get_logger(__name__)

#: Polled by monitoring every few seconds: logged at debug level only.
QUIET = {"/healthz", "/readyz", "/metrics"}

_ROUTE = "yaptide.route"
_NOWHERE = "none"
_NUMBERS = {"simulation_id": "simulation", "task_id": "task"}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(DIRECT|BATCH)", re.ASCII)


def log_requests(app: APIFlask) -> None:
    """Log the requests of `app`. Call it before other functions are registered with `before_request`."""
    app.before_request(_bind_route)
    app.wsgi_app = _RequestLog(app.wsgi_app)  # type: ignore[method-assign]  # Flask's documented way


def _bind_route() -> None:
    """Record the route and the simulation of the request."""
    if request.url_rule is not None:
        request.environ[_ROUTE] = request.url_rule.rule
    for name, value in (request.view_args or {}).items():
        if name in _NUMBERS:
            logs.bind_log_context(**{_NUMBERS[name]: value})
    job_id = request.args.get("job_id", "")
    if _JOB_ID.fullmatch(job_id):  # anything else could be a secret in the wrong place
        logs.bind_log_context(job_id=job_id)


class _RequestLog:
    """A WSGI middleware."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        record = _Record(environ)

        def start(status: str, *rest: Any) -> Any:
            record.status = int(status[:3])
            return start_response(status, *rest)

        structlog.contextvars.clear_contextvars()
        try:
            response = self._app(environ, start)
        except BaseException:
            record.finish()
            raise
        record.context = structlog.contextvars.get_contextvars()
        return _Response(response, record)


class _Record:
    """The log record of a request."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.status = 500
        self.sent = 0
        self.context: dict[str, Any] = {}
        self._environ = environ
        self._began = time.perf_counter()
        self._body = environ["wsgi.input"] = _Body(environ["wsgi.input"])
        self._ended = False

    def finish(self) -> None:
        """Log the request when its response was sent or abandoned."""
        if self._ended:
            return
        self._ended = True
        seconds = time.perf_counter() - self._began
        method = self._environ["REQUEST_METHOD"]
        method = method if method in _METHODS else "other"
        route = self._environ.get(_ROUTE, _NOWHERE)
        metrics.observe_request(method, route, self.status, seconds, self._body.received, self.sent)
        structlog.contextvars.clear_contextvars()
        write = log.debug if route in QUIET else log.info
        fields = {"method": method, "route": route, "status": self.status, "milliseconds": round(seconds * 1000, 1)}
        write("request", **fields, **self.context)


class _Response:
    """The parts of a response, counted when sent."""

    def __init__(self, parts: Iterable[bytes], record: _Record) -> None:
        self._parts = parts
        self._record = record

    def __iter__(self) -> Iterator[bytes]:
        # Log the request before the last part is sent, so that the log is complete when the client has the response.
        pending = b""
        for part in self._parts:
            if pending:
                yield pending
            pending = part
            self._record.sent += len(part)
        self._record.finish()
        yield pending

    def close(self) -> None:
        try:
            getattr(self._parts, "close", lambda: None)()
        finally:
            self._record.finish()


class _Body:
    """The body of a request, counted when received."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.received = 0

    def read(self, *size: int) -> bytes:
        return self._count(self._stream.read(*size))

    def readline(self, *size: int) -> bytes:
        return self._count(self._stream.readline(*size))

    def readlines(self, *hint: int) -> list[bytes]:
        return [self._count(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._count, self._stream)

    def _count(self, data: bytes) -> bytes:
        self.received += len(data)
        return data

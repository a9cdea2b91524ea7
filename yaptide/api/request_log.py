"""Watches every request from outside of Flask: one line in the log, and the figures of `yaptide.services.metrics`.

Neither has anything that a client chose freely: the route is the template of its path, the method one of those known.
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

#: What monitoring asks for every few seconds: it is not worth a line.
QUIET = {"/healthz", "/readyz", "/metrics"}

_ROUTE = "yaptide.route"
_NOWHERE = "none"
_NUMBERS = {"simulation_id": "simulation", "task_id": "task"}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(DIRECT|BATCH)", re.ASCII)


def log_requests(app: APIFlask) -> None:
    """Watch the requests of `app`; called before anything else is to be done before requests."""
    app.before_request(_note)
    app.wsgi_app = _Watch(app.wsgi_app)  # type: ignore[method-assign]  # as Flask wants it done


def _note() -> None:
    """Remember which route it is, and which simulation it is about."""
    if request.url_rule is not None:
        request.environ[_ROUTE] = request.url_rule.rule
    for name, value in (request.view_args or {}).items():
        if name in _NUMBERS:
            logs.bind_log_context(**{_NUMBERS[name]: value})
    job_id = request.args.get("job_id", "")
    if _JOB_ID.fullmatch(job_id):  # anything else may be a secret in the wrong place
        logs.bind_log_context(job_id=job_id)


class _Watch:
    """A WSGI application around another."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen = _Seen(environ)

        def start(status: str, *rest: Any) -> Any:
            seen.status = int(status[:3])
            return start_response(status, *rest)

        structlog.contextvars.clear_contextvars()
        try:
            answer = self._app(environ, start)
        except BaseException:
            seen.end()
            raise
        seen.context = structlog.contextvars.get_contextvars()
        return _Answer(answer, seen)


class _Seen:
    """What is known of a request so far."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.status = 500
        self.sent = 0
        self.context: dict[str, Any] = {}
        self._environ = environ
        self._began = time.perf_counter()
        self._body = environ["wsgi.input"] = _Body(environ["wsgi.input"])
        self._ended = False

    def end(self) -> None:
        """The answer has been sent, or nobody wants it any more."""
        if self._ended:
            return
        self._ended = True
        seconds = time.perf_counter() - self._began
        method = self._environ["REQUEST_METHOD"]
        method = method if method in _METHODS else "other"
        route = self._environ.get(_ROUTE, _NOWHERE)
        metrics.observe_request(method, route, self.status, seconds, self._body.received, self.sent)
        structlog.contextvars.clear_contextvars()
        tell = log.debug if route in QUIET else log.info
        fields = {"method": method, "route": route, "status": self.status, "milliseconds": round(seconds * 1000, 1)}
        tell("request", **fields, **self.context)


class _Answer:
    """The parts of an answer, counted on their way out."""

    def __init__(self, parts: Iterable[bytes], seen: _Seen) -> None:
        self._parts = parts
        self._seen = seen

    def __iter__(self) -> Iterator[bytes]:
        # One part behind: a client that has all of its answer finds it counted.
        kept = b""
        for part in self._parts:
            if kept:
                yield kept
            kept = part
            self._seen.sent += len(part)
        self._seen.end()
        yield kept

    def close(self) -> None:
        try:
            getattr(self._parts, "close", lambda: None)()
        finally:
            self._seen.end()


class _Body:
    """The body of a request, counted on its way in."""

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

"""HTTP/1.1 connections with limits on slow clients, beyond uvicorn's limit on idle connections.

A client has `Rules.grace` seconds to send the head of a request, to read the end of a response (plus one second per
`Rules.rate` bytes), and to send the rest of a rejected body. The shell limits bodies and long responses.
"""

import resource
import signal
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from yaptide.api.shell import Rules, Shell

_MOST_HEAD = 64 << 10
_MOST_FILES = 1 << 16
_KEEP_ALIVE = 75
_TICKS = 10  # uvicorn's ticks per second


class Connection(HttpToolsProtocol):
    """A connection of a client."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app_state = {"connection": self}  # becomes part of the scope of each request
        self._rules: Rules = cast("Shell", self.config.app).rules
        self.deadline: float | None = None
        self._head: int | None = None
        self._owed, self._since, self._limit = "", 0.0, 0.0

    def data_received(self, data: bytes) -> None:
        """Receive bytes; reject a request head that is too long."""
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > _MOST_HEAD:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request header too long")

    def on_message_begin(self) -> None:
        """Start measuring the head of a request."""
        self._head, self._owed = 0, ""
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop measuring the head of a request."""
        self._head = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Reject data that is not an HTTP request."""
        self._refuse(HTTPStatus.BAD_REQUEST, "Not an HTTP/1.1 request")

    def check_deadline(self, now: float) -> None:
        """Close the connection if its client is too slow. Called every second."""
        if self.deadline is not None and now > self.deadline:
            self._give_up("Request body too slow")
            return
        owed = self._owes()
        if owed != self._owed:
            size = self.transport.get_write_buffer_size() if owed == "reading" else 0
            self._owed, self._since, self._limit = owed, now, self._rules.grace + size / self._rules.rate
        elif owed and now - self._since > self._limit:
            self._give_up("Request header too slow")

    def is_closing(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self.transport.is_closing()

    def abort(self) -> None:
        """Close the connection at once and drop unsent data."""
        self.transport.abort()

    def _give_up(self, message: str) -> None:
        """Respond 408 to an incomplete request; close the connection in any case."""
        cycle = cast("Any", self.cycle)
        if self._head is not None or (cycle is not None and cycle.more_body and not cycle.response_started):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)
        else:
            self.transport.abort()

    def _owes(self) -> str:
        """Return what the server waits for from the client; empty if nothing."""
        cycle = cast("Any", self.cycle)
        if cycle is not None and not cycle.response_complete:
            return ""  # the shell enforces the deadline
        if self.transport.get_write_buffer_size():
            return "reading"
        if cycle is not None and cycle.more_body:
            return "the rest of a body"
        return "" if self.timeout_keep_alive_task is not None else "a request"

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Respond and close the connection before there is a complete request."""
        if self.transport.is_closing():
            return
        body = orjson.dumps({"message": message})
        head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Serves a shell until SIGTERM or SIGINT; then running requests have `grace` seconds to finish."""

    def __init__(self, shell: Shell, grace: int) -> None:
        config = uvicorn.Config(
            shell,
            interface="asgi3",
            http=Connection,
            ws="none",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            log_level="critical",  # it would warn about every malformed request; the shell logs its own errors
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=grace,
        )
        super().__init__(config)

    def serve_on(self, listener: socket.socket) -> None:
        """Serve on a listening socket until the server stops."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _MOST_FILES), hard))
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn re-raises them at its end for the previous handlers
            signal.signal(number, self.handle_exit)
        self.run([listener])

    async def on_tick(self, counter: int) -> bool:
        """Check the deadlines of all connections once per second."""
        if counter % _TICKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                cast("Connection", connection).check_deadline(now)
        return await super().on_tick(counter)

"""Connections: uvicorn speaks HTTP/1.1 and ends idle ones; here those end whose clients owe us something.

A client has `Rules.grace` seconds to send the head of a request, to read the end of an answer (and one more for each
`Rules.rate` bytes of it), and to send the rest of a body that was refused. The shell sees to bodies and long answers.
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
_TICKS = 10  # uvicorn makes so many a second


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app_state = {"connection": self}  # in the scope of each of its requests
        self._rules: Rules = cast("Shell", self.config.app).rules
        self.deadline: float | None = None
        self._head: int | None = None
        self._owed, self._since, self._limit = "", 0.0, 0.0

    def data_received(self, data: bytes) -> None:
        """Take in bytes, but no endless head of a request."""
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > _MOST_HEAD:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too long")

    def on_message_begin(self) -> None:
        """The head of a request begins."""
        self._head, self._owed = 0, ""
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request has come."""
        self._head = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request."""
        self._refuse(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1")

    def look(self, now: float) -> None:
        """Close the connection if its client has owed something for too long; to be called every second."""
        if self.deadline is not None and now > self.deadline:
            self._give_up("The body of the request came too slowly")
            return
        owed = self._owes()
        if owed != self._owed:
            size = self.transport.get_write_buffer_size() if owed == "reading" else 0
            self._owed, self._since, self._limit = owed, now, self._rules.grace + size / self._rules.rate
        elif owed and now - self._since > self._limit:
            self._give_up("The head of the request came too slowly")

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.transport.is_closing()

    def abort(self) -> None:
        """End the connection at once, whatever was not sent."""
        self.transport.abort()

    def _give_up(self, message: str) -> None:
        """Answer 408 to a request that is not whole, and end the connection in any case."""
        cycle = cast("Any", self.cycle)
        if self._head is not None or (cycle is not None and cycle.more_body and not cycle.response_started):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)
        else:
            self.transport.abort()

    def _owes(self) -> str:
        cycle = cast("Any", self.cycle)
        if cycle is not None and not cycle.response_complete:
            return ""  # the shell has it
        if self.transport.get_write_buffer_size():
            return "reading"
        if cycle is not None and cycle.more_body:
            return "the rest of a body"
        return "" if self.timeout_keep_alive_task is not None else "a request"

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer before there is a request, and close."""
        if self.transport.is_closing():
            return
        body = orjson.dumps({"message": message})
        head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Serves a shell until the process is told to stop (SIGTERM, Ctrl-C); then requests have `grace` seconds to end."""

    def __init__(self, shell: Shell, grace: int) -> None:
        config = uvicorn.Config(
            shell,
            interface="asgi3",
            http=Connection,
            ws="none",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            log_level="critical",  # it warns of every broken request; the shell logs what goes wrong in it
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=grace,
        )
        super().__init__(config)

    def serve_on(self, listener: socket.socket) -> None:
        """Serve on a socket that listens, to the end."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _MOST_FILES), hard))
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again at its end, for who was there before
            signal.signal(number, self.handle_exit)
        self.run([listener])

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections."""
        if counter % _TICKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                cast("Connection", connection).look(now)
        return await super().on_tick(counter)

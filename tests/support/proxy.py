"""A bad network: a proxy that drops requests, loses responses, delays, or stops within a body."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CHUNK = 1 << 16


class Fate(Enum):
    """What happens to a request."""

    PASS = "passed on"
    DROP = "dropped before the server receives it"
    LOSE = "processed by the server, whose response is lost"
    DELAY = "passed on after a second"
    HOLD = "stopped in the middle of its body until released"


Judge = Callable[[str, str], Fate]


@dataclass
class Proxy:
    """A proxy for the server on `port`; `judge` decides by method and path what happens to a request."""

    port: int
    judge: Judge = lambda *_: Fate.PASS
    fates: list[tuple[Fate, str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def handle(self, request: "_Handler") -> None:
        """Treat a request according to its fate."""
        fate = self.judge(request.command, request.path)
        self.fates.append((fate, request.command, request.path))
        if fate is Fate.DROP:
            request.close_connection = True
            return
        if fate is Fate.DELAY:
            time.sleep(1)
        server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            self._send(request, server, hold=fate is Fate.HOLD)
            answer = server.getresponse()
            body = answer.read()
        except OSError:
            request.close_connection = True
            return
        finally:
            server.close()
        if fate is Fate.LOSE:
            request.close_connection = True
            return
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _send(self, request: "_Handler", server: http.client.HTTPConnection, *, hold: bool) -> None:
        remaining = int(request.headers.get("Content-Length", 0))
        server.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            if name.lower() != "connection":
                server.putheader(name, value)
        server.endheaders()
        if hold:
            half = request.rfile.read(remaining // 2)
            server.send(half)
            remaining -= len(half)
            self.held.set()
            self.released.wait(60)
        while remaining and (chunk := request.rfile.read(min(remaining, _CHUNK))):
            server.send(chunk)
            remaining -= len(chunk)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.proxy.handle(self)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore killed clients."""


@contextlib.contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """Run a proxy for the server on `port` of this machine."""
    running_proxy = Proxy(port)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": running_proxy}))
    running_proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield running_proxy
    finally:
        running_proxy.released.set()
        server.shutdown()
        thread.join()
        server.server_close()

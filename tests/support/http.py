"""A small real HTTP server whose responses a test defines."""

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes]


@dataclass
class Service:
    """The function that returns the response, and the requests received so far: path and bearer token."""

    url: str
    answer: Callable[[], Answer] = lambda: (404, b"")
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answers(self, document: Any, status: int = 200) -> None:
        """Respond with JSON from now on."""
        body = json.dumps(document).encode()
        self.answer = lambda: (status, body)


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Service]:
    """Run such a server on a free loopback port, with TLS if a context is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.asked.append((self.path, self.headers.get("Authorization", "")))
            status, body = service.answer()
            # The client may have gone away.
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service = Service(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()

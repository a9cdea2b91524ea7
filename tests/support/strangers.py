"""Clients that are slow, break off, or guess passwords."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx

from tests.support.processes import DEADLINE, PASSWORD, USER, Server

#: Number of clients that guess at once.
STRANGERS = 40


@contextlib.contextmanager
def connections(server: Server, count: int, start: bytes) -> Iterator[list[socket.socket]]:
    """Open connections and send `start` on each."""
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for connection in opened:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # limits how much the kernel reads ahead
            connection.settimeout(60)
            connection.connect((host, int(port)))
            connection.sendall(start)
        yield opened


def head(method: str, path: str, length: int, **more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}"] if length else []
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in more.items()), "", ""]).encode()


def log_in(http: httpx.Client, address: str, password: str = PASSWORD, name: str = USER) -> httpx.Response:
    body = {"username": name, "password": password}
    return http.post("/auth/login", json=body, headers={"X-Forwarded-For": address}, timeout=DEADLINE)


class Flood:
    """Clients that guess passwords until the end of a block."""

    def __init__(self, server: Server) -> None:
        self._url = server.url
        self._numbers = count()
        self._stop = threading.Event()
        self._all_guessed = threading.Barrier(STRANGERS + 1)
        self.answers: Counter[int] = Counter()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Guess passwords within the block; each client has guessed at least once before it begins."""
        with ThreadPoolExecutor(STRANGERS) as pool:
            strangers = pool.map(self._guess_on, range(STRANGERS))
            self._all_guessed.wait(DEADLINE)
            try:
                yield
            finally:
                self._stop.set()
            list(strangers)

    def _guess_on(self, _number: int) -> None:
        with httpx.Client(base_url=self._url) as http:
            self._guess(http)
            self._all_guessed.wait(DEADLINE)
            while not self._stop.is_set():
                self._guess(http)

    def _guess(self, http: httpx.Client) -> None:
        number = next(self._numbers)
        name = USER if number % 2 else f"user{number}"
        refused = log_in(http, f"203.0.{number >> 8 & 255}.{number & 255}", "wrong", name)
        self.answers[refused.status_code] += 1
        if refused.status_code == 503:
            assert refused.headers["Retry-After"]

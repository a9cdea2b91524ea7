"""Forty strangers who guess passwords, each from elsewhere, keep nobody out and the server from nothing."""

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.support.processes import DEADLINE, PASSWORD, USER, Server, place

STRANGERS = 40
#: How often the owner signs in, and is answered.
ROUNDS = int(os.environ.get("FLOOD", "3"))
HOME, HOTEL = "192.0.2.1", "198.51.100.7"
#: Seconds within which the owner has to be signed in, and somebody else answered.
OWNER, OTHERS = 5.0, 5.0


@pytest.fixture
def server(tmp_path):
    with place(tmp_path / "place", YAPTIDE_PROXIES="1") as there:
        yield there.up("--no-executor").register()


def log_in(http: httpx.Client, address: str, password: str = PASSWORD, name: str = USER) -> httpx.Response:
    body = {"username": name, "password": password}
    return http.post("/auth/login", json=body, headers={"X-Forwarded-For": address}, timeout=DEADLINE)


class Flood:
    """Strangers who guess until they are told to stop."""

    def __init__(self, server: Server) -> None:
        self._url = server.url
        self._numbers = count()
        self.stop = threading.Event()
        self.all_guessed = threading.Barrier(STRANGERS + 1)
        self.answers: Counter[int] = Counter()

    def guess(self, _number: int) -> None:
        with httpx.Client(base_url=self._url) as http:
            self._guess(http)
            self.all_guessed.wait(DEADLINE)
            while not self.stop.is_set():
                self._guess(http)

    def _guess(self, http: httpx.Client) -> None:
        number = next(self._numbers)
        name = USER if number % 2 else f"user{number}"
        refused = log_in(http, f"203.0.{number >> 8 & 255}.{number & 255}", "wrong", name)
        self.answers[refused.status_code] += 1
        if refused.status_code == 503:
            assert refused.headers["Retry-After"]


def seconds(call) -> float:
    begun = time.monotonic()
    assert call().is_success
    return time.monotonic() - begun


def test_the_owner_signs_in_and_the_server_answers_during_a_flood(server):
    with httpx.Client(base_url=server.url) as owner, httpx.Client(base_url=server.url) as script:
        assert log_in(owner, HOME).is_success
        flood = Flood(server)
        with ThreadPoolExecutor(STRANGERS) as pool:
            strangers = pool.map(flood.guess, range(STRANGERS))
            flood.all_guessed.wait(DEADLINE)
            try:
                for _ in range(ROUNDS):
                    assert seconds(lambda: owner.get("/healthz")) < OTHERS
                    assert seconds(lambda: log_in(owner, HOTEL)) < OWNER
                    assert seconds(lambda: log_in(script, HOME)) < OWNER
                    assert seconds(lambda: owner.get("/user/simulations")) < OTHERS
            finally:
                flood.stop.set()
            list(strangers)
    assert flood.answers.keys() <= {401, 429, 503}
    assert flood.answers[503] > 0

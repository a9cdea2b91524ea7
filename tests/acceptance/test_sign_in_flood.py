"""Forty strangers guess passwords, each from another address: users can still sign in, and the server responds."""

import os
import time

import httpx
import pytest

from tests.support.processes import place
from tests.support.strangers import Flood, log_in

#: How often the owner signs in, and is answered.
ROUNDS = int(os.environ.get("FLOOD", "3"))
HOME, HOTEL = "192.0.2.1", "198.51.100.7"
#: Seconds within which the owner must be signed in, and other requests answered.
OWNER, OTHERS = 5.0, 5.0


@pytest.fixture
def server(tmp_path):
    with place(tmp_path / "place", YAPTIDE_PROXIES="1") as there:
        yield there.up("--no-executor").register()


def seconds(call) -> float:
    begun = time.monotonic()
    assert call().is_success
    return time.monotonic() - begun


def test_the_owner_signs_in_and_the_server_answers_during_a_flood(server):
    with httpx.Client(base_url=server.url) as owner, httpx.Client(base_url=server.url) as script:
        assert log_in(owner, HOME).is_success
        flood = Flood(server)
        with flood.running():
            for _ in range(ROUNDS):
                assert seconds(lambda: owner.get("/healthz")) < OTHERS
                assert seconds(lambda: log_in(owner, HOTEL)) < OWNER
                assert seconds(lambda: log_in(script, HOME)) < OWNER
                assert seconds(lambda: owner.get("/user/simulations")) < OTHERS
    assert flood.answers.keys() <= {401, 429, 503}
    assert flood.answers[503] > 0

"""Scripts over a network that loses responses after the server has done the work."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from werkzeug.serving import make_server

from tests.support.api import PASSWORD, counts
from tests.support.payloads import shieldhit_files
from tests.support.ports import free_port
from tests.support.proxy import Fate, Proxy, proxy
from yaptide.persistence.engine import Database
from yaptide.services import users
from yaptide_client import Client, retrying
from yaptide_client.errors import NotFound

SUBMISSIONS = 100

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def network(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy for a server with `app` that loses 20 % of the responses, and drops 5 % of the requests."""
    monkeypatch.setattr(retrying, "_FIRST_PAUSE", 0.01)
    lot, lock = random.Random(1), threading.Lock()

    def judge(_method: str, path: str) -> Fate:
        with lock:
            drawn = lot.random()
        if path.startswith("/auth"):
            return Fate.PASS
        return Fate.LOSE if drawn < 0.2 else Fate.DROP if drawn < 0.25 else Fate.PASS

    server = make_server("127.0.0.1", free_port(), app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with proxy(server.server_port) as made:
            made.judge = judge
            yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_each_submission_is_stored_exactly_once(network: Proxy, database: Database, backend) -> None:
    users.register_user(backend, "alice", PASSWORD)
    with Client(network.url) as client:
        client.sign_in("alice", PASSWORD)
        with ThreadPoolExecutor(4) as pool:
            jobs = list(
                pool.map(lambda number: client.submit(shieldhit_files(), title=str(number)), range(SUBMISSIONS))
            )
        fates = Counter(fate for fate, _, path in network.fates if path == "/jobs/direct")
        assert fates[Fate.LOSE] > SUBMISSIONS / 10
        assert fates[Fate.PASS] == SUBMISSIONS
        assert len({job.job_id for job in jobs}) == counts(database)["Simulation"] == SUBMISSIONS
        titles = {row["title"]: row["job_id"] for page in (1, 2) for row in client.simulations(page, 50)}
        assert titles == {str(number): job.job_id for number, job in enumerate(jobs)}
        for job in jobs[:30]:
            job.cancel()
            job.delete()
        assert counts(database)["Simulation"] == SUBMISSIONS - 30
        with pytest.raises(NotFound):
            jobs[0].status()

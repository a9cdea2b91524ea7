"""A client that waits for longer than tokens of sessions and sessions last, on a real connection."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from werkzeug.serving import make_server

from tests.support.api import PASSWORD, Job
from tests.support.payloads import shieldhit_files
from tests.support.ports import free_port
from yaptide.domain.rights import Scope
from yaptide.domain.states import EntityState
from yaptide.services import lifecycle, tokens, users
from yaptide_client import Client
from yaptide_client.errors import NotAuthenticated

ACCESS, SESSION = timedelta(seconds=1), timedelta(seconds=5)

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def url(app, backend):
    """A server whose access tokens last for a second, and sessions for five."""
    app.extensions["yaptide"] = replace(backend, limits=replace(backend.limits, access=ACCESS, refresh=SESSION))
    server = make_server("127.0.0.1", free_port(), app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_token_outlives_sessions_and_a_session_its_access_tokens(url, app, backend):
    user = users.register_user(backend, "alice", PASSWORD)
    token = tokens.create_token(backend, user, "script", Scope.SUBMIT).text
    start = time.monotonic()
    with Client(url) as signed_in, Client(url, token=token) as script, ThreadPoolExecutor(2) as pool:
        signed_in.sign_in("alice", PASSWORD)
        jobs = [signed_in.submit(shieldhit_files()), script.submit(shieldhit_files())]
        first = pool.submit(jobs[0].wait, 60.0, 0.1)
        second = pool.submit(jobs[1].wait, 60.0, 0.1)
        with pytest.raises(NotAuthenticated, match=r"The session on .* has ended.* needs a token"):
            first.result(60)
        assert time.monotonic() - start >= SESSION.total_seconds() - 1 > 3 * ACCESS.total_seconds()
        assert not second.done()
        numbers = backend.dispatcher.dispatched
        for job, number in zip(jobs, numbers, strict=True):
            key = lifecycle.update_key(backend, job.job_id)
            Job(app.test_client(), job.job_id, number, key).post_results()
        assert second.result(60) is EntityState.COMPLETED
        assert script.job(jobs[0].job_id).wait() is EntityState.COMPLETED

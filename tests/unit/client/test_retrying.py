"""What a client does when a server does not respond, or responds that it is busy."""

import logging
import ssl

import httpx
import pytest

from yaptide_client import Client, retrying
from yaptide_client.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, Unavailable

TOKEN = "yap_" + "s3cret" * 8
BUSY = httpx.Response(503, json={"message": "The server is busy"}, headers={"Retry-After": "7"})
PROXY = httpx.Response(502, text="<h1>Bad Gateway</h1>")
DONE = httpx.Response(200, json={"job_state": "COMPLETED", "job_id": "a-job"})
BROKEN = httpx.ReadError("Connection reset by peer")
REFUSED = httpx.ConnectError("Connection refused")


@pytest.fixture
def clock(monkeypatch):
    """Time passes only while the client pauses; the pauses so far."""
    pauses = []
    monkeypatch.setattr(retrying.time, "sleep", pauses.append)
    monkeypatch.setattr(retrying.time, "monotonic", lambda: sum(pauses))
    return pauses


@pytest.fixture
def client(clock):
    """A client; `answer_with` sets the answers, the last of which is repeated."""
    with Client("http://server", token=TOKEN) as made:
        yield made


def answer_with(client, *outcomes):
    """Let a server respond so, and return the requests that it gets."""
    requests = []

    def answer(request):
        requests.append(request)
        outcome = outcomes[min(len(requests), len(outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return httpx.Response(outcome.status_code, content=outcome.content, headers=outcome.headers)

    client._http._transport = httpx.MockTransport(answer)
    client._http._mounts = {}
    return requests


@pytest.mark.parametrize("problem", [BUSY, PROXY, BROKEN, REFUSED, httpx.ReadTimeout("timed out")], ids=range(5))
def test_a_request_that_changes_nothing_is_repeated(client, clock, problem):
    requests = answer_with(client, problem, problem, DONE)
    assert client.job("a-job").status()["job_state"] == "COMPLETED"
    assert len(requests) == 3
    assert len(clock) == 2
    assert min(clock) >= (7 if problem is BUSY else 0.1)


def test_a_submission_is_repeated_with_its_key(client):
    requests = answer_with(client, BROKEN, PROXY, DONE)
    assert client.submit({"a": "b"}).job_id == "a-job"
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len({request.content for request in requests}) == 1
    more = answer_with(client, DONE)
    client.submit({"a": "b"})
    client.submit({"a": "b"}, key="mine")
    keys = [request.headers["Idempotency-Key"] for request in (*requests, *more)]
    assert len(set(keys)) == 3
    assert keys[-1] == "mine"


@pytest.mark.parametrize("problem", [BROKEN, PROXY, BUSY, httpx.ReadTimeout("timed out")], ids=range(4))
def test_a_request_that_may_have_been_received_is_not_repeated(client, clock, problem):
    requests = answer_with(client, problem, DONE)
    with pytest.raises(Unavailable):
        client.call("POST", "/convert", json={})
    assert (len(requests), clock) == (1, [])


def test_a_request_that_was_never_sent_is_repeated(client):
    requests = answer_with(client, REFUSED, httpx.ConnectTimeout("timed out"), DONE)
    client.call("POST", "/convert", json={})
    assert len(requests) == 3


def test_it_tells_when_it_gives_up(client, clock, caplog):
    answer_with(client, BROKEN, PROXY)
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable) as given_up:
        client.job("a-job").status()
    told = str(given_up.value)
    assert told.startswith("GET http://server/jobs: the last response was HTTP 502; gave up after ")
    assert f"attempts in {sum(clock):.0f} s" in told
    assert 250 < sum(clock) <= 300
    assert max(clock) <= 15
    assert [record.getMessage() for record in caplog.records] == [
        "GET http://server/jobs: no response: Connection reset by peer; trying again for up to 300 s"
    ]
    assert TOKEN not in told + caplog.text


def test_it_does_not_wait_for_longer_than_its_patience(client, clock):
    later = httpx.Response(429, json={"message": "Too many"}, headers={"Retry-After": "900"})
    answer_with(client, later)
    with pytest.raises(Unavailable, match="HTTP 429: Too many; the server asks to wait 900 s"):
        client.job("a-job").status()
    assert clock == []


@pytest.mark.parametrize("header", ["9" * 30, "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "\u0663"])
def test_a_strange_time_to_wait_does_no_harm(client, clock, header):
    strange = httpx.Response(502, text="", headers=[(b"Retry-After", header.encode())])
    answer_with(client, strange, DONE)
    if header.startswith("9"):
        with pytest.raises(Unavailable, match="3600 s"):
            client.job("a-job").status()
    else:
        client.job("a-job").status()
        assert sum(clock) < 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidInput), (404, NotFound), (409, Conflict), (422, InvalidInput), (503, Unavailable)]
)
def test_an_error_that_lasts_is_raised_at_once(client, clock, status, kind):
    requests = answer_with(client, httpx.Response(status, json={"message": "No simulator for this is installed"}))
    with pytest.raises(kind, match=r"^No simulator for this is installed$"):
        client.submit({"a": "b"})
    assert (len(requests), clock) == (1, [])


def test_a_rejected_certificate_is_an_error_at_once(client, clock):
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    answer_with(client, error)
    with pytest.raises(Unavailable, match="certificate verify failed"):
        client.job("a-job").status()
    assert clock == []


def test_a_deletion_whose_response_was_lost_has_succeeded(client):
    gone = httpx.Response(404, json={"message": "Job with provided ID does not exist"})
    answer_with(client, BROKEN, gone)
    client.job("a-job").delete()
    answer_with(client, gone)
    with pytest.raises(NotFound):
        client.job("a-job").delete()


def test_with_a_token_no_session_is_renewed(client):
    requests = answer_with(client, httpx.Response(401, json={"message": "This token is not valid"}))
    with pytest.raises(NotAuthenticated, match="This token is not valid"):
        client.job("a-job").status()
    assert [request.url.path for request in requests] == ["/jobs"]
    assert requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_the_end_of_a_session_tells_of_tokens(clock):
    with Client("http://server") as client:
        client._http.cookies.set("access_token_1", "x")
        answer_with(client, httpx.Response(403, json={"message": "Log in again: the token has expired"}))
        with pytest.raises(NotAuthenticated, match="needs a token"):
            client.job("a-job").status()


def test_the_renewal_of_a_session_is_repeated_too(clock):
    with Client("http://server") as client:
        expired = httpx.Response(403, json={"message": "Log in again: the token has expired"})
        requests = answer_with(client, expired, BROKEN, PROXY, DONE)
        assert client.job("a-job").status()["job_state"] == "COMPLETED"
        assert [request.url.path for request in requests] == ["/jobs", *["/auth/refresh"] * 3, "/jobs"]

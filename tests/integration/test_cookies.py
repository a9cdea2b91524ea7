"""Cookies in a browser: two servers on one host, sessions that have ended, and cookies of versions before."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from flask import Flask

from tests.support.api import PASSWORD
from yaptide.api import cookies
from yaptide.application import create_app
from yaptide.services import sessions, users
from yaptide.services.backend import Backend
from yaptide.settings import Settings

one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)

HERE, THERE = "http://127.0.0.1:5000", "http://127.0.0.1:5001"
NO_TOKEN = {"message": "No token provided"}
ALICE = {"username": "alice", "password": PASSWORD}

pytestmark = one_database


def serve(backend: Backend, key: bytes) -> Flask:
    """A server of another installation: only the key that signs tokens tells it from the first."""
    return create_app(Settings(_env_file=None), replace(backend, signing_key=key))


@pytest.fixture
def servers(backend: Backend) -> dict[str, Flask]:
    """Two servers on one host, on each of which alice is a user."""
    users.register_user(backend, "alice", PASSWORD)
    return {HERE: serve(backend, b"h" * 32), THERE: serve(backend, b"t" * 32)}


@pytest.fixture
def browser(servers: dict[str, Flask]) -> Iterator[httpx.Client]:
    """Keeps cookies by host and not by port, as browsers do (RFC 6265, section 8.5)."""
    mounts = {url: httpx.WSGITransport(app) for url, app in servers.items()}
    with httpx.Client(mounts=mounts) as client:
        yield client


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have so many minutes pass for the server."""

    def go_on(minutes: float) -> None:
        time = datetime.now(UTC) + timedelta(minutes=minutes)
        monkeypatch.setattr(sessions, "utc_now", lambda: time)

    return go_on


def log_in(browser: httpx.Client, url: str) -> httpx.Response:
    response = browser.post(f"{url}/auth/login", json=ALICE)
    assert response.status_code == 202, response.text
    return response


def is_signed_in(browser: httpx.Client, url: str) -> bool:
    status, refreshed = (browser.get(url + path) for path in ("/auth/status", "/auth/refresh"))
    return status.is_success and refreshed.is_success


def set_bare(browser: httpx.Client, response: httpx.Response) -> None:
    """Have the browser hold what a sign-in gave under the names of versions before, and nothing else."""
    browser.cookies.clear()
    for name, value in response.cookies.items():
        browser.cookies.set(name.rpartition("_")[0], value, domain="127.0.0.1", path="/")


def names(browser: httpx.Client) -> set[str]:
    return {cookie.name for cookie in browser.cookies.jar}


def test_two_servers_on_one_host_leave_each_others_users_alone(browser: httpx.Client) -> None:
    log_in(browser, HERE)
    log_in(browser, THERE)
    assert is_signed_in(browser, HERE)
    assert is_signed_in(browser, THERE)
    browser.delete(f"{THERE}/auth/logout")
    assert is_signed_in(browser, HERE)
    assert browser.get(f"{THERE}/auth/status").json() == NO_TOKEN


def test_names_are_those_of_the_installation(browser: httpx.Client, servers: dict[str, Flask], backend) -> None:
    first = set(log_in(browser, HERE).cookies)
    again = create_app(Settings(_env_file=None), servers[HERE].extensions["yaptide"])  # another process, or a restart
    with httpx.Client(transport=httpx.WSGITransport(again)) as other:
        assert set(log_in(other, HERE).cookies) == first
    assert first.isdisjoint(log_in(browser, THERE).cookies)
    assert {name.rpartition("_")[0] for name in first} == {cookies.ACCESS, cookies.REFRESH, cookies.DEVICE}
    assert not any(b"h" * 32 in name.encode() for name in first)


def test_who_was_signed_in_before_the_upgrade_still_is(browser: httpx.Client) -> None:
    set_bare(browser, log_in(browser, HERE))
    assert is_signed_in(browser, HERE)
    browser.delete(f"{HERE}/auth/logout")
    assert names(browser) == {"known_device"}
    assert browser.get(f"{HERE}/auth/status").json() == NO_TOKEN


def test_bare_names_of_another_server_are_left_alone(browser: httpx.Client) -> None:
    set_bare(browser, log_in(browser, THERE))
    for path in ("/auth/status", "/auth/refresh"):
        response = browser.get(HERE + path)
        assert (response.status_code, response.json()) == (401, NO_TOKEN)
    log_in(browser, HERE)
    browser.delete(f"{HERE}/auth/logout")
    assert is_signed_in(browser, THERE)


def test_bare_names_count_for_the_lifetime_of_a_session(browser: httpx.Client, later: Callable[[float], None]) -> None:
    set_bare(browser, log_in(browser, HERE))
    later(119)
    assert browser.get(f"{HERE}/auth/refresh").is_success
    later(121)
    assert browser.get(f"{HERE}/auth/refresh").json() == NO_TOKEN
    assert browser.get(f"{HERE}/auth/status").status_code == 403


#: What ends a session while its browser still has the cookies.
ENDS = {
    "time": lambda later, _backend, _tokens: later(121),
    "a logout elsewhere": lambda _later, backend, tokens: sessions.sign_out(backend, *tokens),
    "another password": lambda _later, backend, _tokens: users.set_password(backend, "alice", "another password"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_who_has_an_ended_session_is_asked_to_log_in(browser, servers, later, end) -> None:
    tokens = {name.rpartition("_")[0]: value for name, value in log_in(browser, HERE).cookies.items()}
    end(later, servers[HERE].extensions["yaptide"], (tokens[cookies.ACCESS], tokens[cookies.REFRESH]))
    for path in ("/auth/status", "/user/simulations", "/jobs/direct?job_id=x", "/results?job_id=x", "/clusters"):
        response = browser.get(HERE + path)
        assert response.status_code == 403, path
        assert response.json()["message"].startswith("Log in again")
    before = names(browser)
    response = browser.get(f"{HERE}/auth/refresh")
    assert (response.status_code, response.json()) == (401, NO_TOKEN)
    assert "set-cookie" not in response.headers
    assert browser.get(f"{HERE}/user/simulations").status_code == 403
    assert names(browser) == before
    assert browser.delete(f"{HERE}/auth/logout").status_code == 200
    assert browser.get(f"{HERE}/user/simulations").json() == NO_TOKEN


def test_who_has_slept_is_not_asked_to_log_in(browser, servers, later) -> None:
    """The access token has ended, and the session has not: the front end stays quiet, and clients refresh it."""
    log_in(browser, HERE)
    later(11)
    for path in ("/auth/status", "/jobs/direct?job_id=x"):
        response = browser.get(HERE + path)
        assert (response.status_code, response.json()) == (401, NO_TOKEN)
    assert is_signed_in(browser, HERE) is False
    assert is_signed_in(browser, HERE), "refreshed meanwhile"
    later(22)
    users.set_password(servers[HERE].extensions["yaptide"], "alice", "another password")
    assert browser.get(f"{HERE}/auth/status").status_code == 403


def test_the_browser_keeps_cookies_for_longer_than_they_are_good(browser: httpx.Client) -> None:
    log_in(browser, HERE)
    month = datetime.now(UTC) + timedelta(days=30)
    assert {cookie.name for cookie in browser.cookies.jar if (cookie.expires or 0) > month.timestamp()} == names(
        browser
    )

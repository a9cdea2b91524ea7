"""Limits of sign-in and registration by address: under attack, and behind reverse proxies."""

from dataclasses import replace
from functools import partial
from itertools import count

import pytest

from tests.support.api import PASSWORD, sign_in
from yaptide.application import create_app, make_backend
from yaptide.services import passwords
from yaptide.services.passwords import Queue
from yaptide.services.throttle import STRICT, Throttle
from yaptide.settings import Settings

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}


def made(backend, **settings):
    return create_app(Settings(_env_file=None, **settings), backend)


def log_in(client, username="alice", password=PASSWORD, **arguments):
    return client.post("/auth/login", json={"username": username, "password": password}, **arguments)


def cookies(answer):
    return answer.headers.getlist("Set-Cookie")


def test_after_wrong_passwords_even_the_right_one_has_to_wait(app, client):
    sign_in(app, "alice")
    assert {log_in(client, password="wrong").status_code for _ in range(STRICT)} == {401}
    refused = log_in(client)
    assert refused.status_code == 429
    assert refused.json["message"] == "Too many failed sign-ins; wait 1 s, then try again"
    assert refused.headers["Retry-After"] == "1"
    assert not cookies(refused)


def test_other_users_sign_in_meanwhile(app, client):
    sign_in(app, "alice")
    sign_in(app, "bob")
    for _ in range(STRICT + 1):
        log_in(client, password="wrong")
    assert log_in(client).status_code == 429
    assert log_in(client, "bob").status_code == 202


def test_a_name_that_nobody_has_waits_too(client):
    """Otherwise the answers would tell which names there are."""
    assert [log_in(client, "nobody", "wrong").status_code for _ in range(STRICT + 1)] == [401] * STRICT + [429]


def test_after_the_wait_the_right_password_is_taken(app, client, backend):
    now = [0.0]
    object.__setattr__(backend, "throttle", Throttle(clock=lambda: now[0]))
    sign_in(app, "alice")
    for _ in range(STRICT):
        log_in(client, password="wrong")
    assert log_in(client).status_code == 429
    now[0] += 1
    assert log_in(client).status_code == 202


def test_the_old_password_cannot_be_guessed_in_a_stolen_session(signed_in):
    def change():
        return signed_in.post("/user/update", json={"password": "wrong", "new_password": "x"}).status_code

    assert [change() for _ in range(STRICT + 1)] == [401] * STRICT + [429]


@pytest.mark.parametrize("proxies", [0, 1])
def test_addresses_are_those_that_trusted_proxies_tell(backend, proxies):
    """Without a proxy, sending another forwarded address each time has no effect."""
    client = made(backend, proxies=proxies).test_client()
    codes = [
        log_in(client, "nobody", "wrong", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
        for number in range(STRICT + 1)
    ]
    assert codes == [401] * STRICT + [401 if proxies else 429]


def test_who_comes_while_too_many_sign_in_is_told_at_once_when_to_come_again(app, client, monkeypatch):
    sign_in(app, "alice")
    full = Queue(1, 0, 0.0)
    monkeypatch.setattr(passwords, "STRANGERS", full)
    body = {"username": "carol", "password": PASSWORD}
    with full.turn():
        for refused in (log_in(app.test_client()), client.put("/auth/register", json=body)):
            assert refused.status_code == 503
            assert refused.json == {"message": "Too many sign-ins at once; wait 2 s, then try again"}
            assert refused.headers["Retry-After"] == "2"
    assert client.put("/auth/register", json=body).status_code == 201
    assert log_in(client).status_code == 202


def test_so_many_may_register_and_sign_in_from_one_address(backend):
    settings = {"proxies": 1, "sign_ins_per_minute": 4, "registrations_per_hour": 3, "data_dir": backend.data_dir}
    limited = replace(backend, throttle=make_backend(Settings(_env_file=None, **settings)).throttle)
    client = made(limited, **settings).test_client()

    def ask(call, address):
        body = {"username": f"user{next(numbers)}", "password": PASSWORD}
        return call(json=body, headers={"X-Forwarded-For": address}).status_code

    numbers = count()
    register, login = partial(client.put, "/auth/register"), partial(client.post, "/auth/login")
    assert [ask(register, "203.0.113.1") for _ in range(4)] == [201] * 3 + [429]
    assert [ask(login, "203.0.113.1") for _ in range(5)] == [401] * 4 + [429]
    assert (ask(register, "203.0.113.2"), ask(login, "203.0.113.2")) == (201, 401)


def test_registration_can_be_closed(backend):
    client = made(backend).test_client()
    body = {"username": "carol", "password": PASSWORD}
    assert client.put("/auth/register", json=body).status_code == 201
    closed = Settings(_env_file=None, registration="closed")
    object.__setattr__(backend, "limits", closed.limits)
    refused = client.put("/auth/register", json=body | {"username": "dave"})
    assert refused.status_code == 403
    assert refused.json == {"message": "Registration is closed: ask the administrator of this server for an account"}
    assert log_in(client, "dave").status_code == 401
    assert log_in(client, "carol").status_code == 202


def test_forged_headers_change_nothing(backend):
    app = made(backend)
    sign_in(app, "alice")
    client = app.test_client()
    plain, forged = log_in(client), log_in(client, headers=FORGED)
    assert len(cookies(plain)) == len(cookies(forged)) == 3
    assert not any("Secure" in cookie for cookie in (*cookies(plain), *cookies(forged)))


@pytest.mark.parametrize(
    ("proxies", "proto", "secure"),
    [(1, "https", True), (1, "http", False), (1, "https, http", False), (2, "https, http", True), (2, "https", False)],
)
def test_cookies_are_secure_where_the_proxy_speaks_tls(backend, proxies, proto, secure):
    """The last entries come from trusted proxies; any client may have written those before them."""
    app = made(backend, proxies=proxies)
    sign_in(app, "alice")
    answer = log_in(app.test_client(), headers={"X-Forwarded-Proto": proto})
    assert [("Secure" in cookie) for cookie in cookies(answer)] == [secure] * 3

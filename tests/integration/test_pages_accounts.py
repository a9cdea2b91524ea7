"""Accounts on pages: register, change the password, sign in through Keycloak."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.api import PASSWORD, of_keycloak
from tests.support.routes import send_form
from yaptide.domain.errors import Unreachable
from yaptide.services import keycloak_login, sessions
from yaptide.services.backend import Keycloak

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

ISSUER = "https://sso.example.org/realms/science"
NEW = "battery staple"


def register(client: FlaskClient, username: str = "bob", password: str = PASSWORD, repeated: str = PASSWORD):
    return send_form(client, "/register", username=username, password=password, repeated=repeated)


def test_registering_signs_in(client):
    assert 'href="/register"' in client.get("/sign-in").text
    answer = register(client)
    assert (answer.status_code, answer.location) == (303, "/simulations")
    assert "bob" in client.get("/simulations").text


def test_what_cannot_be_registered_is_said_on_the_form(app, signed_in):
    client = app.test_client()
    for answer, status, message in (
        (register(client, repeated="other"), 400, "The two passwords differ"),
        (register(client, password="short", repeated="short"), 400, "at least"),
        (register(client, username="alice"), 409, "alice"),
        (register(client, username='"><b>', repeated="other"), 400, "&lt;b&gt;"),
    ):
        assert (answer.status_code, answer.mimetype) == (status, "text/html")
        assert message in answer.text
        assert 'role="alert"' in answer.text
        assert "<b>" not in answer.text
    assert client.get("/simulations").status_code == 303


def test_where_nobody_may_register_there_is_no_link(app, monkeypatch, backend):
    closed = replace(backend, limits=replace(backend.limits, registration=False))
    monkeypatch.setitem(app.extensions, "yaptide", closed)
    client = app.test_client()
    assert "/register" not in client.get("/sign-in").text
    assert "Registration is closed" in client.get("/register").text
    assert "<form" not in client.get("/register").text
    assert register(client).status_code == 403


def test_changing_the_password_ends_all_other_sessions(app, signed_in):
    elsewhere = app.test_client()
    send_form(elsewhere, "/sign-in", username="alice", password=PASSWORD)
    answer = send_form(signed_in, "/account/password", password=PASSWORD, new_password=NEW, repeated=NEW)
    assert (answer.status_code, answer.location) == (303, "/account")
    assert "All other sessions have ended" in signed_in.get("/account").text
    assert elsewhere.get("/account").status_code == 303
    assert send_form(elsewhere, "/sign-in", username="alice", password=NEW).status_code == 303


@pytest.mark.parametrize(
    ("password", "new", "repeated", "message"),
    [
        ("wrong", NEW, NEW, "Invalid login"),
        (PASSWORD, NEW, "other", "differ"),
        (PASSWORD, "short", "short", "at least"),
    ],
)
def test_a_password_that_stays_as_it_is(app, signed_in, password, new, repeated, message):
    answer = send_form(signed_in, "/account/password", password=password, new_password=new, repeated=repeated)
    assert answer.status_code in (400, 401)
    assert message in answer.text
    assert signed_in.get("/account").status_code == 200
    assert send_form(app.test_client(), "/sign-in", username="alice", password=PASSWORD).status_code == 303


def test_the_account_page_says_what_is_stored(job):
    page = job.client.get("/account").text
    assert re.search(r"<dt>Stored</dt><dd>[0-9.]+ k?B<", page)
    assert " of " not in page.partition("Stored")[2].partition("</dl>")[0]


@pytest.fixture
def with_keycloak(app: Flask, backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The application with a realm that is not there."""
    keycloak = Keycloak((ISSUER,), frozenset({"yaptide-pages"}), web_client="yaptide-pages")
    monkeypatch.setitem(app.extensions, "yaptide", replace(backend, keycloak=keycloak))
    return app


def begin(client: FlaskClient) -> dict[str, str]:
    """What the browser takes along to Keycloak."""
    assert "Sign in through Keycloak" in client.get("/sign-in").text
    address = urlsplit(client.get("/sign-in/keycloak?next=/account").location)
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{ISSUER}/protocol/openid-connect/auth"
    return dict(parse_qsl(address.query))


def test_signing_in_through_keycloak(with_keycloak, monkeypatch):
    """The real one: tests/acceptance/test_keycloak.py."""
    client, asked = with_keycloak.test_client(), {}

    def exchange(url: str, form: dict[str, str]) -> dict[str, str]:
        asked.update(form, url=url)
        return {"access_token": "a token"}

    def signed_in(backend, token, *others):
        assert (token, others[:3]) == ("a token", (None, None, None))
        return replace(sessions.begin_session(backend, of_keycloak(backend, "carol")), remark="no certificate")

    monkeypatch.setattr(keycloak_login, "fetch_json", exchange)
    monkeypatch.setattr(sessions, "sign_in_through_keycloak", signed_in)
    query = begin(client)
    answer = client.get("/sign-in/keycloak/back", query_string={"state": query["state"], "code": "a code"})
    assert (answer.status_code, answer.location) == (303, "/account")
    assert asked["url"] == f"{ISSUER}/protocol/openid-connect/token"
    assert asked["redirect_uri"] == query["redirect_uri"] == "http://localhost/sign-in/keycloak/back"
    digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == query["code_challenge"]
    page = client.get("/account").text
    assert "change your password there" in page
    assert "no certificate" in page
    # The code was used up with the attempt.
    again = client.get("/sign-in/keycloak/back", query_string={"state": query["state"], "code": "a code"})
    assert (again.status_code, keycloak_login.OUTDATED in again.text) == (401, True)
    # A session that has ended begins anew at Keycloak, without a question here.
    client.delete("/auth/logout")
    assert client.get("/account").location == "/sign-in/keycloak?next=/account"
    send_form(client, "/sign-out")
    assert client.get("/account").location == "/sign-in?next=/account"


def test_what_keycloak_refuses_is_said_in_a_sentence(with_keycloak, monkeypatch):
    client = with_keycloak.test_client()
    monkeypatch.setattr(keycloak_login, "fetch_json", lambda *_, **__: 1 / 0)
    for query, status, message in (
        ({}, 401, keycloak_login.OUTDATED),
        ({"state": "forged", "code": "c"}, 401, keycloak_login.OUTDATED),
        ({"error": "access_denied", "error_description": "<b>"}, 401, "Keycloak has not signed you in"),
        ({"code": "c" * 5000}, 401, "Keycloak has not signed you in"),
    ):
        state = begin(client)["state"] if "forged" not in str(query) and query else "x"
        answer = client.get("/sign-in/keycloak/back", query_string={"state": state, **query})
        assert (answer.status_code, message in answer.text) == (status, True), query
        assert "<b>" not in answer.text


def test_keycloak_that_does_not_answer(with_keycloak, monkeypatch):
    client = with_keycloak.test_client()

    def fail(*_, **__):
        raise Unreachable("answers with status 400")

    monkeypatch.setattr(keycloak_login, "fetch_json", fail)
    state = begin(client)["state"]
    answer = client.get("/sign-in/keycloak/back", query_string={"state": state, "code": "c"})
    assert answer.status_code == 503
    assert "Signing in through Keycloak did not work, try again" in answer.text


def test_without_keycloak_there_is_no_button(client):
    assert "Keycloak" not in client.get("/sign-in").text
    assert client.get("/sign-in/keycloak").status_code == 503
    assert client.get("/sign-in/keycloak/back").status_code == 503


@pytest.mark.parametrize(("scheme", "is_secure"), [("http", False), ("https", True)])
def test_cookies_of_pages_are_secure_over_tls(client, scheme, is_secure):
    response = client.get("/sign-in", base_url=f"{scheme}://localhost")
    (cookie,) = response.headers.getlist("Set-Cookie")
    assert ("Secure" in cookie.split("; ")) == is_secure
    assert "HttpOnly" in cookie

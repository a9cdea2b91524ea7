"""Signing in through a real Keycloak, which takes a while to start: everything that needs it is in this module."""

import contextlib
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from flask.testing import FlaskClient
from jwt.utils import base64url_encode
from werkzeug.test import TestResponse

from tests.support import http
from tests.support.api import PASSWORD, contents, cookie_name, cookie_of, sign_in as sign_in_locally, submit
from tests.support.keycloak import UI, Realm, Server
from tests.support.ports import free_port
from tests.support.processes import Place, Running, place, until
from tests.support.ssh import Authority
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import credentials, keycloak, secrets
from yaptide.services.backend import Backend, Keycloak

NO_TOKEN = {"message": "No token provided"}
SERVICE = ("plgridAccessServices", "PLG_YAPTIDE_ACCESS")
CLIENTS = 8
RACES = 12


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    """One kind is enough: what is special here are the tokens."""
    database = Database(f"sqlite:///{shutil.copy(migrated_file, tmp_path)}")
    yield database
    database.close()


@pytest.fixture(scope="module")
def realm(keycloak: Server) -> Realm:
    return keycloak.new_realm()


@pytest.fixture(scope="module")
def elsewhere(keycloak: Server) -> Realm:
    """Another realm of the same server, with the same clients and users."""
    return keycloak.new_realm()


@pytest.fixture
def app(app: Flask, realm: Realm) -> Flask:
    """The application, whose users come from `realm`."""
    configure(app, Keycloak((realm.issuer,), frozenset({UI}), SERVICE))
    return app


@pytest.fixture
def service() -> Iterator[http.Service]:
    """The certificate service."""
    with http.serve() as running:
        yield running


@pytest.fixture
def with_service(app: Flask, service: http.Service) -> Flask:
    """The application, which gets SSH certificates from `service`."""
    backend = backend_of(app)
    configure(app, replace(backend.keycloak, certificates=f"{service.url}/certificate"), (secrets.new_key(),))
    return app


def backend_of(app: Flask) -> Backend:
    result: Backend = app.extensions["yaptide"]
    return result


def configure(app: Flask, settings: Keycloak, keys: tuple[str, ...] = ()) -> None:
    """Have the application use this realm and these keys; the fixture that it comes from puts it back."""
    app.extensions["yaptide"] = replace(backend_of(app), keycloak=settings, secret_keys=keys)


def sign_in(client: FlaskClient, token: str, username: str = "alice") -> TestResponse:
    return client.post("/auth/keycloak", json={"username": username}, headers={"Authorization": f"Bearer {token}"})


def refused(response: TestResponse, message: str, status: int = 403) -> None:
    assert response.status_code == status, response.json
    assert message in response.json["message"]
    assert "Set-Cookie" not in response.headers


def forged(token: str, key: Any, algorithm: str, **header: Any) -> str:
    """The same claims, signed with another key."""
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    return jwt.encode(claims, key, algorithm, headers={"kid": kid, **header})


@pytest.mark.parametrize("grant", ["password", "browser"])
def test_signing_in(realm, client, grant):
    token = realm.token() if grant == "password" else realm.token_of_browser()
    response = sign_in(client, token)
    assert (response.status_code, response.json["message"]) == (202, "Successfully logged in")
    assert client.get("/auth/status").json == {"message": "User status", "username": "alice"}
    assert client.get("/clusters").status_code == 200
    # The front end comes again with a newer token, instead of refreshing.
    assert sign_in(client, realm.token()).status_code == 202
    assert client.get("/auth/refresh").status_code == 200
    client.delete("/auth/keycloak")
    assert client.get("/auth/status").json == NO_TOKEN


def test_signing_in_on_a_page(realm, app, client):
    configure(app, replace(backend_of(app).keycloak, web_client=UI))
    here = "http://localhost:3000"
    address = client.get("/sign-in/keycloak?next=/account", base_url=here).location
    back = realm.log_in(address)
    assert (back.port, back.path) == (3000, "/sign-in/keycloak/back")
    forged = client.get(back.path, query_string={**back.params, "state": "x"}, base_url=here)
    assert forged.status_code == 401
    client.get("/sign-in/keycloak?next=/account", base_url=here)
    other = client.get(back.path, query_string=dict(back.params), base_url=here)
    assert other.status_code == 401  # the answer to another attempt
    back = realm.log_in(client.get("/sign-in/keycloak?next=/account", base_url=here).location)
    answer = client.get(back.path, query_string=dict(back.params), base_url=here)
    assert (answer.status_code, answer.location) == (303, "/account")
    assert "change your password there" in client.get("/account", base_url=here).text


@pytest.mark.parametrize("there", ["sqlite"], indirect=True)
def test_a_program_signs_in_by_a_browser_anywhere(realm, there):
    """The device flow: the command line gets a token of yaptide, and no password ever passes through it."""
    server = there.up("--no-executor", YAPTIDE_KEYCLOAK_WEB_CLIENT=UI)
    for answer, words in (("cancel", "refused in the browser"), ("accept", f"Signed in to {server.url} as alice")):
        running = there.start("login", server.url, "--keycloak")
        shown = until(partial(_address, running), "the address is shown")
        realm.decide(shown, answer)
        assert words in running.wait().err
    assert there.run("list", "--json").json["simulations"] == []
    [(name, scope)] = there.query('SELECT name, scope FROM "Token"')
    assert (name, scope) == (socket.gethostname()[:60], "all")
    assert there.query('SELECT COUNT(*) FROM "Session"') == [(0,)]
    assert there.run("logout").code == 0
    assert there.query('SELECT COUNT(*) FROM "Token"') == [(0,)]
    server.stop()


def _address(running: Running) -> str | None:
    shown = re.search(r"Open (\S+) in a browser within .*; it must show \S+\n", running.said)
    return shown and shown[1]


def test_a_user_of_keycloak_has_no_password_and_is_nobody_local(realm, app, client, database):
    local = sign_in_locally(app, "alice")
    before = contents(database)
    assert sign_in(client, realm.token()).status_code == 202
    after = contents(database)
    assert after["YaptideUser"] == before["YaptideUser"]
    assert sorted(row[1:3] for row in after["User"]) == [("alice", "KeycloakUser"), ("alice", "YaptideUser")]
    assert len(after["KeycloakUser"]) == 1
    assert (client.get("/clusters").status_code, local.get("/clusters").status_code) == (200, 403)
    assert client.post("/user/update", json={"password": PASSWORD, "new_password": "x"}).status_code == 409
    assert sign_in_again(app).status_code == 202


def sign_in_again(app: Flask) -> TestResponse:
    return app.test_client().post("/auth/login", json={"username": "alice", "password": PASSWORD})


def test_who_is_renamed_keeps_what_is_theirs_and_a_newcomer_gets_none_of_it(keycloak, app):
    """Also where the newcomer comes first."""
    realm = keycloak.new_realm()
    configure(app, replace(backend_of(app).keycloak, issuers=(realm.issuer,)))
    her_browser, his_browser = app.test_client(), app.test_client()
    assert sign_in(her_browser, realm.token()).status_code == 202
    job = submit(her_browser)
    her_browser.delete("/auth/logout")
    realm.rename_user("alice", "alicia")
    realm.add_user("alice")
    refused(sign_in(his_browser, realm.token("alice")), "belongs to another user of Keycloak")
    assert sign_in(her_browser, realm.token("alicia"), "alicia").status_code == 202
    assert her_browser.get("/auth/status").json["username"] == "alicia"
    assert [one["job_id"] for one in listed(her_browser)] == [job.job_id]
    assert sign_in(his_browser, realm.token("alice")).status_code == 202
    assert listed(his_browser) == []
    assert his_browser.get("/inputs", query_string={"job_id": job.job_id}).status_code == 403


def listed(client: FlaskClient) -> list[dict[str, Any]]:
    simulations: list[dict[str, Any]] = client.get("/user/simulations").json["simulations"]
    return simulations


def test_nothing_of_ours_outlives_their_token(realm, app, client):
    backend = backend_of(app)
    app.extensions["yaptide"] = replace(backend, limits=replace(backend.limits, access=timedelta(hours=1)))
    token = realm.token()
    ends = jwt.decode(token, options={"verify_signature": False})["exp"]
    assert ends < (datetime.now(UTC) + timedelta(minutes=10)).timestamp()
    response = sign_in(client, token)
    assert (response.json["access_exp"], response.json["refresh_exp"]) == (ends * 1000, ends * 1000)
    assert client.get("/auth/refresh").json["access_exp"] == ends * 1000
    ((_, _, expires, *_),) = contents(backend.database)["Session"]
    assert expires.timestamp() == ends


def test_without_a_token(client):
    response = client.post("/auth/keycloak", json={"username": "alice"})
    assert (response.status_code, response.json) == (401, NO_TOKEN)
    response = client.post("/auth/keycloak", json={}, headers={"Authorization": "Bearer x"})
    assert response.status_code == 400


def test_an_expired_token(realm, client):
    token = realm.token(client="of-a-moment")
    ends = jwt.decode(token, options={"verify_signature": False})["exp"]
    until(lambda: datetime.now(UTC).timestamp() > ends, "the token expires")
    refused(sign_in(client, token), "has expired")


def test_another_issuer(realm, elsewhere, client):
    refused(sign_in(client, elsewhere.token()), "invalid")
    # The right key, and a host name that is not the one that was set.
    refused(sign_in(client, realm.token(Host="localhost:1")), "invalid")


def test_a_token_for_another_application(realm, client):
    refused(sign_in(client, realm.token(client="another-application")), "for another application")
    # One that is meant for us as well.
    assert sign_in(client, realm.token(client="gateway")).status_code == 202


def test_an_id_token_is_no_access_token(realm, client):
    refused(sign_in(client, realm.tokens()["id_token"]), "not an access token")
    refused(sign_in(client, realm.tokens()["refresh_token"]), "invalid")


def test_who_lacks_the_service_is_not_let_in(realm, app, client):
    token = realm.token("mallory")
    refused(sign_in(client, token, "mallory"), "lacks PLG_YAPTIDE_ACCESS in plgridAccessServices")
    configure(app, replace(backend_of(app).keycloak, claim=None))
    assert sign_in(client, token, "mallory").status_code == 202


def test_the_user_name_is_that_of_the_token(realm, client, database):
    refused(sign_in(client, realm.token(), "bob"), "user name")
    refused(sign_in(client, realm.token(), "ALICE"), "user name")
    refused(sign_in(client, realm.token(), ""), "user name")
    assert contents(database)["User"] == []


def test_forged_tokens(realm, client, database):
    token = realm.token()
    (published,) = [key for key in realm.public_keys() if key["use"] == "sig"]
    public = jwt.PyJWK(published).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    stranger = rsa.generate_private_key(65537, 2048)
    header, claims, signature = token.split(".")
    # PyJWT does not sign with what looks like a public key: an attacker would not ask it.
    secret = jwt.get_algorithm_by_name("HS256")
    kid = jwt.get_unverified_header(token)["kid"]
    by_public_key = f'{{"alg":"HS256","typ":"JWT","kid":"{kid}"}}'.encode()
    signed = f"{base64url_encode(by_public_key).decode()}.{claims}"
    by_public_key_text = f"{signed}.{base64url_encode(secret.sign(signed.encode(), public)).decode()}"
    tokens = {
        "another key": forged(token, stranger, "RS256"),
        "another key, named": forged(token, stranger, "RS256", kid="mine", jku="http://127.0.0.1:1/keys"),
        "another key, sent along": forged(token, stranger, "RS256", jwk=jwt.PyJWK(published)._jwk_data),
        "no signature": forged(token, None, "none"),
        "the signature left out": f"{header}.{claims}.",
        "a shared secret": by_public_key_text,
        "other claims": f"{header}.{base64url_encode(b'{}').decode()}.{signature}",
        "no token": "x",
        "deep": f"{base64url_encode(b'[' * 100_000).decode()}.e30.x",
        "not ASCII": "\xe9.\xe9.\xe9",
    }
    for what, text in tokens.items():
        response = sign_in(client, text)
        assert (response.status_code, response.json) == (403, {"message": keycloak.REJECTED}), what
    assert contents(database)["User"] == []


def test_the_realm_changes_its_keys(keycloak, app, client):
    realm = keycloak.new_realm()
    configure(app, replace(backend_of(app).keycloak, issuers=(realm.issuer,)))
    old = realm.token()
    assert sign_in(client, old).status_code == 202
    (provider,) = realm.key_providers()
    realm.add_key(priority=200)
    new = realm.token()
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]
    # Keys are asked for at most every two seconds.
    until(lambda: sign_in(client, new).status_code == 202, "the new key is known")
    assert sign_in(client, old).status_code == 202  # the realm goes on publishing that key
    realm.remove_key(provider)
    realm.add_key(priority=300)
    newest = realm.token()
    until(lambda: sign_in(client, newest).status_code == 202, "the newest key is known")
    refused(sign_in(client, old), "invalid")
    assert sign_in(client, new).status_code == 202


def test_keycloak_is_down(app, client, realm):
    issuer = f"http://127.0.0.1:{free_port()}/realms/science"
    configure(app, replace(backend_of(app).keycloak, issuers=(issuer,)))
    token = forged(realm.token(), None, "none")
    header, _, _ = token.split(".")
    claims = base64url_encode(f'{{"iss":"{issuer}"}}'.encode()).decode()
    refused(sign_in(client, f"{header}.{claims}."), "Sign-in through Keycloak is not available, try again", 503)


def test_the_certificate_comes_with_signing_in(realm, with_service, service):
    client = with_service.test_client()
    backend = backend_of(with_service)
    pair = Authority().pair("alice")
    service.answers(pair)
    token = realm.token()
    assert sign_in(client, token).json["message"] == "Successfully logged in"
    assert service.asked == [("/certificate", f"Bearer {token}")]
    ((user_id, _, _, cert, private),) = contents(backend.database)["KeycloakUser"]
    assert cert == pair["cert"]
    assert "PRIVATE KEY" not in private
    result = credentials.current_credentials(backend, user_id)
    assert (result.private_key_text, result.certificate_text) == (pair["private"], cert)
    assert result.username == "alice"
    assert client.get("/auth/status").json["certificate_exp"] == int(result.valid_until.timestamp() * 1000)
    # It is good for hours: the front end signs in every few minutes.
    sign_in(client, realm.token())
    assert len(service.asked) == 1


def test_a_certificate_past_half_its_time_is_replaced(realm, with_service, service):
    client, backend = with_service.test_client(), backend_of(with_service)
    service.answers(Authority().pair("alice", since=timedelta(hours=-3), lasts=timedelta(hours=2)))
    sign_in(client, realm.token())
    pair = Authority().pair("alice")
    service.answers(pair)
    assert sign_in(client, realm.token()).json["message"] == "Successfully logged in"
    ((user_id, *_),) = contents(backend.database)["KeycloakUser"]
    assert credentials.current_credentials(backend, user_id).certificate_text == pair["cert"]


def broken_services() -> dict[str, tuple[http.Answer, str]]:
    authority = Authority()
    good, other = authority.pair("alice"), authority.pair("alice")
    return {
        "an error": ((500, b"{}"), "responded with status 500"),
        "elsewhere": ((302, b""), "responded with status 302"),
        "garbage": ((200, b"<html>"), "not JSON"),
        "a list": ((200, b"[]"), "without cert and private"),
        "half": ((200, b'{"cert": "x"}'), "without cert and private"),
        "too much": ((200, b'"' + b"x" * 2**21 + b'"'), "a response that is too large"),
        "expired": ((200, body(authority.pair("alice", lasts=timedelta(seconds=-1)))), "expired on"),
        "somebody else's": ((200, body(authority.pair("bob"))), "for bob, not for alice"),
        "another key": ((200, body({**good, "private": other["private"]})), "does not belong to this private key"),
    }


def body(document: dict[str, str]) -> bytes:
    return httpx.Response(200, json=document).content


@pytest.mark.parametrize("what", broken_services())
def test_without_a_certificate_one_is_signed_in_all_the_same(realm, with_service, service, caplog, what):
    answer, message = broken_services()[what]
    service.answer = lambda: answer
    client = with_service.test_client()
    response = sign_in(client, realm.token())
    assert response.status_code == 202
    assert "without a new SSH certificate" in response.json["message"]
    assert message in response.json["message"]
    assert message in caplog.text
    assert "PRIVATE" not in caplog.text
    assert client.get("/auth/status").json == {"message": "User status", "username": "alice"}


def test_a_slow_certificate_service_is_not_waited_for(realm, with_service, service, monkeypatch):
    monkeypatch.setattr("yaptide.services.fetching.SECONDS", 0.5)
    gone = threading.Event()
    service.answer = lambda: ((gone.wait(60) and 200) or 500, b"{}")
    response = sign_in(with_service.test_client(), realm.token())
    gone.set()
    assert response.status_code == 202
    assert "did not respond within 0.5 s" in response.json["message"]


def test_who_comes_again_goes_on_with_the_session(realm, app, client, database):
    sign_in(client, realm.token())
    first = cookie_of(client, "access_token")
    sign_in(client, realm.token())
    assert len(contents(database)["Session"]) == 1
    client.delete("/auth/logout")
    assert app.test_client().get("/auth/status", headers={"Authorization": f"Bearer {first}"}).status_code == 403


def test_another_user_in_the_same_browser_begins_anew(realm, app, client, database):
    configure(app, replace(backend_of(app).keycloak, claim=None))
    sign_in(client, realm.token())
    first = cookie_of(client, "access_token")
    assert sign_in(client, realm.token("mallory"), "mallory").status_code == 202
    assert client.get("/auth/status").json["username"] == "mallory"
    assert len(contents(database)["Session"]) == 1
    assert app.test_client().get("/auth/status", headers={"Authorization": f"Bearer {first}"}).status_code == 403


def test_a_logout_overtakes_who_comes_again(realm, app, client):
    sign_in(client, realm.token())
    late = app.test_client()
    for name in ("access_token", "refresh_token"):
        late.set_cookie(cookie_name(app, name), cookie_of(client, name))
    client.delete("/auth/logout")
    response = sign_in(late, realm.token())
    assert (response.status_code, response.json) == (401, NO_TOKEN)
    # Its cookies are gone, and with them what kept the user out.
    assert late.get_cookie(cookie_name(app, "access_token")) is None
    assert sign_in(late, realm.token()).status_code == 202


@pytest.fixture(params=["sqlite", "postgresql"])
def there(request: pytest.FixtureRequest, tmp_path, realm: Realm) -> Iterator[Place]:
    """An installation whose users come from the realm."""
    variables = {
        "KEYCLOAK_BASE_URL": realm.server.url,
        "KEYCLOAK_REALM": realm.name,
        "KEYCLOAK_CLIENTS": UI,
        "KEYCLOAK_REQUIRED_CLAIM": "=".join(SERVICE),
    }
    if request.param == "postgresql":
        variables["FLASK_SQLALCHEMY_DATABASE_URI"] = request.getfixturevalue("postgres").create_database()
    with place(tmp_path / "place", **variables) as there:
        there.data.mkdir()
        schema.upgrade_tables(there.database)
        yield there


def test_a_logout_wins_over_whatever_meets_it(there: Place, realm: Realm) -> None:
    """One logout, four refreshes and three new tokens of the same browser, at the same moment."""
    server = there.up("--no-executor")
    barrier = threading.Barrier(CLIENTS)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=60)) for _ in range(CLIENTS)]
        for _ in range(RACES):
            headers = {"Authorization": f"Bearer {realm.token()}"}
            again = {"json": {"username": "alice"}, "headers": headers}
            given = clients[0].post("/auth/keycloak", **again)
            assert given.status_code == 202, given.text
            for client in clients:
                client.cookies = httpx.Cookies(given.cookies)

            def call(number: int, again: dict[str, Any] = again) -> httpx.Response:
                barrier.wait(60)
                if number == 0:
                    return clients[0].delete("/auth/keycloak")
                if number < 5:
                    return clients[number].get("/auth/refresh")
                return clients[number].post("/auth/keycloak", **again)

            logout, *others = pool.map(call, range(CLIENTS))
            assert logout.status_code == 200
            assert {answer.status_code for answer in others} <= {200, 202, 401}
            cookies = [cookie for answer in (given, *others) for cookie in answer.cookies.items()]
            tokens = {token for name, token in cookies if name.startswith("access_token_")}
            for client in clients:
                client.cookies.clear()
            for token in filter(None, tokens):
                status = clients[0].get("/auth/status", headers={"Authorization": f"Bearer {token}"})
                assert status.status_code == 403
            assert there.query('SELECT COUNT(*) FROM "Session"') == [(0,)]
    server.stop()

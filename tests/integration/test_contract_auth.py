"""Signing in as the web front end does it: messages, status codes, cookies and times."""

from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import pytest
from argon2 import Parameters, Type, extract_parameters
from werkzeug.test import TestResponse

from tests.support.api import PASSWORD, cookie_name, cookie_of, sign_in
from yaptide.persistence.queries import users as queries
from yaptide.services import sessions, users

CREDENTIALS = {"username": "alice", "password": PASSWORD}
NO_TOKEN = {"message": "No token provided"}


@pytest.fixture
def registered(client):
    """The answer to the registration of alice."""
    return client.put("/auth/register", json=CREDENTIALS)


def cookies(response: TestResponse) -> dict[str, dict[str, str]]:
    """The attributes (those that are set) and the value of each cookie that a response sets, by the kind of cookie."""
    result: SimpleCookie = SimpleCookie()
    for header in response.headers.getlist("Set-Cookie"):
        result.load(header)
    return {
        name.rpartition("_")[0]: {"value": morsel.value} | {key: value for key, value in morsel.items() if value}
        for name, morsel in result.items()
    }


def assert_both_cleared(response: TestResponse) -> None:
    result = cookies(response)
    assert set(result) == {"access_token", "refresh_token"}
    for cookie in result.values():
        assert cookie["value"] == ""
        assert cookie["max-age"] == "0"
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/", "Lax", True)


def milliseconds_from_now(milliseconds: int) -> float:
    return (datetime.fromtimestamp(milliseconds / 1000, UTC) - datetime.now(UTC)).total_seconds()


def test_registering(client, registered):
    assert (registered.status_code, registered.json) == (201, {"message": "User created"})
    again = client.put("/auth/register", json=CREDENTIALS)
    assert (again.status_code, again.json) == (403, {"message": "User existed"})


def test_passwords_are_kept_as_argon2id_hashes(database, backend, monkeypatch):
    monkeypatch.undo()  # hash as strongly as the program does
    users.register_user(backend, "alice", "another one")
    with database.reading() as connection:
        stored = queries.local_user(connection, "alice").password_hash
    parameters: Parameters = extract_parameters(stored)
    assert parameters.type is Type.ID
    assert parameters.memory_cost >= 19 * 1024
    assert "another" not in stored


def test_logging_in(client, registered):
    response = client.post("/auth/login", json=CREDENTIALS)
    assert response.status_code == 202
    assert set(response.json) == {"message", "access_exp", "refresh_exp"}
    assert response.json["message"] == "Successfully logged in"
    assert type(response.json["access_exp"]) is int
    assert milliseconds_from_now(response.json["access_exp"]) == pytest.approx(10 * 60, abs=5)
    assert milliseconds_from_now(response.json["refresh_exp"]) == pytest.approx(120 * 60, abs=5)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cookies_are_for_the_browser_only_and_for_all_paths(client, registered, scheme):
    response = cookies(client.post("/auth/login", json=CREDENTIALS, base_url=f"{scheme}://localhost"))
    assert set(response) == {"access_token", "refresh_token", "known_device"}
    for cookie in response.values():
        assert cookie["value"]
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/", "Lax", True)
        assert "domain" not in cookie
        assert cookie.get("secure", False) is (scheme == "https")


@pytest.mark.parametrize("username", ["alice", "bob"], ids=["wrong password", "unknown user"])
def test_a_failed_login_does_not_say_what_was_wrong(client, registered, username):
    response = client.post("/auth/login", json={"username": username, "password": "wrong"})
    assert (response.status_code, response.json) == (401, {"message": "Invalid login or password"})
    assert not cookies(response)


def test_a_failed_login_is_followed_by_a_logout_that_works(client):
    response = client.delete("/auth/logout")
    assert response.status_code == 200
    assert_both_cleared(response)


@pytest.mark.parametrize("body", [{}, {"username": "alice"}, {"password": PASSWORD}])
@pytest.mark.parametrize(("method", "path"), [("POST", "/auth/login"), ("PUT", "/auth/register")])
def test_missing_keys(client, method, path, body):
    response = client.open(path, method=method, json=body)
    assert response.status_code == 400
    assert all(key in response.json["message"] for key in {"username", "password"} - set(body))


def test_status_tells_who_is_signed_in(client, signed_in):
    response = signed_in.get("/auth/status")
    assert (response.status_code, response.json) == (200, {"message": "User status", "username": "alice"})
    response = client.get("/auth/status")
    assert (response.status_code, response.json) == (401, NO_TOKEN)


def test_scripts_may_send_the_token_as_a_header(client, signed_in):
    token = cookie_of(signed_in, "access_token")
    response = client.get("/auth/status", headers={"Authorization": f"Bearer {token}"})
    assert response.json["username"] == "alice"


def test_refreshing(signed_in):
    response = signed_in.get("/auth/refresh")
    assert response.status_code == 200
    assert set(response.json) == {"message", "access_exp"}
    assert milliseconds_from_now(response.json["access_exp"]) == pytest.approx(10 * 60, abs=5)
    assert set(cookies(response)) == {"access_token"}
    assert signed_in.get("/auth/status").status_code == 200


def test_a_page_load_before_the_login_is_answered_quietly(client):
    response = client.get("/auth/refresh")
    assert (response.status_code, response.json) == (401, NO_TOKEN)


def test_logging_out(signed_in):
    response = signed_in.delete("/auth/logout")
    assert response.status_code == 200
    assert_both_cleared(response)
    assert signed_in.get("/auth/status").json == NO_TOKEN


def test_a_refresh_that_a_logout_overtook_signs_nobody_in(app, signed_in):
    late = app.test_client()
    for name in ("access_token", "refresh_token"):
        late.set_cookie(cookie_name(app, name), cookie_of(signed_in, name))
    signed_in.delete("/auth/logout")
    response = late.get("/auth/refresh")
    assert (response.status_code, response.json) == (401, NO_TOKEN)
    assert not cookies(response)
    assert late.get("/auth/status").status_code == 403


def test_a_logout_ends_the_session_for_stolen_access_tokens(app, signed_in):
    thief = app.test_client()
    thief.set_cookie(cookie_name(app, "access_token"), cookie_of(signed_in, "access_token"))
    assert thief.get("/auth/status").status_code == 200
    signed_in.delete("/auth/logout")
    response = thief.get("/auth/status")
    assert response.status_code == 403
    assert response.json["message"].startswith("Log in again")


def test_a_logout_with_the_refresh_cookie_alone_is_enough(app, signed_in):
    access = cookie_of(signed_in, "access_token")
    signed_in.delete_cookie(cookie_name(app, "access_token"))
    signed_in.delete("/auth/logout")
    response = app.test_client().get("/auth/status", headers={"Authorization": f"Bearer {access}"})
    assert response.status_code == 403


def test_a_user_may_be_signed_in_from_two_browsers(app, signed_in):
    other = sign_in(app, "bob")
    elsewhere = app.test_client()
    elsewhere.post("/auth/login", json=CREDENTIALS)
    elsewhere.delete("/auth/logout")
    assert signed_in.get("/auth/status").status_code == 200
    assert other.get("/auth/status").json["username"] == "bob"


def test_sessions_end_by_themselves(backend, signed_in, monkeypatch):
    later = datetime.now(UTC) + timedelta(minutes=121)
    monkeypatch.setattr(sessions, "utc_now", lambda: later)
    response = signed_in.get("/auth/status")
    assert response.status_code == 403


def test_changing_the_password_ends_all_sessions(client, signed_in):
    wrong = signed_in.post("/user/update", json={"password": "wrong", "new_password": "the new one"})
    assert (wrong.status_code, wrong.json) == (401, {"message": "Invalid login or password"})
    assert signed_in.get("/auth/status").status_code == 200
    changed = signed_in.post("/user/update", json={"password": PASSWORD, "new_password": "the new one"})
    assert (changed.status_code, changed.json) == (202, {"message": "User updated"})
    assert signed_in.get("/auth/status").status_code == 403
    assert client.post("/auth/login", json=CREDENTIALS).status_code == 401
    assert client.post("/auth/login", json=CREDENTIALS | {"password": "the new one"}).status_code == 202


def test_an_update_of_nothing_changes_nothing(client, signed_in):
    assert signed_in.post("/user/update", json={}).status_code == 202
    assert signed_in.get("/auth/status").status_code == 200
    assert client.post("/user/update", json={}).json == NO_TOKEN


def test_keycloak_is_not_configured(client):
    response = client.post("/auth/keycloak", json={"username": "alice"}, headers={"Authorization": "Bearer x"})
    assert response.status_code == 503
    assert "not configured" in response.json["message"]
    response = client.delete("/auth/keycloak")
    assert response.status_code == 200
    assert_both_cleared(response)


def test_clusters_are_for_keycloak_users(client, signed_in):
    response = signed_in.get("/clusters")
    assert (response.status_code, response.json) == (403, {"message": "User is not allowed to use this endpoint"})
    assert client.get("/clusters").json == NO_TOKEN

"""API tokens: what each scope opens, how they end, and where they never appear."""

import logging
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from tests.support.api import PASSWORD, Job, cookie_name, cookie_of, of_keycloak, submit
from tests.support.routes import list_pages
from yaptide.api.openapi import WHO
from yaptide.api.rights import RIGHTS
from yaptide.domain.errors import Forbidden, InvalidInput, NotFound
from yaptide.domain.rights import Action, Scope, least_scope
from yaptide.persistence.models.users import YAPTIDE_USER
from yaptide.services import access, administration, backups, last_uses, tokens, users
from yaptide.services.backend import utc_now

IN_MEMORY = pytest.mark.parametrize("database", ["memory"], indirect=True)
FORBIDDEN = "Tokens cannot change the account: sign in with your password"


def create(client: FlaskClient, name: str = "laptop", scope: str = "read", **values: str) -> str:
    """Create a token through the API; return its text."""
    response = client.post("/user/tokens", json={"name": name, "scope": scope, **values})
    assert response.status_code == 201, response.json
    return response.json["token"]


def send(app: Flask, token: str, method: str, path: str, **options: object) -> TestResponse:
    """Send a request of a program that has only the token."""
    headers = {"Authorization": f"Bearer {token}"}
    return app.test_client().open(path, method=method, headers=headers, **options)


def status_of(app: Flask, token: str) -> int:
    return send(app, token, "GET", "/auth/status").status_code


def test_a_token_acts_for_its_user_until_it_is_revoked(app, signed_in, backend):
    token = create(signed_in, "laptop", "submit", expires="12h")
    answer = send(app, token, "GET", "/auth/status")
    assert (answer.status_code, answer.json["username"]) == (200, "alice")
    assert {**answer.json["token"], "expires": ""} == {"name": "laptop", "scope": "submit", "expires": ""}
    backend.last_uses.wait()
    (listed,) = signed_in.get("/user/tokens").json["tokens"]
    assert listed.keys() == {"name", "scope", "created", "expires", "last_used"}
    assert listed["last_used"] is not None
    assert signed_in.delete("/user/tokens", query_string={"name": "laptop"}).json == {"message": "Token revoked"}
    refused = send(app, token, "GET", "/auth/status")
    assert (refused.status_code, refused.json) == (401, {"message": tokens.INVALID})
    assert signed_in.get("/user/tokens").json["tokens"] == []
    assert signed_in.delete("/user/tokens", query_string={"name": "laptop"}).status_code == 404


def test_all_invalid_tokens_get_the_same_answer(app, signed_in, backend, monkeypatch):
    expired = create(signed_in, "short", expires="1h")
    later = utc_now() + timedelta(hours=1, seconds=1)
    session = cookie_of(signed_in, "access_token")
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "utc_now", lambda: later)
        answers = [send(app, expired, "GET", "/auth/status")]
    wrong = tokens.make_text()
    damaged = (wrong[:-1], "yap_", "yap_" + "ż" * 49, f"{expired}x", "yap_\0", f"yap_{session}")
    texts = [bad.encode().decode("latin-1") for bad in (wrong, *damaged)]
    answers += [send(app, bad, "GET", "/auth/status") for bad in texts]
    assert {(answer.status_code, answer.json["message"]) for answer in answers} == {(401, tokens.INVALID)}
    assert status_of(app, expired) == 200


def test_the_checksum_spares_the_database_typing_errors(backend, monkeypatch):
    def fail(*_arguments: object) -> None:
        raise AssertionError("a query")

    monkeypatch.setattr(tokens.queries, "by_digest", fail)
    token = tokens.make_text()
    with pytest.raises(AssertionError, match="a query"):
        tokens.authenticate_token(backend, token)
    other = "A" if token[10] != "A" else "B"
    with pytest.raises(tokens.NotAuthenticated):
        tokens.authenticate_token(backend, token[:10] + other + token[11:])


def test_a_removed_user_has_no_tokens(app, signed_in, backend):
    token = create(signed_in)
    user = users.find_user(backend, "alice")
    administration.remove_user(backend.database, user, administration.count_holdings(backend.database, user))
    assert status_of(app, token) == 401


def test_a_renamed_user_keeps_the_tokens(app, signed_in, backend):
    token = create(signed_in)
    administration.rename_user(backend.database, users.find_user(backend, "alice"), "alicia")
    assert send(app, token, "GET", "/auth/status").json["username"] == "alicia"


def test_an_account_that_is_given_to_another_user_of_keycloak_loses_its_tokens(app, backend):
    user = of_keycloak(backend, "kate")
    token = tokens.create_token(backend, user, "laptop", Scope.READ).text
    assert status_of(app, token) == 200
    administration.link_user(backend.database, user, None)
    assert status_of(app, token) == 401


@pytest.mark.parametrize("name", ["", " laptop", "laptop ", "a\nb", "a\0b", "x" * 65])
@IN_MEMORY
def test_names_that_cannot_be_listed_are_rejected(signed_in, name):
    answer = signed_in.post("/user/tokens", json={"name": name})
    assert (answer.status_code, "1 to 64 printable" in answer.json["message"]) == (400, True)


@pytest.mark.parametrize("expires", ["0d", "367d", "99999w", "1", "", "-1d", "never", "1.5d", "٣d"])
@IN_MEMORY
def test_every_token_expires_within_a_year(signed_in, expires):
    assert signed_in.post("/user/tokens", json={"name": "laptop", "expires": expires}).status_code == 400


@IN_MEMORY
def test_defaults_are_the_narrowest_scope_and_90_days(signed_in):
    created = signed_in.post("/user/tokens", json={"name": "laptop"}).json
    assert created["scope"] == "read"
    assert tokens.parse_age(tokens.LIFETIME) == timedelta(days=90)
    assert signed_in.post("/user/tokens", json={"name": "x", "scope": "everything"}).status_code == 400


def test_names_are_unique_for_each_user_and_the_number_is_limited(app, signed_in, stranger, backend, monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 2)
    create(signed_in, "żółw")
    again = signed_in.post("/user/tokens", json={"name": "żółw"})  # the same name in another form
    assert (again.status_code, "already" in again.json["message"]) == (409, True)
    create(stranger, "żółw")
    create(signed_in, "second", expires="1h")
    full = signed_in.post("/user/tokens", json={"name": "third"})
    assert (full.status_code, "revoke one" in full.json["message"]) == (409, True)
    later = utc_now() + timedelta(hours=2)
    monkeypatch.setattr(tokens, "utc_now", lambda: later)
    tokens.create_token(backend, users.find_user(backend, "alice"), "third", Scope.READ)  # in place of the expired one
    assert [row.name for row in tokens.list_tokens(backend, users.find_user(backend, "alice"))] == ["third", "żółw"]


def test_strangers_neither_see_nor_revoke_tokens(app, signed_in, stranger):
    token = create(signed_in)
    assert stranger.get("/user/tokens").json["tokens"] == []
    assert stranger.delete("/user/tokens", query_string={"name": "laptop"}).status_code == 404
    assert status_of(app, token) == 200


@pytest.mark.parametrize("scope", Scope)
@IN_MEMORY
def test_a_program_revokes_its_own_token_and_no_other(app, signed_in, backend, scope):
    own, other = create(signed_in, "own", "read"), create(signed_in, "other", "read")
    with backend.database.writing() as connection:
        connection.execute(text("""UPDATE "Token" SET scope = :scope WHERE name = 'own'"""), {"scope": scope})
    refused = send(app, own, "DELETE", "/user/tokens", query_string={"name": "other"})
    assert (refused.status_code, refused.json["message"]) == (403, FORBIDDEN)
    assert status_of(app, other) == 200
    assert send(app, own, "DELETE", "/user/tokens", query_string={"name": "own"}).status_code == 200
    assert status_of(app, own) == 401


def signed_in_routes() -> list[str]:
    return sorted(RIGHTS)


@IN_MEMORY
def test_every_route_for_users_has_an_action(app):
    """A new route without one fails: decide in yaptide/api/rights.py which action it is."""
    document = app.test_client().get("/openapi.json").json
    for_users = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation["x-for"].startswith("signed-in users")
    }
    assert for_users == RIGHTS.keys()
    assert not RIGHTS.keys() & {route for route, who in WHO.items() if not who.startswith("signed-in users")}


#: Routes whose body is needed before anything else is checked.
WITH_BODY = {route for route in RIGHTS if route.startswith("POST ")} | {"DELETE /user"}


@pytest.mark.parametrize("route", signed_in_routes())
@IN_MEMORY
def test_each_scope_opens_exactly_its_routes(app, job, backend, route):
    method, path = route.split()
    for scope in Scope:
        name = f"of scope {scope}"
        with backend.database.writing() as connection:
            connection.execute(text('DELETE FROM "Token"'))
        token = create(job.client, name, "read")
        with backend.database.writing() as connection:
            connection.execute(text('UPDATE "Token" SET scope = :scope'), {"scope": scope})
        body = {"name": "new", "sim_type": "mcsquare", "input_type": "editor", "ntasks": 1}
        body |= {"input_json": {"a": 1}, "password": PASSWORD, "new_password": PASSWORD, "username": "alice"}
        query = {"job_id": job.job_id, "name": name}
        answer = send(
            app, token, method, path, query_string=query, json=body if method == "POST" or path == "/user" else None
        )
        is_open = RIGHTS[route] in access.ALLOWED[scope]
        refusal = FORBIDDEN if least_scope(RIGHTS[route]) is None else f"The scope of this token is {scope}, "
        message = answer.json["message"] if answer.is_json else ""
        assert message.startswith(refusal) is not is_open, (scope, answer.status_code, message)
        assert is_open or answer.status_code == 403
        answer.close()


def test_scopes_include_each_other_and_none_changes_the_account():
    sets = [access.ALLOWED[scope] for scope in Scope]
    assert all(narrow < wide for narrow, wide in pairwise(sets))
    assert set().union(*sets) == set(Action) - {Action.CHANGE_ACCOUNT}


@IN_MEMORY
def test_a_scope_opens_nothing_of_others(app, job, stranger):
    token = create(stranger, scope="all")
    for method, path in (("GET", "/jobs"), ("GET", "/inputs"), ("DELETE", "/jobs"), ("GET", "/jobs/key")):
        answer = send(app, token, method, path, query_string={"job_id": job.job_id})
        assert (answer.status_code, answer.json["message"]) == (403, access.NOT_YOURS)
    assert send(app, token, "GET", "/jobs", query_string={"job_id": "unknown"}).status_code == 404


def test_programs_follow_and_cancel_with_a_token(app, job):
    token = create(job.client, scope="submit")
    query = {"job_id": job.job_id}
    assert send(app, token, "GET", "/jobs", query_string=query).json["job_state"] == "PENDING"
    assert send(app, token, "DELETE", "/jobs", query_string=query).json == {"message": "Job canceled"}
    assert job.state == "CANCELED"


@IN_MEMORY
def test_large_bodies_are_received_for_tokens_that_may_submit(app, signed_in, backend):
    from yaptide.api.http import may_send_large  # noqa: PLC0415

    for scope, accepted in (("read", False), ("submit", True)):
        token = create(signed_in, scope, scope)
        environ = {"PATH_INFO": "/jobs/direct", "REQUEST_METHOD": "POST", "HTTP_AUTHORIZATION": f"Bearer {token}"}
        assert may_send_large(backend, environ, b"") is accepted


@IN_MEMORY
def test_only_administrators_create_and_use_admin_tokens(app, signed_in, backend):
    refused = signed_in.post("/user/tokens", json={"name": "x", "scope": "admin"})
    assert (refused.status_code, "YAPTIDE_ADMINS" in refused.json["message"]) == (403, True)
    user = users.find_user(backend, "alice")
    object.__setattr__(backend, "operators", frozenset({(YAPTIDE_USER, "alice")}))
    held = {
        scope: tokens.authenticate_token(backend, tokens.create_token(backend, user, scope, scope).text)
        for scope in Scope
    }
    access.require_operator(backend.operators, held[Scope.ADMIN])
    for scope in set(Scope) - {Scope.ADMIN}:
        with pytest.raises(Forbidden, match="wider scope"):
            access.require_operator(backend.operators, held[scope])
    with pytest.raises(Forbidden, match="Only operators"):  # no longer an administrator
        access.require_operator(frozenset(), held[Scope.ADMIN])


@IN_MEMORY
def test_a_wrong_method_is_said_whoever_asks(app, signed_in):
    token = create(signed_in)
    assert signed_in.put("/jobs/direct", json={}).status_code == 405
    assert send(app, token, "PUT", "/jobs/direct", json={}).status_code == 405
    assert send(app, token, "HEAD", "/user/simulations").status_code == 200


@IN_MEMORY
def test_tokens_never_open_pages(app, signed_in):
    """Neither in the header nor in the cookies of a session."""
    token = create(signed_in, scope="all")
    by_cookie = app.test_client()
    by_cookie.set_cookie(cookie_name(app, "access_token"), token)
    by_cookie.set_cookie(cookie_name(app, "refresh_token"), token)
    assert by_cookie.get("/auth/status").status_code == 403
    for route in list_pages(app):
        if route.method != "GET" or not route.path.startswith(("/simulations", "/account", "/new", "/operator")):
            continue
        address = route.address(app, job_id="x", section="queue", name="x", tab="x")
        for answer in (send(app, token, "GET", address), by_cookie.get(address)):
            assert (answer.status_code, "/sign-in" in (answer.location or "")) == (303, True), route


@IN_MEMORY
def test_a_token_wins_over_the_cookies_of_a_session(app, signed_in, stranger):
    headers = {"Authorization": f"Bearer {create(signed_in)}"}
    assert stranger.get("/auth/status", headers=headers).json["username"] == "alice"
    headers = {"Authorization": f"Bearer {tokens.make_text()}"}
    assert stranger.get("/auth/status", headers=headers).status_code == 401


@IN_MEMORY
def test_the_last_use_is_written_once_a_minute(app, signed_in, backend, monkeypatch):
    writes = []
    store = last_uses.tokens.set_last_used
    monkeypatch.setattr(last_uses.tokens, "set_last_used", lambda *args: (writes.append(1), store(*args)))
    token, start = create(signed_in), utc_now()
    for seconds, expected in ((0, 1), (1, 1), (59, 1), (60, 2), (61, 2), (180, 3)):
        monkeypatch.setattr(tokens, "utc_now", lambda seconds=seconds: start + timedelta(seconds=seconds))
        assert status_of(app, token) == 200
        backend.last_uses.wait()
        assert len(writes) == expected, seconds


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_request_does_not_wait_until_its_use_is_stored(app, signed_in, backend):
    token, user = create(signed_in), users.find_user(backend, "alice")
    with backend.database.writing() as connection:  # holds the lock that the write needs
        connection.execute(text('UPDATE "Token" SET name = name'))
        assert [status_of(app, token) for _ in range(3)] == [200] * 3
        assert tokens.list_tokens(backend, user)[0].last_used is None
    backend.last_uses.wait()
    assert tokens.list_tokens(backend, user)[0].last_used is not None


@IN_MEMORY
def test_a_use_that_cannot_be_stored_disturbs_nothing(app, signed_in, backend, monkeypatch, caplog):
    def fail(*_arguments: object) -> None:
        raise tokens.NotFound("the disk is on fire")

    monkeypatch.setattr(last_uses.tokens, "set_last_used", fail)
    token = create(signed_in)
    assert status_of(app, token) == 200
    backend.last_uses.wait()
    assert "the disk is on fire" in caplog.text
    assert status_of(app, token) == 200


def test_the_text_of_a_token_is_nowhere_but_in_the_answer(app, signed_in, backend, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token = create(signed_in, scope="submit")
    job = submit_with(app, token)
    send(app, token, "GET", f"/jobs/{token}")
    send(app, token, "GET", "/jobs", query_string={"job_id": token})
    send(app, token, "POST", "/jobs/direct", data=b"{")
    history = send(app, token, "GET", "/jobs/history", query_string={"job_id": job.job_id})
    held = tokens.authenticate_token(backend, token)
    created = tokens.create_token(backend, users.find_user(backend, "alice"), "other", Scope.READ)
    backups.write_backup(backend.database, tmp_path / "store.backup")
    kept = (tmp_path / "store.backup").read_bytes()
    for secret in (token, token[4:], token[4:47]):
        assert secret not in caplog.text
        assert secret not in history.text
        assert secret not in repr(held)
        assert secret not in signed_in.get("/user/tokens").text
        assert secret.encode() not in kept
    assert created.text not in repr(created)
    assert created.text[4:47] not in str(created)


def submit_with(app: Flask, token: str) -> Job:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return submit(client)


def test_a_removed_user_gets_no_new_token(backend):
    user = SimpleNamespace(id=999, username="nobody", auth_provider=YAPTIDE_USER)
    with pytest.raises(NotFound):
        tokens.create_token(backend, user, "laptop", Scope.READ)
    for lifetime in ("400d", "x"):
        with pytest.raises(InvalidInput):
            tokens.create_token(backend, user, "laptop", Scope.READ, lifetime)

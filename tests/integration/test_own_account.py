"""What users do with their own account: password, reset link, sessions, export, deletion."""

import json
import zipfile
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient
from typer.testing import CliRunner

from tests.support.api import PASSWORD, contents, cookie_name, of_keycloak, sign_in, submit
from tests.support.routes import send_form
from yaptide import disk
from yaptide.admin import cli
from yaptide.domain.errors import (
    Busy,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    StorageFull,
    YaptideError,
)
from yaptide.domain.rights import Scope
from yaptide.persistence.queries import users as queries
from yaptide.services import accounts, administration, archives, passwords, reset_links, sessions, tokens, users
from yaptide.services.administration import Ending
from yaptide.services.backend import utc_now
from yaptide.services.devices import Origin
from yaptide_client import Client

IN_MEMORY = pytest.mark.parametrize("database", ["memory"], indirect=True)
NEW = "battery staple"
PROGRAM = "Mozilla/5.0 (X11) <b>\n"


def another_session(app: Flask, username: str = "alice", **headers: str) -> FlaskClient:
    client = app.test_client()
    body = {"username": username, "password": PASSWORD}
    assert client.post("/auth/login", json=body, headers=headers).status_code == 202
    return client


def is_signed_in(client: FlaskClient) -> bool:
    return client.get("/auth/status").status_code == 200


def change(client: FlaskClient, **values: object):
    return client.post("/user/password", json={"password": PASSWORD, "new_password": NEW, **values})


def make_token(client: FlaskClient) -> str:
    return client.post("/user/tokens", json={"name": "laptop"}).json["token"]


def token_works(app: Flask, token: str) -> bool:
    return app.test_client().get("/auth/status", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("end_sessions", [True, False])
@pytest.mark.parametrize("end_tokens", [True, False])
def test_a_new_password_ends_what_is_asked_and_not_this_session(app, signed_in, end_sessions, end_tokens):
    elsewhere, token = another_session(app), make_token(signed_in)
    answer = change(signed_in, end_sessions=end_sessions, end_tokens=end_tokens)
    assert (answer.status_code, answer.json) == (200, {"message": "Password changed"})
    assert is_signed_in(signed_in)
    assert is_signed_in(elsewhere) is not end_sessions
    assert token_works(app, token) is not end_tokens
    login = app.test_client().post
    assert login("/auth/login", json={"username": "alice", "password": PASSWORD}).status_code == 401
    assert login("/auth/login", json={"username": "alice", "password": NEW}).status_code == 202


@IN_MEMORY
def test_a_password_that_cannot_be_changed(app, signed_in, backend):
    assert change(signed_in, password="wrong").json == {"message": users.WRONG}
    assert change(signed_in, new_password="short").status_code == 400
    client = of_realm(app, backend)
    assert change(client).status_code == 409
    for _ in range(5):
        change(signed_in, password="wrong")
    assert change(signed_in).status_code == 429


def of_realm(app: Flask, backend) -> FlaskClient:
    """A client of a user of Keycloak."""
    client = app.test_client()
    signed_in = sessions.begin_session(backend, of_keycloak(backend, "kate"))
    client.set_cookie(cookie_name(app, "access_token"), signed_in.access.text)
    return client


def test_sessions_are_listed_and_end(app, signed_in):
    elsewhere = another_session(app, **{"User-Agent": "curl/8.0"})
    third = another_session(app)
    listed = elsewhere.get("/user/sessions").json["sessions"]
    assert [each["is_current"] for each in listed].count(True) == 1
    (current,) = [each for each in listed if each["is_current"]]
    assert (current["device"], current["address"]) == ("curl/8.0", "127.0.0.1")
    assert current["started"] is not None
    assert signed_in.delete("/user/sessions", query_string={"id": current["id"]}).json == {"message": "Session ended"}
    assert not is_signed_in(elsewhere)
    assert signed_in.delete("/user/sessions", query_string={"id": current["id"]}).status_code == 404
    assert signed_in.delete("/user/sessions").json == {"message": "1 other sessions ended"}
    assert is_signed_in(signed_in)
    assert not is_signed_in(third)
    assert len(signed_in.get("/user/sessions").json["sessions"]) == 1


def test_strangers_neither_see_nor_end_sessions(signed_in, stranger):
    (own,) = signed_in.get("/user/sessions").json["sessions"]
    assert [each["id"] for each in stranger.get("/user/sessions").json["sessions"]] != [own["id"]]
    assert stranger.delete("/user/sessions", query_string={"id": own["id"]}).status_code == 404
    assert stranger.delete("/user/sessions").json == {"message": "0 other sessions ended"}
    assert is_signed_in(signed_in)


@IN_MEMORY
def test_the_list_of_sessions_opens_no_session_and_hostile_programs_are_shown_as_text(backend):
    user = users.register_user(backend, "alice", PASSWORD)
    origin = Origin("2001:db8::1", None, PROGRAM * 100)
    session = sessions.session_of_token(backend, sessions.begin_session(backend, user, origin=origin).access.text)
    (listed,) = accounts.list_sessions(backend, user)
    assert len(listed.device) == 200
    assert listed.device.isprintable()
    assert listed.id not in session
    assert session not in repr(listed)


def test_an_export_is_an_archive_of_what_has_ended_and_of_nobody_else(app, job, stranger, backend, tmp_path):
    job.post_results()
    running = submit(job.client)
    submit(stranger).bring_to("CANCELED")
    make_token(job.client)
    path = tmp_path / "export.zip"
    with job.client.get("/user/export") as answer:
        assert (answer.status_code, answer.headers["Yaptide-Unfinished"]) == (200, "1")
        path.write_bytes(answer.data)
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[0] for name in archive.namelist() if "/" in name}
        text = b"".join(map(archive.read, archive.namelist()))
    assert names == {job.job_id}
    for secret in (job.update_key, running.update_key, PASSWORD, "argon2", "token_sha256"):
        assert secret.encode() not in text
    again = archives.import_simulations(backend, path, "alice")
    assert again.skipped == [job.job_id]
    assert not list(Path(backend.data_dir).glob("export-*"))


@IN_MEMORY
def test_one_download_of_a_user_at_a_time(backend, job):
    user = users.find_user(backend, "alice")
    file, _ = accounts.open_export(backend, user)
    with file, pytest.raises(Busy, match="still being downloaded"):
        accounts.open_export(backend, user)
    accounts.open_export(backend, user)[0].close()


@IN_MEMORY
def test_an_export_does_not_use_the_last_space(backend, job, monkeypatch):
    monkeypatch.setattr(disk, "MIN_FREE", 1 << 62)
    with pytest.raises(StorageFull, match="for an export"):
        accounts.open_export(backend, users.find_user(backend, "alice"))


@IN_MEMORY
def test_one_export_at_a_time(signed_in):
    with accounts._EXPORTING:
        answer = signed_in.get("/user/export")
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    with signed_in.get("/user/export") as answer:
        assert answer.status_code == 200


def test_deleting_an_account_leaves_nothing(app, signed_in, stranger, database):
    before = contents(database)
    client = sign_in(app, "zoe")
    token = make_token(client)
    submit(client).bring_to("COMPLETED")
    unfinished = submit(client)
    body = {"username": "zoe", "password": PASSWORD}
    for wrong, status in (({"username": "alice"}, 400), ({"password": "wrong"}, 401), ({}, 409)):
        assert client.delete("/user", json=body | wrong).status_code == status
    unfinished.bring_to("CANCELED")
    answer = client.delete("/user", json=body)
    assert (answer.status_code, answer.json) == (200, {"message": "Account deleted"})
    assert not any(cookie.value for cookie in client._cookies.values() if "token" in cookie.key)
    assert not token_works(app, token)
    assert app.test_client().post("/auth/login", json=body).status_code == 401
    after = contents(database)
    assert {name for name in before if before[name] != after[name]} <= {"Session", "YaptideUser"}  # of the others
    assert len(after["User"]) == len(before["User"])


def test_users_of_keycloak_delete_their_account_after_a_fresh_sign_in(app, backend, monkeypatch):
    client, late = of_realm(app, backend), utc_now() + timedelta(minutes=10, seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(accounts, "utc_now", lambda: late)
        refused = client.delete("/user", json={"username": "kate"})
    assert (refused.status_code, "Sign out" in refused.json["message"]) == (401, True)
    assert client.delete("/user", json={"username": "kate"}).status_code == 200


def test_a_reset_link_works_once(app, backend):
    user = users.register_user(backend, "alice", PASSWORD)
    elsewhere, token = another_session(app), tokens.create_token(backend, user, "laptop", Scope.READ).text
    link, second = (reset_links.make_link(backend, user, "https://yaptide.example.org/") for _ in range(2))
    address = urlsplit(link.text)
    assert f"{address.scheme}://{address.netloc}{address.path}" == "https://yaptide.example.org/reset-password"
    client = app.test_client()
    assert "alice" in client.get(f"{address.path}?{address.query}").text
    text = address.query.partition("=")[2]
    wrong = send_form(client, "/reset-password", token=text, new_password=NEW, repeated="other")
    assert (wrong.status_code, "differ" in wrong.text) == (400, True)
    answer = send_form(client, "/reset-password", token=text, new_password=NEW, repeated=NEW, end_tokens="on")
    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert not is_signed_in(elsewhere)
    assert not token_works(app, token)
    assert client.post("/auth/login", json={"username": "alice", "password": NEW}).status_code == 202
    for used in (text, second.text.partition("=")[2]):
        again = send_form(app.test_client(), "/reset-password", token=used, new_password=NEW, repeated=NEW)
        assert (again.status_code, reset_links.INVALID in again.text) == (401, True)
        assert "new_password" not in again.text


def test_of_two_uses_at_once_one_wins(backend, monkeypatch):
    user = users.register_user(backend, "alice", None)
    token = reset_links.make_token(backend, user).text
    with backend.database.reading() as connection:
        stored = queries.password_hash(connection, user.id)
    usual = passwords.make_hash(NEW)
    assert stored.split("$")[:4] == usual.split("$")[:4]  # to check it takes as long as for any other user
    opened = reset_links._open(backend, token)
    reset_links.reset_password(backend, token, NEW)
    monkeypatch.setattr(reset_links, "_open", lambda *_: opened)
    with pytest.raises(NotAuthenticated, match="used already"):
        reset_links.reset_password(backend, token, "another password")
    assert users.check_password(backend, "alice", NEW)


@IN_MEMORY
def test_links_that_open_nothing(app, backend, monkeypatch):
    user = users.register_user(backend, "alice", PASSWORD)
    session = sessions.begin_session(backend, user)
    early = utc_now() - reset_links.LIFETIME
    with monkeypatch.context() as patch:
        patch.setattr(reset_links, "utc_now", lambda: early)
        expired = reset_links.make_token(backend, user).text
    removed = reset_links.make_token(backend, users.register_user(backend, "bob", None)).text
    gone = users.find_user(backend, "bob")
    administration.remove_user(backend.database, gone, administration.count_holdings(backend.database, gone))
    users.register_user(backend, "bob", None)  # another user of that name, without a password as well
    for text in ("", "x", expired, removed, session.access.text, session.refresh.text):
        with pytest.raises(NotAuthenticated) as refused:
            reset_links.find_user(backend, text)
        assert str(refused.value) == reset_links.INVALID
    link = reset_links.make_token(backend, user).text
    with pytest.raises(YaptideError):
        sessions.authenticate_user(backend, link)
    with pytest.raises(Conflict):
        reset_links.make_link(backend, of_keycloak(backend, "kate"), "https://x")
    assert app.test_client().get("/reset-password").status_code == 200


@IN_MEMORY
def test_administrators_end_tokens_with_a_password(backend):
    user = users.register_user(backend, "alice", PASSWORD)
    tokens.create_token(backend, user, "laptop", Scope.READ)
    administration.set_password(backend.database, user, NEW)
    assert len(tokens.list_tokens(backend, user)) == 1
    administration.set_password(backend.database, user, NEW, ending=Ending(tokens=True))
    assert tokens.list_tokens(backend, user) == []


@IN_MEMORY
def test_the_account_page_has_all_doors(app, signed_in, backend):
    elsewhere = another_session(app, **{"User-Agent": "<b>curl"})
    created = send_form(signed_in, "/account/tokens", name='"><i>', scope="submit", expires="30d")
    assert created.status_code == 200
    assert "<i>" not in created.text
    text = created.text.partition('<code id="new-token">')[2].partition("<")[0]
    assert token_works(app, text)
    page = signed_in.get("/account").text
    assert text not in page
    assert "&lt;b&gt;curl" in page
    assert 'value="admin"' not in page
    for values in ({"scope": "x"}, {"expires": "400d"}, {"scope": "admin"}, {"name": ""}):
        fields = {"name": "x", "scope": "read", "expires": "1d"} | values
        refused = send_form(signed_in, "/account/tokens", **fields)
        assert refused.status_code in (400, 403)
        assert 'role="alert"' in refused.text
    assert send_form(signed_in, "/account/tokens/revoke", name='"><i>').status_code == 303
    assert not token_works(app, text)
    (other,) = [each for each in elsewhere.get("/user/sessions").json["sessions"] if each["is_current"]]
    assert send_form(signed_in, "/account/sessions/end", id=other["id"]).status_code == 303
    assert not is_signed_in(elsewhere)
    another_session(app)
    assert send_form(signed_in, "/account/sessions/end").status_code == 303
    assert len(accounts.list_sessions(backend, users.find_user(backend, "alice"))) == 1
    with signed_in.get("/account/export") as export:
        assert export.mimetype == "application/zip"
    refused = send_form(signed_in, "/account/delete", username="alice", password="wrong")
    assert (refused.status_code, "Invalid login" in refused.text) == (401, True)
    gone = send_form(signed_in, "/account/delete", username="alice", password=PASSWORD)
    assert (gone.status_code, gone.location) == (303, "/sign-in")
    assert "has been deleted" in signed_in.get("/sign-in").text


def test_the_client_has_the_same_doors(app, backend, tmp_path):
    users.register_user(backend, "alice", PASSWORD)
    with Client("http://localhost") as client, Client("http://localhost") as other:
        for each in (client, other):
            each._http._transport, each._http._mounts = httpx.WSGITransport(app), {}
            each.sign_in("alice", PASSWORD)
        token = client.create_token("laptop", scope="submit", expires="12h")
        assert token_works(app, token)
        assert [(each["name"], each["scope"]) for each in client.tokens()] == [("laptop", "submit")]
        with pytest.raises(Conflict, match="already"):
            client.create_token("laptop")
        client.revoke_token("laptop")
        with pytest.raises(NotFound):
            client.revoke_token("laptop")
        assert not token_works(app, token)
        assert [each["is_current"] for each in client.sessions()].count(True) == 1
        client.change_password(PASSWORD, NEW, end_sessions=False)
        assert len(other.sessions()) == 2
        client.end_sessions()
        with pytest.raises(NotAuthenticated):
            other.sessions()
        assert client.export_account(tmp_path / "alice.zip") == 0
        assert zipfile.is_zipfile(tmp_path / "alice.zip")
        with pytest.raises(InvalidInput):
            client.delete_account("bob", NEW)
        client.delete_account("alice", NEW)
    assert users.find_user(backend, "alice") is None


@pytest.fixture
def yaptide(database, monkeypatch):
    """Runs a command of `yaptide` on the database."""
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("FLASK_SECRET_KEY", "a key for tests, 32 bytes or more")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: object):
        done = CliRunner().invoke(cli.app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_commands(app, job, backend, yaptide, tmp_path):
    token = yaptide("tokens", "create", "laptop", "--expires", "90d", "--scope", "submit", "--user", "alice").strip()
    assert token_works(app, token)
    shown = json.loads(yaptide("tokens", "create", "other", "--user", "alice", "--json"))
    assert token_works(app, shown["token"])
    assert "laptop" in yaptide("tokens", "list", "--user", "alice")
    listed = json.loads(yaptide("tokens", "list", "--all", "--json"))["tokens"]
    assert [(each["username"], each["name"], each["scope"]) for each in listed] == [
        ("alice", "laptop", "submit"),
        ("alice", "other", "read"),
    ]
    assert token not in json.dumps(listed)
    yaptide("tokens", "revoke", "laptop", "--user", "alice", "--yes")
    assert not token_works(app, token)
    assert len(json.loads(yaptide("users", "sessions", "alice", "--json"))["sessions"]) == 1
    yaptide("users", "sessions", "alice", "--end")
    assert not is_signed_in(job.client)
    link = yaptide("users", "reset-link", "alice", "--url", "https://yaptide.example.org").strip()
    assert reset_links.find_user(backend, link.partition("token=")[2]).username == "alice"
    exported = json.loads(yaptide("users", "export", "alice", tmp_path / "alice.zip", "--json"))
    assert (exported["simulations"], exported["unfinished"]) == ([], 1)

"""`yaptide login` and `yaptide logout`."""

import httpx
import pytest
from typer.testing import CliRunner

from tests.support.api import PASSWORD
from yaptide.admin import cli, logins as commands
from yaptide.domain.errors import InvalidInput, NotAuthenticated, NotFound
from yaptide.services import tokens, users
from yaptide_client import Client, logins
from yaptide_client.logins import Login

URL = "http://127.0.0.1:5000"

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)


@pytest.fixture
def alice(backend):
    return users.register_user(backend, "alice", PASSWORD)


@pytest.fixture
def yaptide(app, alice, monkeypatch):
    """Run a command, which reaches the server at every address; returns what it printed to standard error."""
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr(commands.socket, "gethostname", lambda: "laptop")

    class Connected(Client):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            headers = self._http.headers
            self._http = httpx.Client(base_url=self.url, transport=httpx.WSGITransport(app=app), headers=headers)

    monkeypatch.setattr(commands, "Client", Connected)

    def run(*words, stdin=""):
        done = CliRunner().invoke(cli.app, list(words), input=stdin)
        if done.exception is not None:
            raise done.exception
        assert "yap_" not in done.output
        return done.stderr

    return run


def names(backend, alice):
    return [row.name for row in tokens.list_tokens(backend, alice)]


def test_a_password_becomes_a_token_of_this_host(yaptide, backend, alice, database):
    printed = yaptide("login", URL, stdin=f"\n{PASSWORD}\n")
    assert f"Signed in to {URL} as alice until " in printed
    assert PASSWORD not in printed + logins.config_file().read_text()
    login = logins.require_login()
    assert login.url == URL
    assert tokens.authenticate_token(backend, login.token).id == alice.id
    (row,) = tokens.list_tokens(backend, alice)
    assert (row.name, str(row.scope)) == ("laptop", "all")
    with database.reading() as connection:
        assert connection.exec_driver_sql('SELECT count(*) FROM "Session"').scalar_one() == 0


def test_a_second_login_replaces_the_token_of_the_first(yaptide, backend, alice):
    yaptide("login", URL, stdin=f"\n{PASSWORD}\n")
    first = logins.require_login()
    yaptide("login", f"{URL}/", stdin=f"alice\n{PASSWORD}\n")
    assert logins.require_login().token != first.token
    assert names(backend, alice) == ["laptop-2"]


def test_logging_out_revokes_the_token_and_forgets_it(yaptide, backend, alice):
    yaptide("login", URL, stdin=f"\n{PASSWORD}\n")
    printed = yaptide("logout")
    assert printed == f"Signed out of {URL}\nCommands now work on the local data folder\n"
    assert names(backend, alice) == []
    assert logins.find_login() is None
    with pytest.raises(NotFound, match="Not signed in"):
        yaptide("logout")


def test_a_token_from_elsewhere_is_used_and_not_revoked(yaptide, backend, alice):
    text = tokens.create_token(backend, alice, "script", "submit").text
    yaptide("login", URL, "--token-stdin", stdin=f"{text}\n")
    assert logins.require_login() == Login(URL, text)
    assert "stays valid until it expires" in yaptide("logout", URL)
    assert names(backend, alice) == ["script"]


@pytest.mark.parametrize(
    ("words", "stdin", "kind"),
    [
        ((URL,), "\nwrong password\n", NotAuthenticated),
        ((URL, "--token-stdin"), "yap_wrong\n", NotAuthenticated),
        ((URL, "--token-stdin"), "\n", InvalidInput),
        (("server",), "", InvalidInput),
    ],
    ids=["password", "token", "no token", "address"],
)
def test_nothing_is_stored_if_the_server_refuses(yaptide, words, stdin, kind):
    with pytest.raises(kind) as refused:
        yaptide("login", *words, stdin=stdin)
    assert "wrong password" not in str(refused.value)
    assert "yap_wrong" not in str(refused.value)
    assert logins.find_login() is None


@pytest.mark.parametrize(("url", "is_warned"), [("http://server", True), ("https://server", False), (URL, False)])
def test_a_password_without_encryption_is_warned_of(yaptide, url, is_warned):
    assert ("Warning: without https" in yaptide("login", url, stdin=f"\n{PASSWORD}\n")) is is_warned

"""Which server and token a client uses, and how they are stored."""

import json
import pickle
import stat
import sys
from types import SimpleNamespace

import pytest

from yaptide_client import Client, logins
from yaptide_client.errors import InvalidInput, NotConfigured
from yaptide_client.logins import Login, find_login

TOKEN = "yap_secret"
URL = "https://one.example"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in (logins.URL, logins.TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    return tmp_path


class Keyring:
    """The parts of the package `keyring` that are used."""

    def __init__(self, priority=5, works=True):
        self.kept, self.priority, self.works = {}, priority, works

    def get_keyring(self):
        return SimpleNamespace(priority=self.priority, name="Test")

    def set_password(self, service, name, text):
        if not self.works:
            raise RuntimeError("locked")
        self.kept[service, name] = text

    def get_password(self, service, name):
        return self.kept.get((service, name))

    def delete_password(self, service, name):
        del self.kept[service, name]


def test_a_login_is_kept_in_a_file_of_its_own(folder):
    place = logins.store_login(Login(URL, TOKEN), "host")
    file = folder / "yaptide" / "servers.json"
    assert place == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert find_login() == Login(URL, TOKEN)
    assert logins.read_name(URL) == "host"
    with Client() as client:
        assert client.url == URL
        assert client._http.headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_file_that_others_can_read_is_refused(folder):
    logins.store_login(Login(URL, TOKEN), "host")
    logins.config_file().chmod(0o644)
    with pytest.raises(NotConfigured, match="Others can read"):
        find_login()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"servers": 1, "default": 2}', '{"servers": {"u": 1}}'])
def test_a_damaged_file_is_no_traceback(text):
    path = logins.config_file()
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(text)
    if text in ("", "{"):
        with pytest.raises(NotConfigured, match="remove it"):
            find_login()
    else:
        assert find_login() is None
        assert find_login("http://u") == Login("http://u")


def test_a_keyring_is_preferred(monkeypatch):
    keyring = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    assert logins.store_login(Login(URL, TOKEN), "host") == "the keyring (Test)"
    assert TOKEN not in logins.config_file().read_text()
    assert find_login() == Login(URL, TOKEN)
    assert logins.remove_login(URL)
    assert keyring.kept == {}
    assert find_login() is None


@pytest.mark.parametrize("keyring", [Keyring(priority=0), Keyring(works=False)], ids=["none", "locked"])
def test_without_a_keyring_that_works_the_file_is_used(monkeypatch, keyring):
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    assert logins.store_login(Login(URL, TOKEN), "host") == str(logins.config_file())
    assert find_login() == Login(URL, TOKEN)


def test_the_last_server_is_the_default_until_it_is_removed():
    other = "https://two.example"
    logins.store_login(Login(URL, TOKEN), "host")
    logins.store_login(Login(other, TOKEN + "2"), "host")
    assert find_login() == Login(other, TOKEN + "2")
    assert find_login(URL + "/") == Login(URL, TOKEN)
    assert logins.remove_login(other)
    assert not logins.remove_login(other)
    assert find_login() == Login(URL, TOKEN)
    assert json.loads(logins.config_file().read_text())["default"] == URL


def test_the_environment_comes_before_what_is_stored(monkeypatch):
    logins.store_login(Login(URL, TOKEN), "host")
    monkeypatch.setenv(logins.URL, "https://two.example/")
    assert find_login() == Login("https://two.example")
    monkeypatch.setenv(logins.TOKEN, "yap_other")
    assert find_login() == Login("https://two.example", "yap_other")
    assert find_login(URL) == Login(URL, TOKEN)
    monkeypatch.setenv(logins.URL, URL)
    assert find_login() == Login(URL, "yap_other")


def test_a_token_of_the_environment_goes_to_no_other_server(monkeypatch):
    monkeypatch.setenv(logins.TOKEN, "yap_other")
    assert find_login() is None
    assert find_login(URL) == Login(URL)
    with pytest.raises(NotConfigured, match="yaptide login URL"):
        Client()


@pytest.mark.parametrize("url", ["ftp://x", "one.example", "http://", "http://me:secret@x", "http://x?token=secret"])
def test_a_wrong_url_is_refused_without_its_secrets(url):
    with pytest.raises(InvalidInput) as refused:
        Client(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["", " ", "yap_\u017c", "yap_a b", "yap_a\nb", "yap_a\x00"])
def test_a_wrong_token_is_refused_without_showing_it(token):
    with pytest.raises(InvalidInput) as refused:
        Client(URL, token=token)
    assert "yap_a" not in str(refused.value)


def test_a_token_is_not_shown_and_goes_with_a_copy():
    with Client(URL, token=f" {TOKEN}\n", patience=3) as client:
        assert TOKEN not in repr(client) + repr(vars(client)["_http"]) + repr(client._http.headers) + repr(
            Login(URL, TOKEN)
        )
        copy = pickle.loads(pickle.dumps(client))  # noqa: S301 - it is ours
        assert (copy.url, copy.patience) == (URL, 3)
        assert copy._http.headers["Authorization"] == f"Bearer {TOKEN}"

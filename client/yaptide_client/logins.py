"""Servers with their tokens: from the environment, or as `yaptide login` has stored them for this user.

A token is kept in the user's keyring if the package `keyring` is installed and has one, otherwise in a file that only
the user can read. The file has the servers in any case: the last one is the default.
"""

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yaptide_client.errors import InvalidInput, NotConfigured

URL, TOKEN = "YAPTIDE_URL", "YAPTIDE_TOKEN"
_SERVICE = "yaptide"


@dataclass(frozen=True, slots=True)
class Login:
    """A server and the token for it; None: without a token."""

    url: str
    token: str | None = field(default=None, repr=False)


def check_url(url: str) -> str:
    """Return the URL of a server without a slash at its end; raise InvalidInput if it cannot be one."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("Not the URL of a server: use e.g. https://yaptide.example.org")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput("The URL of a server has no user, password or query in it")
    return url.strip().rstrip("/")


def check_token(token: str) -> str:
    """Return a token without white space around it; raise InvalidInput, without showing it, if it cannot be one."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput("This is not a token: tokens begin with yap_ and have no spaces")
    return token


def find_login(url: str | None = None) -> Login | None:
    """Return the server of the environment or, without one, the stored default; with `url`, that server.

    A token of the environment is used for the server of the environment only. Raises InvalidInput for a wrong URL or
    token in the environment.
    """
    environment = os.environ.get(URL, "").strip()
    if environment:
        environment = check_url(environment)
    server = check_url(url) if url else environment or read_default()
    if not server:
        return None
    token = os.environ.get(TOKEN, "").strip()
    if token and server == environment:
        return Login(server, check_token(token))
    return Login(server, read_token(server))


def require_login() -> Login:
    """Return what `find_login` returns; raise NotConfigured if there is no server."""
    login = find_login()
    if login is None:
        raise NotConfigured(f"No server: give its URL, set {URL}, or run: yaptide login URL")
    return login


def config_file() -> Path:
    """Return the file with the servers, in the user's folder for configuration."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if Path(folder).is_absolute() else Path.home() / ".config"
    return base / "yaptide" / "servers.json"


def read_default() -> str | None:
    """Return the URL of the last server that was signed in to; None without one."""
    url = _read().get("default")
    return url if isinstance(url, str) else None


def read_token(url: str) -> str | None:
    """Return the stored token of a server, or None."""
    server = _servers(_read()).get(url)
    if not isinstance(server, dict):
        return None
    token = server.get("token")
    if isinstance(token, str):
        return token
    keyring = _keyring()
    return None if keyring is None else keyring.get_password(_SERVICE, url)


def read_name(url: str) -> str | None:
    """Return the name that the server knows the stored token by, or None."""
    name = (_servers(_read()).get(url) or {}).get("name")
    return name if isinstance(name, str) else None


def store_login(login: Login, name: str | None) -> str:
    """Store a server with its token, called `name` there, and make it the default; return where the token is."""
    document = _read()
    server: dict[str, Any] = {"name": name}
    place = _put_into_keyring(login)
    if place is None:
        server["token"] = login.token
        place = str(config_file())
    _write({"default": login.url, "servers": {**_servers(document), login.url: server}})
    return place


def remove_login(url: str) -> bool:
    """Remove a server with its token; return whether it was stored."""
    document = _read()
    servers = _servers(document)
    if url not in servers:
        return False
    keyring = _keyring() if "token" not in servers[url] else None
    if keyring is not None:
        with suppress(Exception):  # libraries of each system raise their own errors; it may be gone already
            keyring.delete_password(_SERVICE, url)
    del servers[url]
    default = document.get("default")
    _write({"default": next(iter(servers), None) if default == url else default, "servers": servers})
    return True


def _put_into_keyring(login: Login) -> str | None:
    """Keep a token in the keyring and return the name of the keyring; None if there is none that works."""
    keyring = _keyring()
    if keyring is None:
        return None
    with suppress(Exception):  # a locked or missing service; libraries of each system raise their own errors
        keyring.set_password(_SERVICE, login.url, login.token)
        if keyring.get_password(_SERVICE, login.url) == login.token:
            return f"the keyring ({keyring.get_keyring().name})"
    return None


def _keyring() -> Any:
    """Return the module `keyring` if it is installed and has a place for secrets; None otherwise."""
    try:
        import keyring  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    with suppress(Exception):  # as above
        if keyring.get_keyring().priority >= 1:
            return keyring
    return None


def _servers(document: dict[str, Any]) -> dict[str, Any]:
    servers = document.get("servers")
    return servers if isinstance(servers, dict) else {}


def _read() -> dict[str, Any]:
    """Return the content of the file; nothing without one. Raises NotConfigured if others can read its tokens."""
    path = config_file()
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise NotConfigured(
                f"Others can read {path}: run chmod 600 on it, then revoke its tokens and sign in again"
            )
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NotConfigured(f"Cannot read {path}: remove it, and sign in again ({type(error).__name__})") from None
    return document if isinstance(document, dict) else {}


def _write(document: dict[str, Any]) -> None:
    """Replace the file at once; only its owner can read it, from the moment that it exists."""
    path = config_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)

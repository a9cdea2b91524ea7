"""`yaptide login` and `yaptide logout`: let commands on simulations work on a server."""

import getpass
import ipaddress
import socket
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from yaptide.admin.display import print_message
from yaptide.admin.remote import PATIENCE
from yaptide.admin.targets import LOCAL
from yaptide.domain.errors import Conflict, NotAuthenticated, NotFound, YaptideError
from yaptide_client import Client, logins
from yaptide_client.logins import Login, check_token, check_url

app = typer.Typer()

_MAX_NAME = 60
#: Tokens of one host, such as those of several accounts on it.
_MOST_OF_HOST = 20


@app.command("login")
def sign_in(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the server.")],
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read a token from standard input instead of asking for a password.")
    ] = False,
    expires: Annotated[str, typer.Option(help="Lifetime of the token, e.g. 90d or 12h.")] = "90d",
) -> None:
    """Sign in to a server, so that commands on simulations work on it instead of the local data folder.

    Asks for name and password, and creates a token named after this host, with scope all. The password is not kept; the
    token is kept in your keyring if the package keyring is installed, otherwise in a file that only you can read.

    Example: yaptide login https://yaptide.example.org
    """
    url = check_url(url)
    _warn_without_tls(url)
    if token_stdin:
        token, name = check_token(sys.stdin.readline()), None
    else:
        token, name = _create_token(url, expires)
    with Client(url, token=token, patience=PATIENCE) as client:
        status = client.call("GET", "/auth/status")
    earlier = _stored(url)
    place = logins.store_login(Login(url, token), name)
    if earlier is not None:
        _revoke(*earlier)
    until = status.get("token") or {}
    print_message(
        f"Signed in to {url} as {status['username']}"
        + (f" until {until['expires']}" if until.get("expires") else "")
        + f". The token is in {place}. Commands on simulations now work there; use --server {LOCAL} for the data folder"
    )


@app.command("logout")
def sign_out(
    url: Annotated[
        str, typer.Argument(metavar="[URL]", help="Address of the server; default: the last.", show_default=False)
    ] = "",
) -> None:
    """Revoke the token of yaptide login, and forget it.

    Example: yaptide logout
    """
    server = check_url(url) if url else logins.read_default()
    if not server:
        raise NotFound("Not signed in to a server")
    earlier = _stored(server)
    if not logins.remove_login(server):
        raise NotFound(f"Not signed in to {server}")
    revoked = earlier is not None and _revoke(*earlier)
    print_message(f"Signed out of {server}" + ("" if revoked else "; its token stays valid until it expires"))
    default = logins.read_default()
    print_message(f"Commands now work on {default or 'the local data folder'}")


def _create_token(url: str, expires: str) -> tuple[str, str]:
    """Ask for name and password, and return a new token with its name; the session ends at once."""
    username = typer.prompt("User name", default=getpass.getuser(), err=True)
    password = typer.prompt("Password", hide_input=True, err=True)
    with Client(url, patience=PATIENCE) as client:
        try:
            client.sign_in(username, password)
        except NotAuthenticated as error:
            raise NotAuthenticated(
                f"{error}. If you sign in through Keycloak, create a token there and use --token-stdin"
            ) from None
        try:
            return _add_token(client, expires)
        finally:
            client.call("DELETE", "/auth/logout")


def _add_token(client: Client, expires: str) -> tuple[str, str]:
    """Create a token with a name that is free: that of this host, with a number if needed."""
    host = "".join(filter(str.isprintable, socket.gethostname())).strip()[:_MAX_NAME] or "host"
    for number in range(1, _MOST_OF_HOST + 1):
        name = host if number == 1 else f"{host}-{number}"
        body: dict[str, Any] = {"name": name, "scope": "all", "expires": expires}
        try:
            return client.call("POST", "/user/tokens", json=body)["token"], name
        except Conflict as error:
            if number == _MOST_OF_HOST:
                raise Conflict(f"{error}. Revoke tokens of this host that you no longer use") from None
    raise AssertionError


def _stored(url: str) -> tuple[str, str, str] | None:
    """Return the URL, token and name of an earlier login that made its own token; None without one."""
    token, name = logins.read_token(url), logins.read_name(url)
    return (url, token, name) if token and name else None


def _revoke(url: str, token: str, name: str) -> bool:
    """Revoke a token with itself; return whether the server did so, or did not know it any more."""
    try:
        with Client(url, token=token, patience=0) as client:
            client.call("DELETE", "/user/tokens", params={"name": name})
    except (NotFound, NotAuthenticated):
        return True
    except YaptideError as error:
        print_message(f"Cannot revoke the token {name!r} on {url}: {error}")
        return False
    return True


def _warn_without_tls(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if parts.scheme == "http" and not is_loopback:
        print_message("Warning: without https, others on the network can read your password and token")

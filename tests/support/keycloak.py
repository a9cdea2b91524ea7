"""A real Keycloak for tests: a separate process with an in-memory database on a free loopback port."""

import base64
import contextlib
import fcntl
import hashlib
import html
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_port
from tests.support.processes import until

HOME = Path(sys.prefix) / "share" / "keycloak"
REALM = Path(__file__).parents[1] / "fixtures" / "keycloak-realm.json"
UI = "yaptide-ui"
PASSWORD = "correct horse"
REDIRECT = "http://localhost:3000/back"
#: It takes 10 s on an idle machine, and much longer on a busy one.
START = 300.0
#: For a short-lived server: fast compilation, little memory.
_JAVA = "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true -Dfile.encoding=UTF-8"


class KeycloakMissing(Exception):
    """Keycloak is not installed."""


@dataclass(frozen=True)
class Realm:
    """A realm of a running Keycloak, as seen by the front end and by its administrator."""

    server: "Server"
    name: str

    @property
    def issuer(self) -> str:
        """URL of the realm."""
        return f"{self.server.url}/realms/{self.name}"

    @property
    def _tokens(self) -> str:
        return f"{self.issuer}/protocol/openid-connect/token"

    def tokens(self, username: str = "alice", client: str = UI, **headers: str) -> dict[str, Any]:
        """Return the response of the password grant: `access_token`, `id_token` and more."""
        form = {"grant_type": "password", "client_id": client, "username": username, "password": PASSWORD}
        response = httpx.post(self._tokens, data={**form, "scope": "openid"}, headers=headers, timeout=60)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    def token(self, username: str = "alice", client: str = UI, **headers: str) -> str:
        """Return an access token by the password grant."""
        token: str = self.tokens(username, client, **headers)["access_token"]
        return token

    def token_of_browser(self, username: str = "alice") -> str:
        """Return an access token as the front end gets it: authorization code with PKCE, through the login form."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": UI,
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": REDIRECT,
            "state": "here",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = httpx.URL(f"{self.issuer}/protocol/openid-connect/auth", params=query)
        code = self.log_in(str(address), username).params["code"]
        given = {"grant_type": "authorization_code", "client_id": UI, "code": code, "redirect_uri": REDIRECT}
        response = httpx.post(self._tokens, data={**given, "code_verifier": verifier}, timeout=60)
        assert response.status_code == 200, response.text
        token: str = response.json()["access_token"]
        return token

    def decide(self, address: str, answer: str, username: str = "alice") -> None:
        """Open the address of the device flow, sign in, and press a button of the consent: `accept` or `cancel`."""
        with httpx.Client(timeout=60) as browser:
            page = _submit_form(browser, _follow(browser, browser.get(address)), username=username, password=PASSWORD)
            page = _submit_form(browser, page, **{answer: "Yes"})
            assert page.status_code == 200, page.text

    def log_in(self, address: str, username: str = "alice") -> httpx.URL:
        """Fill in the login form at an address of the realm; where it then sends the browser."""
        with httpx.Client(timeout=60) as browser:
            form = browser.get(address)
            (action,) = re.findall(r'<form[^>]* action="([^"]+)"', form.text)
            credentials = {"username": username, "password": PASSWORD}
            sent = browser.post(html.unescape(action), data=credentials, headers=_cookies(browser))
        assert sent.status_code == 302, sent.text
        return httpx.URL(sent.headers["location"])

    def rename_user(self, username: str, new_name: str) -> None:
        """Rename a user."""
        (user,) = self._request("GET", "/users", params={"username": username, "exact": "true"}).json()
        self._request("PUT", f"/users/{user['id']}", json={**user, "username": new_name})

    def add_user(self, username: str) -> None:
        """Add a user with the common password, and the roles of alice in the fixture."""
        names = {"email": f"{username}-{secrets.token_hex(4)}@example.org", "firstName": "N", "lastName": "N"}
        secret = {"type": "password", "value": PASSWORD, "temporary": False}
        self._request("POST", "/users", json={"username": username, "enabled": True, "credentials": [secret], **names})
        (user,) = self._request("GET", "/users", params={"username": username, "exact": "true"}).json()
        role = self._request("GET", "/roles/PLG_YAPTIDE_ACCESS").json()
        self._request("POST", f"/users/{user['id']}/role-mappings/realm", json=[role])

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return self.server.ask(method, f"/{self.name}{path}", **arguments)

    def public_keys(self) -> list[dict[str, str]]:
        """Return the public keys of the realm."""
        keys: list[dict[str, str]] = httpx.get(f"{self.issuer}/protocol/openid-connect/certs").json()["keys"]
        return keys

    def key_providers(self) -> list[str]:
        """Return the ids of the components that provide signing keys."""
        query = {"type": "org.keycloak.keys.KeyProvider"}
        components = self.server.ask("GET", f"/{self.name}/components", params=query).json()
        return [provider["id"] for provider in components if provider["providerId"] == "rsa-generated"]

    def add_key(self, priority: int) -> None:
        """Add a signing key, which is used if no other has a higher priority; old keys are still published."""
        config = {"priority": [str(priority)], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]}
        provider = {"name": "new", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider"}
        self.server.ask("POST", f"/{self.name}/components", json={**provider, "config": config})

    def remove_key(self, provider: str) -> None:
        """Remove a key."""
        self.server.ask("DELETE", f"/{self.name}/components/{provider}")


def _cookies(browser: httpx.Client) -> dict[str, str]:
    # Keycloak's cookies are Secure. Browsers send them to localhost without TLS, but httpx does not.
    return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)}


def _follow(browser: httpx.Client, response: httpx.Response) -> httpx.Response:
    """Follow redirections with the cookies."""
    while response.is_redirect:
        response = browser.get(response.url.join(response.headers["location"]), headers=_cookies(browser))
    return response


def _submit_form(browser: httpx.Client, page: httpx.Response, **values: str) -> httpx.Response:
    """Submit the form of a page with these values and its hidden ones."""
    form = re.search(r"<form.*?</form>", page.text, re.DOTALL)
    assert form, page.text
    action = html.unescape(re.findall(r'action="([^"]+)"', form[0])[0])
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[0]))
    sent = browser.post(page.url.join(action), data={**hidden, **values}, headers=_cookies(browser))
    return _follow(browser, sent)


@dataclass(frozen=True)
class Server:
    """A running Keycloak."""

    url: str
    admin: tuple[str, str]

    def answers(self) -> bool:
        """Return whether the server responds."""
        try:
            return httpx.get(f"{self.url}/realms/master", timeout=60).is_success
        except httpx.TransportError:
            return False

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Call the admin API below `/admin/realms`."""
        name, password = self.admin
        form = {"grant_type": "password", "client_id": "admin-cli", "username": name, "password": password}
        with httpx.Client(timeout=60) as client:
            tokens = client.post(f"{self.url}/realms/master/protocol/openid-connect/token", data=form).json()
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            response = client.request(method, f"{self.url}/admin/realms{path}", headers=headers, **arguments)
        assert response.is_success, response.text
        return response

    def new_realm(self, alice: str = "alice") -> Realm:
        """Create a realm with the clients and users of the fixture; the first user can have another name."""
        name = f"science-{secrets.token_hex(4)}"
        realm = json.loads(REALM.read_text())
        realm["users"][0]["username"] = alice
        self.ask("POST", "", json={**realm, "realm": name})
        return Realm(self, name)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Run a Keycloak, and remove everything afterwards."""
    if not list(HOME.glob("ready-*")):
        raise KeycloakMissing("These tests need Keycloak: run `scripts/setup keycloak`.")
    port, log = free_port(), folder / "keycloak.log"
    admin = ("admin", secrets.token_urlsafe(12))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "JAVA_OPTS": _JAVA,
        "KC_BOOTSTRAP_ADMIN_USERNAME": admin[0],
        "KC_BOOTSTRAP_ADMIN_PASSWORD": admin[1],
    }
    options = ["--optimized", "--cache=local", "--http-enabled=true", "--hostname-strict=false"]
    command = ["bash", HOME / "bin/kc.sh", "start", *options, "--http-host=127.0.0.1", f"--http-port={port}"]
    if setpriv := shutil.which("setpriv"):
        # If the tests are killed and no fixture can clean up, the kernel ends the server.
        command = [setpriv, "--pdeathsig=KILL", "--", *command]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", admin)

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"Keycloak has ended:\n{log.read_text()}")
        return server.answers()

    try:
        until(ready, "Keycloak answers", START, every=0.2)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Server]:
    """Share one Keycloak between all test processes that have `folder` in common.

    The first process starts it, and ends it when the others, which hold the lock `using`, have finished. The lock
    `changing` is held while it is started or ended.
    """
    file = folder / "keycloak.json"
    with (
        (folder / "changing").open("w") as changing,
        (folder / "using").open("w") as using,
        contextlib.ExitStack() as own,
    ):
        fcntl.flock(changing, fcntl.LOCK_EX)
        if file.exists():
            description = json.loads(file.read_text())
            server = Server(description["url"], tuple(description["admin"]))
            fcntl.flock(using, fcntl.LOCK_SH)
            own.callback(fcntl.flock, using, fcntl.LOCK_UN)
        else:
            server = own.enter_context(serve(folder))
            file.write_text(json.dumps({"url": server.url, "admin": server.admin}))
            own.callback(file.unlink)
            own.callback(fcntl.flock, using, fcntl.LOCK_EX)
            own.callback(fcntl.flock, changing, fcntl.LOCK_EX)
        fcntl.flock(changing, fcntl.LOCK_UN)
        yield server

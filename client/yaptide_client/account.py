"""What users do with their own account: a part of `yaptide_client.Client`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from yaptide_client.answers import read_document


class _Caller(Protocol):
    """The part of a client that sends requests."""

    def call(self, method: str, path: str, read: Callable[[Any], Any] = read_document, **options: Any) -> Any:
        """Send a request; return the JSON of the response."""


class AccountMixin:
    """Methods of a client for the account that it is signed in to."""

    def tokens(self: _Caller) -> list[dict[str, Any]]:
        """Return your API tokens: `name`, `scope`, `created`, `expires` and `last_used` (None: never)."""
        return list(self.call("GET", "/user/tokens")["tokens"])

    def create_token(self: _Caller, name: str, scope: str = "read", expires: str = "90d") -> str:
        """Create an API token and return it. It cannot be read again; keep it secret.

        `scope`: `read`, `submit`, `all` or `admin`; `expires`: the lifetime, e.g. `90d` or `12h`. Raises Conflict if
        you have a token of this name, Forbidden for a client that is not signed in with a password.
        """
        body = {"name": name, "scope": scope, "expires": expires}
        token: str = self.call("POST", "/user/tokens", json=body)["token"]
        return token

    def revoke_token(self: _Caller, name: str) -> None:
        """Revoke an API token at once; raise NotFound if there is none of this name."""
        self.call("DELETE", "/user/tokens", params={"name": name})

    def change_password(
        self: _Caller, password: str, new_password: str, *, end_sessions: bool = True, end_tokens: bool = False
    ) -> None:
        """Change your password, and end all other sessions and your API tokens if wished."""
        body = {"password": password, "new_password": new_password}
        self.call("POST", "/user/password", json={**body, "end_sessions": end_sessions, "end_tokens": end_tokens})

    def sessions(self: _Caller) -> list[dict[str, Any]]:
        """Return your sessions: `id`, `started`, `expires`, `address`, `device` and `is_current`, the latest first."""
        return list(self.call("GET", "/user/sessions")["sessions"])

    def end_sessions(self: _Caller, session_id: str | None = None) -> None:
        """End the session of this `id`, or all sessions but that of this client."""
        self.call("DELETE", "/user/sessions", params={} if session_id is None else {"id": session_id})

    def delete_account(self: _Caller, username: str, password: str = "") -> None:
        """Delete your account with all simulations and results; this cannot be undone.

        `username` is your own name again. Raises Conflict while simulations run: cancel them first.
        """
        self.call("DELETE", "/user", json={"username": username, "password": password})

    def export_account(self: _Caller, file: Path | str) -> int:
        """Write all your simulations that have ended to a zip archive, which `yaptide import` reads.

        Returns the number of those that have not ended, which are not included.
        """
        return int(self.call("GET", "/user/export", lambda response: _save(response, Path(file))))


def _save(response: Any, file: Path) -> str:
    """Write the body of a successful response to a file; raise the error of another one."""
    if not response.is_success:
        read_document(response)
    file.write_bytes(response.content)
    return str(response.headers.get("Yaptide-Unfinished", "0"))

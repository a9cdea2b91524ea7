"""What users do with their own account: a part of `yaptide_client.Client`."""

from typing import Any, Protocol


class _Caller(Protocol):
    """The part of a client that sends requests."""

    def call(self, method: str, path: str, **options: Any) -> Any:
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

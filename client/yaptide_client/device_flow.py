"""Signing in at Keycloak without a password in this program: the user approves in a browser, on any machine.

This is OAuth's device authorization grant (RFC 8628) with PKCE (RFC 7636).
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yaptide_client.errors import NotAuthenticated, Unavailable

if TYPE_CHECKING:
    import httpx

#: Endpoints of Keycloak below the URL of a realm.
_DEVICE, _TOKEN = "protocol/openid-connect/auth/device", "protocol/openid-connect/token"
_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_TIMEOUT = 30.0
#: Seconds between two questions, and those added when Keycloak asks to slow down (RFC 8628, 3.5).
_INTERVAL, _SLOWER = 5, 5
_LONGEST = 3600


@dataclass(frozen=True, slots=True)
class Approval:
    """What the user must open in a browser: `address`, where `code` is shown for comparison; `seconds` it is valid."""

    address: str
    code: str
    seconds: int


def fetch_access_token(issuer: str, client_id: str, show: Callable[[Approval], object]) -> str:
    """Return an access token of the realm `issuer` for the client, after the user has approved what `show` gets.

    Raises NotAuthenticated if the user refuses or takes too long, Unavailable if Keycloak does not respond as expected.
    """
    import httpx  # noqa: PLC0415 - most commands import this package, but do not call a server

    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    with httpx.Client(timeout=_TIMEOUT) as http:
        form = {"client_id": client_id, "scope": "openid", "code_challenge": challenge}
        begun = _post(http, f"{issuer}/{_DEVICE}", {**form, "code_challenge_method": "S256"})
        if "device_code" not in begun:
            raise Unavailable(
                f"Keycloak refuses the device flow ({_reason(begun)}): an administrator of Keycloak must enable "
                f"'OAuth 2.0 Device Authorization Grant' for the client {client_id}"
            )
        approval = _approval(begun)
        show(approval)
        form = {"grant_type": _GRANT, "client_id": client_id, "device_code": str(begun["device_code"])}
        interval = min(max(_number(begun, "interval", _INTERVAL), 1), 60)
        return _poll(http, f"{issuer}/{_TOKEN}", {**form, "code_verifier": verifier}, interval, approval.seconds)


def read_username(token: str) -> str:
    """Return the user name in an access token, which only its recipient verifies; empty if there is none."""
    with suppress(ValueError, IndexError):
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims.get("preferred_username", "")) if isinstance(claims, dict) else ""
    return ""


def _approval(begun: Mapping[str, Any]) -> Approval:
    address = str(begun.get("verification_uri_complete") or begun.get("verification_uri") or "")
    seconds = min(_number(begun, "expires_in", 600), _LONGEST)
    return Approval(address, str(begun.get("user_code", "")), seconds)


def _poll(http: "httpx.Client", url: str, form: Mapping[str, str], interval: int, seconds: int) -> str:
    """Ask for the token until the user has decided."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(interval)
        answer = _post(http, url, form)
        token, error = answer.get("access_token"), answer.get("error")
        if isinstance(token, str):
            return token
        if error == "slow_down":
            interval += _SLOWER
        elif error == "access_denied":
            raise NotAuthenticated("The sign-in was refused in the browser")
        elif error == "expired_token":
            break
        elif error != "authorization_pending":
            raise Unavailable(f"Keycloak did not sign you in: {_reason(answer)}")
    raise NotAuthenticated("The sign-in was not approved in time: start again")


def _post(http: "httpx.Client", url: str, form: Mapping[str, str]) -> dict[str, Any]:
    import httpx  # noqa: PLC0415 - see above

    try:
        document = http.post(url, data=dict(form)).json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"Keycloak does not respond at {url}: {error}") from None
    if not isinstance(document, dict):
        raise Unavailable(f"Keycloak does not respond as expected at {url}")
    return document


def _number(answer: Mapping[str, Any], name: str, default: int) -> int:
    value = answer.get(name)
    return value if isinstance(value, int) and value > 0 else default


def _reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("error_description") or answer.get("error") or "no reason given")[:200]

"""Signing in at Keycloak in a browser, by OpenID Connect: authorization code with PKCE (RFC 7636), as a public client.

The browser goes to Keycloak with the digest of a random text, the verifier, and comes back with a code. Only those who
know the verifier can exchange the code for a token.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from yaptide.domain.errors import NotAuthenticated, NotConfigured, NotFound, Unreachable
from yaptide.services.backend import Backend, Keycloak
from yaptide.services.fetching import fetch_json

#: Where every realm of Keycloak has them, below its URL.
_AUTHORIZATION, _TOKEN = "protocol/openid-connect/auth", "protocol/openid-connect/token"
_MAX_CODE = 4096

OUTDATED = "This sign-in has expired, or was begun in another window. Sign in again"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in that has begun: where the browser goes, and what it has to bring back or to prove."""

    address: str
    state: str
    verifier: str


def begin_sign_in(backend: Backend, callback: str) -> Attempt:
    """Begin a sign-in from which Keycloak sends the browser back to `callback`; raises NotConfigured."""
    keycloak = _require_client(backend)
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "client_id": keycloak.web_client,
        "response_type": "code",
        "scope": "openid",
        "redirect_uri": callback,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return Attempt(f"{keycloak.issuers[0]}/{_AUTHORIZATION}?{urlencode(query)}", state, verifier)


def finish_sign_in(backend: Backend, attempt: Mapping[str, str], answer: Mapping[str, str], callback: str) -> str:
    """Return the access token that Keycloak gives for the `code` in its `answer`, which came with the browser.

    `attempt` has the `state` and `verifier` of `begin_sign_in`. Raises NotAuthenticated if the answer is not one to
    that attempt, or is a refusal; Unreachable if Keycloak does not give a token; NotConfigured.
    """
    keycloak = _require_client(backend)
    state = attempt.get("state", "")
    if not state or not secrets.compare_digest(state.encode(), answer.get("state", "").encode()):
        raise NotAuthenticated(OUTDATED)
    code = answer.get("code", "")
    if not 0 < len(code) <= _MAX_CODE:
        raise NotAuthenticated("Keycloak has not signed you in. Try again, or ask an administrator of Keycloak")
    form = {
        "grant_type": "authorization_code",
        "client_id": keycloak.web_client,
        "code": code,
        "redirect_uri": callback,
        "code_verifier": attempt.get("verifier", ""),
    }
    try:
        token = fetch_json(f"{keycloak.issuers[0]}/{_TOKEN}", form=form)
    except Unreachable as error:
        raise Unreachable(f"Signing in through Keycloak did not work, try again: it {error}") from None
    return str(token.get("access_token", "")) if isinstance(token, dict) else ""


def describe_client(backend: Backend) -> tuple[str, str]:
    """Return the URL of the realm, and the client ID of programs that sign in there; raise NotFound without one."""
    if backend.keycloak is None or not backend.keycloak.web_client:
        raise NotFound("Signing in through Keycloak is not configured on this server")
    return backend.keycloak.issuers[0], backend.keycloak.web_client


def _require_client(backend: Backend) -> Keycloak:
    if backend.keycloak is None or not backend.keycloak.web_client:
        raise NotConfigured("Signing in through Keycloak is not configured for the pages of this server")
    return backend.keycloak

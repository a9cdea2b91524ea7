"""The device flow, with a Keycloak that the test plays; tests/acceptance/test_keycloak.py has the real one."""

import base64
import hashlib
import json

import httpx
import pytest

from yaptide_client import device_flow
from yaptide_client.device_flow import Approval, fetch_access_token, read_username
from yaptide_client.errors import NotAuthenticated, Unavailable

ISSUER = "https://sso.example.org/realms/science"
BEGUN = {
    "device_code": "secret",
    "user_code": "WDJB-MJHT",
    "verification_uri": f"{ISSUER}/device",
    "verification_uri_complete": f"{ISSUER}/device?user_code=WDJB-MJHT",
    "expires_in": 600,
    "interval": 2,
}


@pytest.fixture
def keycloak(monkeypatch):
    """Give Keycloak's answers, one after the other; what it got, and the pauses between."""
    clock, got, pauses = [0.0], [], []

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(device_flow.time, "sleep", sleep)
    monkeypatch.setattr(device_flow.time, "monotonic", lambda: clock[0])

    def play(*answers):
        left = list(answers)

        def answer(request):
            got.append((str(request.url), dict(httpx.QueryParams(request.content.decode()))))
            given = left.pop(0) if len(left) > 1 else left[0]
            return given if isinstance(given, httpx.Response) else httpx.Response(200, json=given)

        client = httpx.Client
        monkeypatch.setattr(httpx, "Client", lambda **named: client(transport=httpx.MockTransport(answer), **named))
        return got, pauses

    return play


def test_the_token_comes_after_the_approval(keycloak):
    pending = {"error": "authorization_pending"}
    got, pauses = keycloak(BEGUN, pending, {"error": "slow_down"}, pending, {"access_token": "t"})
    shown = []
    assert fetch_access_token(ISSUER, "cli", shown.append) == "t"
    assert shown == [Approval(f"{ISSUER}/device?user_code=WDJB-MJHT", "WDJB-MJHT", 600)]
    assert pauses == [2, 2, 7, 7]
    (begin, first), *_, (end, last) = got
    assert (begin, end) == (
        f"{ISSUER}/protocol/openid-connect/auth/device",
        f"{ISSUER}/protocol/openid-connect/token",
    )
    digest = hashlib.sha256(last["code_verifier"].encode()).digest()
    assert first["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert (last["device_code"], last["client_id"]) == ("secret", "cli")


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"error": "access_denied"}, NotAuthenticated, "refused in the browser"),
        ({"error": "expired_token"}, NotAuthenticated, "not approved in time"),
        ({"error": "authorization_pending"}, NotAuthenticated, "not approved in time"),
        ({"error": "invalid_grant", "error_description": "no"}, Unavailable, "did not sign you in: no"),
        (["odd"], Unavailable, "as expected"),
        (httpx.Response(502, text="<html>"), Unavailable, "does not respond"),
    ],
)
def test_no_approval_is_an_error_that_says_so(keycloak, answer, error, words):
    keycloak(BEGUN, answer)
    with pytest.raises(error, match=words):
        fetch_access_token(ISSUER, "cli", lambda _: None)


def test_a_client_without_the_device_flow_is_told_what_to_enable(keycloak):
    keycloak({"error": "unauthorized_client", "error_description": "not allowed"})
    with pytest.raises(Unavailable, match=r"not allowed.*'OAuth 2\.0 Device Authorization Grant' for the client cli"):
        fetch_access_token(ISSUER, "cli", lambda _: None)


def token_with(claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"x.{payload}.y"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (token_with({"preferred_username": "żaneta"}), "żaneta"),
        (token_with({}), ""),
        (token_with([1]), ""),
        ("no-token", ""),
        ("a.!.b", ""),
    ],
)
def test_the_name_in_a_token(token, name):
    assert read_username(token) == name

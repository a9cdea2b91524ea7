"""Keycloak tokens: verification, and the identity of their user.

A token is accepted if the realm has signed it with one of its published keys, if it has not expired, and if it is an
access token for one of the configured clients. Keys are cached for five minutes; an unknown key causes them to be
fetched again, so a realm can change its keys at any time.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jwt

from yaptide.domain.errors import Forbidden, InvalidInput, NotAuthenticated, Unreachable
from yaptide.persistence.queries.users import Subject
from yaptide.services.administration import check_name
from yaptide.services.backend import Keycloak, utc_now
from yaptide.services.fetching import fetch_json

#: Asymmetric only: anyone who can verify a token of another kind can create one.
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"}
)
#: Seconds for which keys are cached.
KEEP = 300.0
#: Seconds before keys are fetched again because of an unknown key or after a failure.
PAUSE = 2.0
#: Maximum difference between the clocks of this server and Keycloak, in seconds.
_LEEWAY = 30
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
#: Maximum length of a subject in OpenID Connect, in characters.
_MAX_SUBJECT = 255

REJECTED = "Log in again: Keycloak's token is invalid or has expired"


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a token: the identity in the realm, the current name, and the expiry of the token."""

    subject: Subject
    username: str
    expires: datetime


def identify_user(keycloak: Keycloak, token: str | None) -> Identity:
    """Return the identity of the user of an access token.

    Raises NotAuthenticated without a token, Forbidden if it is invalid or its user may not sign in, Unreachable if the
    keys cannot be fetched from Keycloak.
    """
    if not token:
        raise NotAuthenticated("No token provided")
    try:
        claims = _verified(keycloak, token)
        expires = _time(claims["exp"])
    # PyJWT accepts any type as a time: strings, NaN and infinity raise Python's own errors.
    except (jwt.PyJWTError, RecursionError, ValueError, TypeError, OverflowError):
        raise Forbidden(REJECTED) from None
    if expires <= utc_now():  # the leeway is for different clocks, but a session must last longer than 0 s
        raise Forbidden(REJECTED)
    _check_use(keycloak, claims)
    username = _text(claims, "preferred_username", "profile")
    try:
        check_name(username)
    except InvalidInput:
        raise Forbidden("Keycloak's token has no valid user name") from None
    return Identity(_subject(claims), username, expires)


def _time(seconds: object) -> datetime:
    """Convert a numeric time of a token; raise TypeError for other types, ValueError if it is out of range."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError("not a number")
    if not 0 <= seconds < _END_OF_TIME:
        raise ValueError("out of range")
    return datetime.fromtimestamp(seconds, UTC)


def _text(claims: Mapping[str, Any], name: str, scope: str) -> str:
    """Return a required claim; raise Forbidden with the Keycloak client scope that adds it to tokens."""
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise Forbidden(
            f"Keycloak's token has no {name}: an administrator of Keycloak must add the client scope {scope} "
            "to the client"
        )
    return value


def _subject(claims: Mapping[str, Any]) -> Subject:
    subject = _text(claims, "sub", "basic")
    if not subject.isprintable() or len(subject) > _MAX_SUBJECT:
        raise Forbidden("Keycloak's token has an invalid sub")
    # A realm is the same under both of its addresses (`Settings.keycloak`).
    return Subject(claims["iss"].replace("/auth/realms/", "/realms/"), subject)


def _verified(keycloak: Keycloak, token: str) -> dict[str, Any]:
    """Return the claims of a token after verifying signature and expiry; raise jwt.PyJWTError."""
    header = jwt.get_unverified_header(token)
    # The unverified issuer only selects one of the configured ones.
    unverified_issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    issuer = next((one for one in keycloak.issuers if one == unverified_issuer), None)
    if issuer is None:
        raise jwt.InvalidIssuerError("another issuer")
    key = keys_of(issuer).find(header.get("kid"))
    if key is None:
        raise jwt.InvalidSignatureError("no key of the realm")
    required = ["exp", "iat", "iss"]
    return jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        issuer=issuer,
        leeway=_LEEWAY,
        options={"require": required, "verify_aud": False},  # see _check_use
    )


def _check_use(keycloak: Keycloak, claims: Mapping[str, Any]) -> None:
    """Raise Forbidden unless it is an access token for a configured client, of a user who may sign in."""
    if claims.get("typ") != "Bearer":
        raise Forbidden("This Keycloak token is not an access token")
    audience = claims.get("aud", [])
    holders = [claims.get("azp"), *(audience if isinstance(audience, list) else [audience])]
    if not any(isinstance(holder, str) and holder in keycloak.clients for holder in holders):
        raise Forbidden("Keycloak's token is for another application")
    if keycloak.claim is not None and not _holds(claims, *keycloak.claim):
        name, wanted = keycloak.claim
        raise Forbidden(f"You are not authorized to use this service: your account lacks {wanted} in {name}")


def _holds(claims: Mapping[str, Any], name: str, wanted: str) -> bool:
    """Return whether the claim `name` (`a.b`: claim `b` in `a`) is the text `wanted`, or a list or words with it."""
    value: Any = claims.get(name)
    if value is None:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, str):
        return wanted == value or wanted in value.split()
    return isinstance(value, list) and wanted in value


class Keys:
    """The keys of an issuer. One thread fetches them when needed, the others wait for it."""

    def __init__(self, issuer: str) -> None:
        self._url = f"{issuer}/protocol/openid-connect/certs"  # fixed path in Keycloak
        self._known: tuple[float, Mapping[str, jwt.PyJWK]] = (float("-inf"), {})
        self._fetched = float("-inf")
        self._failure = ""
        self._lock = threading.Lock()

    def find(self, kid: str | None) -> jwt.PyJWK | None:
        """Return the key with this id, None if the issuer does not have it (any more); raise Unreachable."""
        if kid is None:
            return None
        key = self._cached(kid)
        if key is not None:
            return key
        with self._lock:
            # Invalid tokens must neither cause constant requests, nor waiting for a Keycloak that is down.
            if time.monotonic() - self._fetched >= PAUSE:
                self._fetch()
            if self._failure:
                raise Unreachable(self._failure)
            return self._known[1].get(kid)  # fetched by this thread, or by another while this one waited

    def _cached(self, kid: str) -> jwt.PyJWK | None:
        fetched, known = self._known
        return known.get(kid) if time.monotonic() - fetched < KEEP else None

    def _fetch(self) -> None:
        try:
            known = _usable(fetch_json(self._url))
        except Unreachable as error:
            self._failure = f"Sign-in through Keycloak is not available, try again later: it {error}"
        else:
            self._known = (time.monotonic(), known)
            self._failure = ""
        self._fetched = time.monotonic()


@cache
def keys_of(issuer: str) -> Keys:
    """Return the keys of an issuer, shared by all threads."""
    return Keys(issuer)


def _usable(document: object) -> dict[str, jwt.PyJWK]:
    """Return the signing keys by id."""
    try:
        keys = jwt.PyJWKSet.from_dict(document).keys if isinstance(document, dict) else []
    except jwt.PyJWTError:
        keys = []
    if not keys:
        raise Unreachable("responded without keys")
    return {
        key.key_id: key
        for key in keys
        if key.key_id and key.public_key_use in ("sig", None) and key.algorithm_name in _ALGORITHMS
    }

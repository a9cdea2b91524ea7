"""Tokens of Keycloak: whose they are, if they can be believed.

A token is believed if the realm signed it with one of the keys that it publishes, if it has not expired, and if it is
an access token for one of our clients. The keys are kept for five minutes; a key that is not among them has them
fetched again, so that a realm may change its keys at any time.
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

#: Asymmetric ones only: whoever can check a token of another kind can make one.
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"}
)
#: Seconds for which keys are believed to be those that the realm has.
KEEP = 300.0
#: Seconds before keys are asked for again, whoever comes with a key that is not known, or after a failure.
PAUSE = 2.0
#: Seconds that our clock and Keycloak's may differ.
_LEEWAY = 30
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
#: Characters of a subject, by OpenID Connect.
_MAX_SUBJECT = 255

NOT_BELIEVED = "Log in again: Keycloak's token is invalid or has expired"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose token it is: who they are in the realm, what they are called just now; and when the token ends."""

    subject: Subject
    username: str
    expires: datetime


def identify_user(keycloak: Keycloak, token: str | None) -> Identity:
    """Whose access token this is.

    Raises NotAuthenticated without one, Forbidden if it cannot be believed or its user is not to be let in, Unreachable
    if Keycloak cannot be asked for its keys.
    """
    if not token:
        raise NotAuthenticated("No token provided")
    try:
        claims = _verified(keycloak, token)
        expires = _time(claims["exp"])
    # PyJWT takes times for numbers: text, NaN and infinity have it raise what Python does.
    except (jwt.PyJWTError, RecursionError, ValueError, TypeError, OverflowError):
        raise Forbidden(NOT_BELIEVED) from None
    if expires <= utc_now():  # the leeway is for clocks that differ, but nobody is let in for no time at all
        raise Forbidden(NOT_BELIEVED)
    _check_use(keycloak, claims)
    username = _text(claims, "preferred_username", "profile")
    try:
        check_name(username)
    except InvalidInput:
        raise Forbidden("Keycloak's token has no user name that can be used here") from None
    return Identity(_subject(claims), username, expires)


def _time(seconds: object) -> datetime:
    """A time as tokens have it, a number; raises TypeError for anything else, ValueError for one out of range."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError("no number")
    if not 0 <= seconds < _END_OF_TIME:
        raise ValueError("out of range")
    return datetime.fromtimestamp(seconds, UTC)


def _text(claims: Mapping[str, Any], name: str, scope: str) -> str:
    """A claim that has to be there; raises Forbidden, saying which client scope of Keycloak puts it into tokens."""
    found = claims.get(name)
    if not isinstance(found, str) or not found:
        raise Forbidden(
            f"Keycloak's token has no {name}: an administrator of Keycloak has to add the client scope {scope} "
            "to the client"
        )
    return found


def _subject(claims: Mapping[str, Any]) -> Subject:
    subject = _text(claims, "sub", "basic")
    if not subject.isprintable() or len(subject) > _MAX_SUBJECT:
        raise Forbidden("Keycloak's token has a sub that cannot be used here")
    # A realm is the same one, by whichever of its two addresses it is asked (`Settings.keycloak`).
    return Subject(claims["iss"].replace("/auth/realms/", "/realms/"), subject)


def _verified(keycloak: Keycloak, token: str) -> dict[str, Any]:
    """The claims of a token that the realm has signed and that has not expired; raises jwt.PyJWTError."""
    header = jwt.get_unverified_header(token)
    # Only which of our own addresses it is, is taken from what is not verified yet.
    claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    issuer = next((one for one in keycloak.issuers if one == claimed), None)
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
    """Raise Forbidden unless it is an access token, for one of our clients, of somebody who is to be let in."""
    if claims.get("typ") != "Bearer":
        raise Forbidden("This is a token of Keycloak, but no access token")
    audience = claims.get("aud", [])
    holders = [claims.get("azp"), *(audience if isinstance(audience, list) else [audience])]
    if not any(isinstance(holder, str) and holder in keycloak.clients for holder in holders):
        raise Forbidden("Keycloak's token is for another application")
    if keycloak.claim is not None and not _holds(claims, *keycloak.claim):
        name, wanted = keycloak.claim
        raise Forbidden(f"You are not authorized to use this service: your account lacks {wanted} in {name}")


def _holds(claims: Mapping[str, Any], name: str, wanted: str) -> bool:
    """Whether the claim `name` (`a.b`: the claim `b` in `a`) is the text `wanted`, or a list or words that have it."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        return wanted == found or wanted in found.split()
    return isinstance(found, list) and wanted in found


class Keys:
    """The keys with which an issuer signs. One thread fetches them when they are needed, the others wait for it."""

    def __init__(self, issuer: str) -> None:
        self._url = f"{issuer}/protocol/openid-connect/certs"  # where Keycloak has always had them
        self._known: tuple[float, Mapping[str, jwt.PyJWK]] = (float("-inf"), {})
        self._asked = float("-inf")
        self._failure = ""
        self._lock = threading.Lock()

    def find(self, kid: str | None) -> jwt.PyJWK | None:
        """The key of this name, None if the issuer has no such key (any more); raises Unreachable."""
        if kid is None:
            return None
        found = self._kept(kid)
        if found is not None:
            return found
        with self._lock:
            # Strangers must not be able to have us ask all the time, nor wait for a Keycloak that is down.
            if time.monotonic() - self._asked >= PAUSE:
                self._fetch()
            if self._failure:
                raise Unreachable(self._failure)
            return self._known[1].get(kid)  # fetched just now, by us or while we waited

    def _kept(self, kid: str) -> jwt.PyJWK | None:
        fetched, known = self._known
        return known.get(kid) if time.monotonic() - fetched < KEEP else None

    def _fetch(self) -> None:
        try:
            known = _usable(fetch_json(self._url))
        except Unreachable as error:
            self._failure = f"Nobody can sign in through Keycloak just now, try again later: it {error}"
        else:
            self._known = (time.monotonic(), known)
            self._failure = ""
        self._asked = time.monotonic()


@cache
def keys_of(issuer: str) -> Keys:
    """The keys of an issuer, shared by all threads."""
    return Keys(issuer)


def _usable(document: object) -> dict[str, jwt.PyJWK]:
    """Keys that sign, by name."""
    try:
        found = jwt.PyJWKSet.from_dict(document).keys if isinstance(document, dict) else []
    except jwt.PyJWTError:
        found = []
    if not found:
        raise Unreachable("answers with no keys")
    return {
        key.key_id: key
        for key in found
        if key.key_id and key.public_key_use in ("sig", None) and key.algorithm_name in _ALGORITHMS
    }

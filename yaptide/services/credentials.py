"""SSH credentials of users who sign in through Keycloak: a private key, and a certificate that clusters believe.

They come from the certificate service at sign-in, or are uploaded. The private key is stored encrypted
(`yaptide.services.secrets`), and what is stored has been checked.
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType

from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotConfigured, NotFound, Unreachable
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import secrets as queries
from yaptide.persistence.queries.users import Subject
from yaptide.services.backend import Backend, utc_now
from yaptide.services.fetching import fetch_json
from yaptide.services.secrets import Vault
from yaptide.services.users import User, confirm_subject

log = logging.getLogger(__name__)

#: A key or a certificate is not longer than this, in characters.
MAX_LENGTH = 65_536
_MIN_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
#: Seconds that our clock and the certificate service's may differ.
_LEEWAY = 300
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
_GET_NEW = "sign in again to get new ones, or upload a private key and its certificate with POST /user/update"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What it takes to log in to a cluster."""

    private_key_text: str = field(repr=False)
    certificate_text: str
    username: str
    valid_until: datetime


def current_credentials(backend: Backend, user_id: int) -> Credentials:
    """The SSH credentials of a user, good at this moment.

    Raises Conflict, with what to do, if there are none, if they have expired, or if they cannot be decrypted;
    NotConfigured without a key to do it with, NotFound if there is no such user of Keycloak.
    """
    with backend.database.reading() as connection:
        found = queries.find_credentials(connection, user_id)
    if found is None:
        raise NotFound("There is no such user who signs in through Keycloak")
    username, certificate, token = found
    if not certificate or not token:
        raise Conflict(f"There are no SSH credentials to log in to a cluster with: {_GET_NEW}")
    try:
        read = _certificate(certificate)
    except InvalidInput:  # it was taken over from another backend
        raise Conflict(f"The stored SSH certificate cannot be read: {_GET_NEW}") from None
    valid_until = _end(read)
    if valid_until <= utc_now():
        raise Conflict(f"The SSH certificate expired on {_said(valid_until)}: {_GET_NEW}")
    names = _principals(read)
    private = Vault(backend.secret_keys).decrypt(token)
    return Credentials(private, certificate, username if username in names else names[0], valid_until)


def certificate_end(certificate: str | None) -> datetime | None:
    """When a stored certificate ends or ended; None if there is none, or none that can be read."""
    try:
        return _end(_certificate(certificate)) if certificate else None
    except InvalidInput:  # it was taken over from another backend
        return None


def store_credentials(
    backend: Backend, user: User, certificate: str, private: str, subject: Subject | None = None
) -> None:
    """Keep a private key with its certificate, instead of those that are there.

    Raises InvalidInput, saying what is wrong with them, Forbidden for a user who does not sign in through Keycloak, or
    whose account is not (any more) that of `subject`, and NotConfigured if there is no key to encrypt them with.
    """
    if not user.is_keycloak:
        raise Forbidden("Only users who sign in through Keycloak have SSH credentials")
    certificate, private = certificate.strip(), f"{private.strip()}\n"
    check_credentials(certificate, private, user.username)
    _write(backend, user, certificate, Vault(backend.secret_keys).encrypt(private), subject)


@retry_contended
def _write(backend: Backend, user: User, certificate: str, token: str, subject: Subject | None) -> None:
    with backend.database.writing() as connection:
        if subject is not None:
            confirm_subject(connection, user, subject)
        queries.set_credentials(connection, user.id, certificate, token)


def renew_credentials(backend: Backend, user: User, token: str, subject: Subject) -> str | None:
    """Get SSH credentials from the certificate service, if there is one, and the present ones are past half their time.

    `token` is the user's, of Keycloak, where they are `subject`. Returns what went wrong, for the user: without
    credentials one cannot use clusters, but everything else. Raises Forbidden if the account is no longer theirs.
    """
    url = backend.keycloak.certificates if backend.keycloak else ""
    if not url or _lasts(backend, user):
        return None
    try:
        store_credentials(backend, user, *_fetched(url, token), subject)
    except Unreachable as error:
        reason = f"the certificate service {error}"
    except (InvalidInput, NotConfigured) as error:
        reason = f"what the certificate service gives cannot be used: {error}"
    else:
        return None
    log.warning("no SSH certificate for %s: %s", user.username, reason)
    return f"clusters cannot be used for want of a new SSH certificate: {reason}"


def _fetched(url: str, token: str) -> tuple[str, str]:
    """Certificate and private key, as the service gives them."""
    answer: Any = fetch_json(url, token)
    certificate, private = (answer.get(name) if isinstance(answer, dict) else None for name in ("cert", "private"))
    if not isinstance(certificate, str) or not isinstance(private, str):
        raise Unreachable("answers without cert and private")
    return certificate, private


def _lasts(backend: Backend, user: User) -> bool:
    """Whether more than half of the time of the stored certificate is left."""
    with backend.database.reading() as connection:
        found = queries.find_credentials(connection, user.id)
    try:
        read = _certificate((found.cert if found is not None else None) or "")
    except InvalidInput:
        return False
    return 2 * utc_now().timestamp() < read.valid_after + read.valid_before


def check_credentials(certificate: str, private: str, username: str) -> None:
    """Raise InvalidInput unless `username` can log in with this private key and certificate now."""
    if max(len(certificate), len(private)) > MAX_LENGTH:
        raise InvalidInput(f"A private key or a certificate has at most {MAX_LENGTH} characters")
    key, read = _private_key(private), _certificate(certificate)
    if _public(key.public_key()) != _public(read.public_key()):
        raise InvalidInput("The certificate is for another private key than this one")
    if read.type is not SSHCertificateType.USER:
        raise InvalidInput("The certificate is that of a host, and not of a user")
    if read.valid_before <= utc_now().timestamp():
        raise InvalidInput(f"The certificate expired on {_said(_end(read))}: get a new one")
    if read.valid_after > utc_now().timestamp() + _LEEWAY:
        raise InvalidInput(f"The certificate is not valid before {_said(_time(read.valid_after))}")
    if username not in (names := _principals(read)):
        raise InvalidInput(f"The certificate is for {' and '.join(names)}, and not for {username}")


def _private_key(text: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """Read a private key, in OpenSSH's format or in PEM; the message never holds any of it."""
    data = text.encode()
    load = serialization.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else serialization.load_pem_private_key
    try:
        key: object = load(data, password=None)
    except TypeError:  # what cryptography says to a key that it could read with a password
        raise InvalidInput("The private key has a passphrase: upload it without one") from None
    except UnsupportedAlgorithm:
        raise InvalidInput("The private key is of a kind that is not supported: use ed25519, ecdsa or rsa") from None
    except ValueError as error:
        if "password" in str(error).lower():
            raise InvalidInput("The private key has a passphrase: upload it without one") from None
        raise InvalidInput("The private key cannot be read: it has to be one in OpenSSH's format or in PEM") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        raise InvalidInput(f"The private key is too weak: RSA keys have {_MIN_RSA_BITS} bits or more")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        raise InvalidInput(f"SSH knows no keys on the curve {key.curve.name}: use ed25519, ecdsa or rsa")
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise InvalidInput("The private key is of a weak kind: use ed25519, ecdsa or rsa")
    return key


def _certificate(text: str) -> SSHCertificate:
    """Read a certificate, for somebody, that whoever issued it has signed; raises InvalidInput."""
    try:
        # What follows the key is a comment, and could go on for many lines.
        read = serialization.load_ssh_public_identity(text.encode() if text.isprintable() else b"")
        if isinstance(read, SSHCertificate):
            read.verify_cert_signature()
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput(
            "The certificate cannot be read: it has to be one line of text, like that in id_ed25519-cert.pub"
        ) from None
    except InvalidSignature:
        raise InvalidInput("The certificate was changed after it was signed") from None
    if not isinstance(read, SSHCertificate):
        raise InvalidInput("This is a public key: its certificate is in the file that ends on -cert.pub")
    if not read.valid_principals:
        raise InvalidInput("The certificate names nobody who may log in with it")
    return read


def _public(key: Any) -> bytes:
    written: bytes = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return written


def _principals(read: SSHCertificate) -> list[str]:
    return [name.decode(errors="replace") for name in read.valid_principals]


def _end(read: SSHCertificate) -> datetime:
    return _time(read.valid_before)


def _time(seconds: int) -> datetime:
    """A time in a certificate; what never comes, comes at the end of what a calendar has."""
    return datetime.fromtimestamp(min(seconds, int(_END_OF_TIME.timestamp())), UTC)


def _said(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"

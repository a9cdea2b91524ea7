"""SSH credentials of Keycloak users: a private key, and a certificate that clusters accept.

They come from the certificate service at sign-in, or are uploaded. They are checked before they are stored; the private
key is encrypted (`yaptide.services.secrets`).
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

#: Maximum length of a key or a certificate, in characters.
MAX_LENGTH = 65_536
_MIN_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
#: Maximum difference between the clocks of this server and of the certificate service, in seconds.
_LEEWAY = 300
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
_GET_NEW = "sign in again to get new ones, or upload a private key and its certificate with POST /user/update"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for logging in to a cluster."""

    private_key_text: str = field(repr=False)
    certificate_text: str
    username: str
    valid_until: datetime


def current_credentials(backend: Backend, user_id: int) -> Credentials:
    """Return the SSH credentials of a user that are valid now.

    Raises Conflict, with what to do, if there are none, or if they have expired or cannot be decrypted; NotConfigured
    without a key to decrypt them, NotFound if this is not a Keycloak user.
    """
    with backend.database.reading() as connection:
        stored = queries.find_credentials(connection, user_id)
    if stored is None:
        raise NotFound("No such Keycloak user")
    username, certificate, token = stored
    if not certificate or not token:
        raise Conflict(f"No SSH credentials for logging in to clusters: {_GET_NEW}")
    try:
        ssh_certificate = _certificate(certificate)
    except InvalidInput:  # it comes from another backend
        raise Conflict(f"The stored SSH certificate cannot be read: {_GET_NEW}") from None
    valid_until = _end(ssh_certificate)
    if valid_until <= utc_now():
        raise Conflict(f"The SSH certificate expired on {_format_time(valid_until)}: {_GET_NEW}")
    names = _principals(ssh_certificate)
    private = Vault(backend.secret_keys).decrypt(token)
    return Credentials(private, certificate, username if username in names else names[0], valid_until)


def certificate_end(certificate: str | None) -> datetime | None:
    """Return the expiry of a stored certificate; None if there is none, or it is unreadable."""
    try:
        return _end(_certificate(certificate)) if certificate else None
    except InvalidInput:  # it comes from another backend
        return None


def store_credentials(
    backend: Backend, user: User, certificate: str, private: str, subject: Subject | None = None
) -> None:
    """Store a private key with its certificate, replacing existing ones.

    Raises InvalidInput for invalid credentials, Forbidden for a user who does not sign in through Keycloak or whose
    account does not belong to `subject` (any more), NotConfigured if there is no key to encrypt them.
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
    """Get SSH credentials from the certificate service, if present ones are past half of their lifetime.

    `token` is the Keycloak token of the user, who is `subject` there. Returns an error message for the user, or None:
    without credentials only clusters cannot be used. Raises Forbidden if the account belongs to another user.
    """
    url = backend.keycloak.certificates if backend.keycloak else ""
    if not url or _lasts(backend, user):
        return None
    try:
        store_credentials(backend, user, *_fetched(url, token), subject)
    except Unreachable as error:
        reason = f"the certificate service {error}"
    except (InvalidInput, NotConfigured) as error:
        reason = f"the certificate service returned invalid credentials: {error}"
    else:
        return None
    log.warning("no SSH certificate for %s: %s", user.username, reason)
    return f"clusters cannot be used without a new SSH certificate: {reason}"


def _fetched(url: str, token: str) -> tuple[str, str]:
    """Return certificate and private key from the service."""
    answer: Any = fetch_json(url, token)
    certificate, private = (answer.get(name) if isinstance(answer, dict) else None for name in ("cert", "private"))
    if not isinstance(certificate, str) or not isinstance(private, str):
        raise Unreachable("responded without cert and private")
    return certificate, private


def _lasts(backend: Backend, user: User) -> bool:
    """Return whether more than half of the lifetime of the stored certificate remains."""
    with backend.database.reading() as connection:
        stored = queries.find_credentials(connection, user.id)
    try:
        ssh_certificate = _certificate((stored.cert if stored is not None else None) or "")
    except InvalidInput:
        return False
    return 2 * utc_now().timestamp() < ssh_certificate.valid_after + ssh_certificate.valid_before


def check_credentials(certificate: str, private: str, username: str) -> None:
    """Raise InvalidInput unless `username` can log in with this private key and certificate now."""
    if max(len(certificate), len(private)) > MAX_LENGTH:
        raise InvalidInput(f"A private key or a certificate may have at most {MAX_LENGTH} characters")
    key, ssh_certificate = _private_key(private), _certificate(certificate)
    if _public(key.public_key()) != _public(ssh_certificate.public_key()):
        raise InvalidInput("The certificate does not belong to this private key")
    if ssh_certificate.type is not SSHCertificateType.USER:
        raise InvalidInput("The certificate is for a host, not for a user")
    if ssh_certificate.valid_before <= utc_now().timestamp():
        raise InvalidInput(f"The certificate expired on {_format_time(_end(ssh_certificate))}: get a new one")
    if ssh_certificate.valid_after > utc_now().timestamp() + _LEEWAY:
        raise InvalidInput(f"The certificate is not valid before {_format_time(_time(ssh_certificate.valid_after))}")
    if username not in (names := _principals(ssh_certificate)):
        raise InvalidInput(f"The certificate is for {' and '.join(names)}, not for {username}")


def _private_key(text: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """Read a private key in OpenSSH or PEM format; error messages contain no part of it."""
    data = text.encode()
    load = serialization.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else serialization.load_pem_private_key
    try:
        key: object = load(data, password=None)
    except TypeError:  # cryptography raises this for a key with a passphrase
        raise InvalidInput("The private key has a passphrase: upload it without one") from None
    except UnsupportedAlgorithm:
        raise InvalidInput("Unsupported kind of private key: use ed25519, ecdsa or rsa") from None
    except ValueError as error:
        if "password" in str(error).lower():
            raise InvalidInput("The private key has a passphrase: upload it without one") from None
        raise InvalidInput("Invalid private key: use one in OpenSSH or PEM format") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        raise InvalidInput(f"The private key is too weak: RSA keys must have {_MIN_RSA_BITS} bits or more")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        raise InvalidInput(f"SSH does not support the curve {key.curve.name}: use ed25519, ecdsa or rsa")
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise InvalidInput("Weak kind of private key: use ed25519, ecdsa or rsa")
    return key


def _certificate(text: str) -> SSHCertificate:
    """Read a user certificate and verify its signature; raise InvalidInput."""
    try:
        # A comment follows the key, and could contain many lines.
        identity = serialization.load_ssh_public_identity(text.encode() if text.isprintable() else b"")
        if isinstance(identity, SSHCertificate):
            identity.verify_cert_signature()
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("Invalid certificate: use one line of text, as in id_ed25519-cert.pub") from None
    except InvalidSignature:
        raise InvalidInput("The certificate was changed after it was signed") from None
    if not isinstance(identity, SSHCertificate):
        raise InvalidInput("This is a public key: its certificate is in the file that ends in -cert.pub")
    if not identity.valid_principals:
        raise InvalidInput("The certificate has no principals, so no user can log in with it")
    return identity


def _public(key: Any) -> bytes:
    written: bytes = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return written


def _principals(certificate: SSHCertificate) -> list[str]:
    return [name.decode(errors="replace") for name in certificate.valid_principals]


def _end(certificate: SSHCertificate) -> datetime:
    return _time(certificate.valid_before)


def _time(seconds: int) -> datetime:
    """Return a time in a certificate; one without expiry gets the last day of the calendar."""
    return datetime.fromtimestamp(min(seconds, int(_END_OF_TIME.timestamp())), UTC)


def _format_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"

"""SSH keys, and certificates issued by an authority."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)


def text_of(key: Any, form: PrivateFormat = PrivateFormat.OpenSSH, passphrase: bytes = b"") -> str:
    """Return a private key as file contents."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption).decode()


def locked() -> str:
    """Return an OpenSSH private key with an unknown passphrase."""

    def text(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    public = text(b"ssh-ed25519") + text(bytes(32))
    rounds, one = (16).to_bytes(4, "big"), (1).to_bytes(4, "big")
    head = text(b"aes256-ctr") + text(b"bcrypt") + text(text(bytes(16)) + rounds)
    data = base64.encodebytes(b"openssh-key-v1\0" + head + one + text(public) + text(bytes(64))).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{data}-----END OPENSSH PRIVATE KEY-----\n"


@dataclass
class Authority:
    """Issues certificates."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def issue(
        self,
        key: Any,
        *names: str,
        since: timedelta = timedelta(hours=-1),
        lasts: timedelta = timedelta(hours=12),
        kind: SSHCertificateType = SSHCertificateType.USER,
    ) -> str:
        """Return a certificate for a private key and names, valid from now + `since` for `lasts`."""
        now = datetime.now(UTC)
        builder = SSHCertificateBuilder().public_key(key.public_key()).serial(1).type(kind).key_id(b"test")
        builder = builder.valid_principals([name.encode() for name in names or ("alice",)])
        builder = builder.valid_after(int((now + since).timestamp())).valid_before(int((now + lasts).timestamp()))
        return builder.sign(self.key).public_bytes().decode()

    def pair(self, *names: str, **times: timedelta) -> dict[str, str]:
        """Return a new private key with certificate, as from the certificate service and for `POST /user/update`."""
        key = Ed25519PrivateKey.generate()
        return {"cert": self.issue(key, *names, **times), "private": text_of(key)}

"""SSH keys, and certificates as an authority issues them."""

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
    """A private key as it is in a file."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption).decode()


def locked() -> str:
    """A private key in OpenSSH's format that asks for a passphrase, and that no passphrase opens."""

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
        """A certificate for a private key and these names, valid from `since` for as long as it `lasts`, from now."""
        now = datetime.now(UTC)
        builder = SSHCertificateBuilder().public_key(key.public_key()).serial(1).type(kind).key_id(b"test")
        builder = builder.valid_principals([name.encode() for name in names or ("alice",)])
        builder = builder.valid_after(int((now + since).timestamp())).valid_before(int((now + lasts).timestamp()))
        return builder.sign(self.key).public_bytes().decode()

    def pair(self, *names: str, **times: timedelta) -> dict[str, str]:
        """A new private key with its certificate, as the certificate service answers and `POST /user/update` takes."""
        key = Ed25519PrivateKey.generate()
        return {"cert": self.issue(key, *names, **times), "private": text_of(key)}

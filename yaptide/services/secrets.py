"""Secrets that must be readable, such as private keys: encrypted with keys from the settings.

The first key encrypts, all of them decrypt. To change it: put a new key in front, run `yaptide secrets rotate`, remove
the old one.
"""

from collections.abc import Iterable

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from yaptide.domain.errors import Conflict, InvalidInput, NotConfigured
from yaptide.persistence.engine import Database, retry_contended
from yaptide.persistence.queries import secrets


def new_key() -> str:
    """Return a new key for the setting YAPTIDE_SECRET_KEYS."""
    return Fernet.generate_key().decode()


class Vault:
    """Encrypts and decrypts with the keys of an installation.

    Raises InvalidInput, without showing it, for an invalid key. Encryption without keys raises NotConfigured.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        try:
            self._keys = [Fernet(key) for key in keys]
        except ValueError:
            raise InvalidInput("Invalid key in YAPTIDE_SECRET_KEYS: create one with: yaptide secrets new-key") from None

    def encrypt(self, text: str) -> str:
        """Encrypt `text` with the first key; raise NotConfigured without one."""
        return self._all().encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        """Decrypt a token; raise NotConfigured without a key, Conflict if no key fits."""
        try:
            return self._all().decrypt(token).decode()
        except InvalidToken:
            raise Conflict(
                "No key in YAPTIDE_SECRET_KEYS decrypts a stored secret: add the key that encrypted it"
            ) from None

    def renewed(self, token: str) -> str:
        """Encrypt a token again with the first key; return it unchanged if that key encrypted it."""
        text = self.decrypt(token)
        try:
            self._keys[0].decrypt(token)
        except InvalidToken:
            return self.encrypt(text)
        return token

    def _all(self) -> MultiFernet:
        if not self._keys:
            raise NotConfigured(
                "Private keys cannot be encrypted or decrypted without a key: set "
                "YAPTIDE_SECRET_KEYS to the one in use, or create the first one with: yaptide secrets new-key"
            )
        return MultiFernet(self._keys)


def check_secrets(database: Database, vault: Vault) -> None:
    """Raise NotConfigured or Conflict if there are stored secrets that the configured keys cannot decrypt."""
    with database.reading() as connection:
        for _, token in secrets.private_keys(connection, lock=False):
            vault.decrypt(token)


@retry_contended
def rotate_secrets(database: Database, vault: Vault) -> tuple[int, int]:
    """Encrypt all stored secrets with the first key; return how many changed, and how many there are.

    All or nothing: raises Conflict if no key decrypts one of them.
    """
    with database.writing() as connection:
        stored = secrets.private_keys(connection)
        changed = 0
        for user_id, token in stored:
            renewed = vault.renewed(token)
            if renewed != token:
                secrets.set_private_key(connection, user_id, renewed)
                changed += 1
    return changed, len(stored)

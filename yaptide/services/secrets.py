"""Secrets that have to be read again, such as private keys: encrypted with keys from the settings.

The first key encrypts, all of them decrypt: put a new key in front, `yaptide secrets rotate`, remove the old one.
"""

from collections.abc import Iterable

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from yaptide.domain.errors import Conflict, InvalidInput, NotConfigured
from yaptide.persistence.engine import Database, retry_contended
from yaptide.persistence.queries import secrets


def new_key() -> str:
    """A new key for the setting YAPTIDE_SECRET_KEYS."""
    return Fernet.generate_key().decode()


class Vault:
    """Encrypts and decrypts with the keys of an installation.

    Raises InvalidInput if a key is none, without telling it; without keys nothing can be encrypted (NotConfigured).
    """

    def __init__(self, keys: Iterable[str]) -> None:
        try:
            self._keys = [Fernet(key) for key in keys]
        except ValueError:
            raise InvalidInput(
                "YAPTIDE_SECRET_KEYS holds something that is no key; make one with: yaptide secrets new-key"
            ) from None

    def encrypt(self, text: str) -> str:
        """`text`, encrypted with the first key; raises NotConfigured without one."""
        return self._all().encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        """The text that was encrypted; raises NotConfigured without a key, Conflict if no key fits."""
        try:
            return self._all().decrypt(token).decode()
        except InvalidToken:
            raise Conflict(
                "A stored secret fits none of the keys in YAPTIDE_SECRET_KEYS: add the key that it was encrypted with"
            ) from None

    def renewed(self, token: str) -> str:
        """The same secret encrypted with the first key; the same token if it is already."""
        text = self.decrypt(token)
        try:
            self._keys[0].decrypt(token)
        except InvalidToken:
            return self.encrypt(text)
        return token

    def _all(self) -> MultiFernet:
        if not self._keys:
            raise NotConfigured(
                "There are private keys to be encrypted or decrypted, and no key to do it with: set "
                "YAPTIDE_SECRET_KEYS to the one in use; if there never was one, make it with: yaptide secrets new-key"
            )
        return MultiFernet(self._keys)


def check_secrets(database: Database, vault: Vault) -> None:
    """Raise NotConfigured or Conflict if there are stored secrets that the keys of this installation cannot read."""
    with database.reading() as connection:
        for _, token in secrets.private_keys(connection, lock=False):
            vault.decrypt(token)


@retry_contended
def rotate_secrets(database: Database, vault: Vault) -> tuple[int, int]:
    """Encrypt all stored secrets with the first key; returns how many were, and how many there are.

    All or nothing: raises Conflict if one of them fits none of the keys.
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

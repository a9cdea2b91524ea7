"""Hashes of passwords: argon2id, and the older kinds that databases of other backends hold.

An old hash verifies, and is replaced by a new one at the next sign-in (`Match.OUTDATED`). Where the argon2 library is
missing, as in a bare container that only administers the database, new hashes are scrypt of the standard library.

Formats: argon2's own (``$argon2id$...``), and those of werkzeug: ``scrypt:N:r:p$salt$hex`` and
``pbkdf2:sha256:rounds$salt$hex``.
"""

import hashlib
import math
import os
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from yaptide.domain.errors import Busy, InvalidInput

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MAX_PASSWORD = 1024
#: Characters of a new password at least, where the administrator sets no other number (NIST SP 800-63B-3, 5.1.1.2).
LEAST = 8

_SCRYPT = (32768, 8, 1)
_MAX_WORK = 10_000_000
_MEMORY = 256 * 2**20

_COME_AGAIN = 2


class Queue:
    """So many hashes `at_once`, and so many more that wait `patience` seconds for their turn; others come again.

    A hash takes 64 MiB and all the time of a core, and whoever waits for one keeps a thread of the server.
    """

    def __init__(self, at_once: int, waiting: int, patience: float) -> None:
        self._places = BoundedSemaphore(at_once + waiting)
        self._turns = BoundedSemaphore(at_once)
        self._patience = patience

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around a hash; raises Busy."""
        if not self._places.acquire(blocking=False):
            raise _busy()
        try:
            if not self._turns.acquire(timeout=self._patience):
                raise _busy()
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._places.release()


def _busy() -> Busy:
    return Busy(_COME_AGAIN, "Too many are signing in just now")


_AT_ONCE = 2 if (os.cpu_count() or 1) > 2 else 1
#: For anybody who tries to sign in, or registers; and for those who have shown before that they may, which is why a
#: flood of the former keeps none of the latter out. Together they leave threads of the server for everything else, and
#: a group of people who come at the same moment is let in, on a busy machine too.
STRANGERS, KNOWN = Queue(_AT_ONCE, 8, 10.0), Queue(_AT_ONCE, 3, 5.0)


class Match(Enum):
    """Whether a password is the one of a hash."""

    NONE = "none"
    OUTDATED = "outdated"
    """It is, and a hash as they are made today should replace that one."""
    CURRENT = "current"


def check_new(password: str, least: int = LEAST) -> None:
    """Raise InvalidInput for a password that nobody is to have; old ones that are shorter than `least` go on."""
    if not password or len(password) > MAX_PASSWORD:
        raise InvalidInput(f"A password has 1 to {MAX_PASSWORD} characters")
    if len(_normalized(password)) < least:
        raise InvalidInput(f"A password has at least {least} characters here")


def make_hash(password: str, queue: Queue = KNOWN) -> str:
    """A hash of `password`; raises Busy if too many are asked for."""
    password = _normalized(password)
    hasher = _argon2()
    with queue.turn():
        if hasher is not None:
            return hasher.hash(password)
        salt = secrets.token_hex(8)
        n, r, p = _SCRYPT
        found = hashlib.scrypt(password.encode(), salt=salt.encode(), n=n, r=r, p=p, maxmem=_MEMORY)
        return f"scrypt:{n}:{r}:{p}${salt}${found.hex()}"


def verify_password(stored: str, password: str, queue: Queue = KNOWN) -> Match:
    """Whether `stored` is a hash of `password`; it is not if it is of no known kind. Raises Busy as `make_hash` does.

    Hashes of other backends, and of older versions, are of what was typed, without normalization. Where that differs,
    whoever has another password, or none, has both compared: it takes as long whether or not there is such a user.
    """
    if len(password) > MAX_PASSWORD:
        return Match.NONE
    with queue.turn():
        if _fits(stored, _normalized(password)):
            return Match.OUTDATED if _outdated(stored) else Match.CURRENT
        if password != _normalized(password) and _fits(stored, password):
            return Match.OUTDATED
        return Match.NONE


def _normalized(password: str) -> str:
    """The one of all spellings that keyboards and systems have for it (NFKC, as in RFC 8265)."""
    return unicodedata.normalize("NFKC", password)


def _outdated(stored: str) -> bool:
    hasher = _argon2()
    return hasher is not None and (not stored.startswith("$argon2") or hasher.check_needs_rehash(stored))


def _fits(stored: str, password: str) -> bool:
    try:
        if stored.startswith("$argon2"):
            return _fits_argon2(stored, password)
        _check_work(stored.partition("$")[0])
        from werkzeug.security import check_password_hash  # noqa: PLC0415 - see _argon2

        return check_password_hash(stored, password)
    except (ValueError, TypeError, OverflowError):  # no known kind of hash
        return False


def _check_work(method: str) -> None:
    """Raise ValueError for a hash of werkzeug's that would keep a core or the memory busy for long."""
    kind, *words = method.split(":")
    numbers = [int(word) for word in (words if kind == "scrypt" else words[1:])]
    work = math.prod(numbers)
    if min(numbers, default=0) < 0 or work > _MAX_WORK or (kind == "scrypt" and 128 * math.prod(numbers[:2]) > _MEMORY):
        raise ValueError("too much work")


def _fits_argon2(stored: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 - see _argon2

    hasher = _argon2()
    try:
        return hasher is not None and hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _argon2() -> "PasswordHasher | None":
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415 - it may be missing, and most commands never need it
    except ModuleNotFoundError:
        return None
    return PasswordHasher()

"""Hashes of passwords: argon2id, and the older kinds that databases of other backends hold.

An old hash verifies, and is replaced by a new one at the next sign-in (`outdated`). Where the argon2 library is
missing, as in a bare container that only administers the database, new hashes are scrypt of the standard library.

Formats: argon2's own (``$argon2id$...``), and those of werkzeug: ``scrypt:N:r:p$salt$hex`` and
``pbkdf2:sha256:rounds$salt$hex``.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from yaptide.domain.errors import Busy, InvalidInput

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MAX_PASSWORD = 1024

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
#: flood of the former keeps none of the latter out. Together they leave threads of the server for everything else.
STRANGERS, KNOWN = Queue(_AT_ONCE, 4, 2.0), Queue(_AT_ONCE, 6, 5.0)


def make(password: str, queue: Queue = KNOWN) -> str:
    """A hash of `password`; raises InvalidInput if it is empty or too long, Busy if too many are asked for."""
    if not password or len(password) > MAX_PASSWORD:
        raise InvalidInput(f"A password has 1 to {MAX_PASSWORD} characters")
    hasher = _argon2()
    with queue.turn():
        if hasher is not None:
            return hasher.hash(password)
        salt = secrets.token_hex(8)
        n, r, p = _SCRYPT
        return f"scrypt:{n}:{r}:{p}${salt}${_scrypt(password, salt, n, r, p)}"


def verify(stored: str, password: str, queue: Queue = KNOWN) -> bool:
    """Whether `stored` is a hash of `password`; False for a hash of no known kind. Raises Busy as `make` does."""
    if len(password) > MAX_PASSWORD:
        return False
    with queue.turn():
        try:
            if stored.startswith("$argon2"):
                return _verify_argon2(stored, password)
            method, salt, expected = stored.split("$")
            return hmac.compare_digest(_old(method, password, salt), expected)
        except ValueError:
            return False


def outdated(stored: str) -> bool:
    """Whether a hash that verified should be replaced by a new one."""
    hasher = _argon2()
    if hasher is None:
        return False
    return not stored.startswith("$argon2") or hasher.check_needs_rehash(stored)


def _old(method: str, password: str, salt: str) -> str:
    kind, *numbers = method.split(":")
    if kind == "scrypt":
        n, r, p = map(int, numbers)
        return _scrypt(password, salt, n, r, p)
    if kind == "pbkdf2":
        algorithm, rounds = numbers
        if int(rounds) > _MAX_WORK:
            raise ValueError("too much work")
        return hashlib.pbkdf2_hmac(algorithm, password.encode(), salt.encode(), int(rounds)).hex()
    raise ValueError("no known kind of hash")


def _scrypt(password: str, salt: str, n: int, r: int, p: int) -> str:
    return hashlib.scrypt(password.encode(), salt=salt.encode(), n=n, r=r, p=p, maxmem=_MEMORY).hex()


def _verify_argon2(stored: str, password: str) -> bool:
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

"""Password hashes: argon2id, and the older kinds in databases of other backends.

An old hash is verified, and replaced at the next sign-in (`Match.OUTDATED`). Without the argon2 library, as in a bare
container that only administers the database, new hashes are scrypt of the standard library.

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
#: Default minimum length of a new password, in characters (NIST SP 800-63B-3, 5.1.1.2).
LEAST = 8

_SCRYPT = (32768, 8, 1)
_MAX_WORK = 10_000_000
_MEMORY = 256 * 2**20

_RETRY_SECONDS = 2


class Queue:
    """Runs `at_once` hashes in parallel, while `waiting` more wait up to `patience` seconds; others are rejected.

    A hash takes 64 MiB and a whole core, and each waiting request occupies a thread of the server.
    """

    def __init__(self, at_once: int, waiting: int, patience: float) -> None:
        self._places = BoundedSemaphore(at_once + waiting)
        self._turns = BoundedSemaphore(at_once)
        self._patience = patience

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn to compute a hash; raise Busy if there are too many."""
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
    return Busy(_RETRY_SECONDS, "Too many sign-ins at once")


_AT_ONCE = 2 if (os.cpu_count() or 1) > 2 else 1
#: STRANGERS: anyone who signs in or registers; KNOWN: users who have signed in from there before, so that a flood of
#: strangers does not lock them out. Together they leave threads of the server for other requests, and a group of users
#: who arrive at the same moment is let in, even on a busy machine.
STRANGERS, KNOWN = Queue(_AT_ONCE, 8, 10.0), Queue(_AT_ONCE, 3, 5.0)


class Match(Enum):
    """Whether a password matches a hash."""

    NONE = "none"
    OUTDATED = "outdated"
    """It matches, but the hash should be replaced by one of the current kind."""
    CURRENT = "current"


def check_new(password: str, least: int = LEAST) -> None:
    """Raise InvalidInput for an unacceptable new password; existing ones shorter than `least` stay valid."""
    if not password or len(password) > MAX_PASSWORD:
        raise InvalidInput(f"A password must have 1 to {MAX_PASSWORD} characters")
    if len(_normalized(password)) < least:
        raise InvalidInput(f"A password must have at least {least} characters")


def make_hash(password: str, queue: Queue = KNOWN) -> str:
    """Return a hash of `password`; raise Busy if too many are requested."""
    password = _normalized(password)
    hasher = _argon2()
    with queue.turn():
        if hasher is not None:
            return hasher.hash(password)
        salt = secrets.token_hex(8)
        n, r, p = _SCRYPT
        digest = hashlib.scrypt(password.encode(), salt=salt.encode(), n=n, r=r, p=p, maxmem=_MEMORY)
        return f"scrypt:{n}:{r}:{p}${salt}${digest.hex()}"


def verify_password(stored: str, password: str, queue: Queue = KNOWN) -> Match:
    """Return whether `stored` is a hash of `password` (NONE for an unknown kind of hash); raise Busy like `make_hash`.

    Hashes of other backends and of older versions were made without normalization. If normalization changes the
    password, a mismatch compares both forms, whether or not the user exists: this takes the same time in both cases.
    """
    if len(password) > MAX_PASSWORD:
        return Match.NONE
    with queue.turn():
        if _matches(stored, _normalized(password)):
            return Match.OUTDATED if _outdated(stored) else Match.CURRENT
        if password != _normalized(password) and _matches(stored, password):
            return Match.OUTDATED
        return Match.NONE


def is_supported(stored: str) -> bool:
    """Return whether `verify_password` can verify passwords against a hash of this kind."""
    kind, _, rest = stored.partition("$")
    try:
        _check_work(kind)
    except ValueError:
        return False
    return "$" in rest and stored.startswith(("$argon2", "scrypt:", "pbkdf2:"))


def _normalized(password: str) -> str:
    """Return the normal form of a password, independent of keyboard and system (NFKC, as in RFC 8265)."""
    return unicodedata.normalize("NFKC", password)


def _outdated(stored: str) -> bool:
    hasher = _argon2()
    return hasher is not None and (not stored.startswith("$argon2") or hasher.check_needs_rehash(stored))


def _matches(stored: str, password: str) -> bool:
    try:
        if stored.startswith("$argon2"):
            return _matches_argon2(stored, password)
        _check_work(stored.partition("$")[0])
        from werkzeug.security import check_password_hash  # noqa: PLC0415 - see _argon2

        return check_password_hash(stored, password)
    except (ValueError, TypeError, OverflowError):  # an unknown kind of hash
        return False


def _check_work(method: str) -> None:
    """Raise ValueError for a werkzeug hash that would take too much time or memory."""
    kind, *words = method.split(":")
    numbers = [int(word) for word in (words if kind == "scrypt" else words[1:])]
    work = math.prod(numbers)
    if min(numbers, default=0) < 0 or work > _MAX_WORK or (kind == "scrypt" and 128 * math.prod(numbers[:2]) > _MEMORY):
        raise ValueError("too much work")


def _matches_argon2(stored: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 - see _argon2

    hasher = _argon2()
    try:
        return hasher is not None and hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _argon2() -> "PasswordHasher | None":
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415 - it may be missing, and most commands do not need it
    except ModuleNotFoundError:
        return None
    return PasswordHasher()

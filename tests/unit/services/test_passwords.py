"""Hashing takes memory on purpose, and anyone can request it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from werkzeug.security import generate_password_hash

from yaptide.domain.errors import Busy, InvalidInput
from yaptide.services import passwords
from yaptide.services.passwords import Match, Queue

SECONDS = 60


class Gate:
    """A hasher that blocks until it is opened, and counts concurrent uses."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.at_once = self.most = 0
        self._changed = threading.Condition()

    def hash(self, _password: str) -> str:
        with self._changed:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self._changed.notify_all()
        assert self.opened.wait(SECONDS)
        with self._changed:
            self.at_once -= 1
        return "$argon2..."

    def verify(self, _stored: str, password: str) -> bool:
        return bool(self.hash(password))

    def check_needs_rehash(self, _stored: str) -> bool:
        return False

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.at_once == count, SECONDS)


@pytest.fixture
def gate(monkeypatch):
    hasher = Gate()
    monkeypatch.setattr(passwords, "_argon2", lambda: hasher)
    yield hasher
    hasher.opened.set()


def test_few_passwords_are_hashed_at_once(gate):
    gate.opened.set()
    queue = Queue(2, 16, SECONDS)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(passwords.make_hash, ["secret"] * 16, [queue] * 16))
        fitting = list(pool.map(passwords.verify_password, made, ["secret"] * 16, [queue] * 16))
    assert set(fitting) == {Match.CURRENT}
    assert gate.most <= 2


def test_a_few_wait_and_the_others_are_told_at_once_to_come_again(gate):
    """Nobody but the two who are hashed and the three who wait keeps a thread."""
    queue = Queue(2, 3, SECONDS)
    with ThreadPoolExecutor(40) as pool:
        tries = [pool.submit(passwords.make_hash, "secret", queue) for _ in range(40)]
        refused = [error for error in (result.exception(SECONDS) for result in done(tries, 35)) if error]
        gate.opened.set()
        made = [result for result in tries if not result.exception(SECONDS)]
    assert len(refused) == 35
    assert {(type(error), error.seconds) for error in refused} == {(Busy, 2)}
    assert len(made) == 5
    assert passwords.make_hash("secret", queue)


def done(tries, count):
    """The first `count` of them that come to an end."""
    ended = threading.Semaphore(0)
    items = []
    for one in tries:
        one.add_done_callback(lambda future: (items.append(future), ended.release()))
    for _ in range(count):
        assert ended.acquire(timeout=SECONDS)
    return items[:count]


def test_who_has_waited_for_long_is_told_to_come_again(gate):
    queue = Queue(1, 1, 0.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(passwords.make_hash, "secret", queue)
        gate.wait_for(1)
        with pytest.raises(Busy, match="wait 2 s"):
            passwords.make_hash("secret", queue)
        gate.opened.set()
        assert first.result(SECONDS)


def test_a_flood_of_strangers_keeps_nobody_out_who_is_known(gate):
    with ThreadPoolExecutor(40) as pool:
        flood = [pool.submit(passwords.verify_password, "$argon2", "wrong", passwords.STRANGERS) for _ in range(40)]
        gate.wait_for(passwords._AT_ONCE)
        known = pool.submit(passwords.verify_password, "$argon2", "right", passwords.KNOWN)
        gate.wait_for(passwords._AT_ONCE + 1)
        gate.opened.set()
        assert known.result(SECONDS)
        assert any(isinstance(result.exception(SECONDS), Busy) for result in flood)


COMPOSED, DECOMPOSED = "\u017b\u00f3\u0142w-ﬁsch", "Z\u0307o\u0301\u0142w-ﬁsch"


def test_a_password_may_be_typed_in_any_spelling():
    stored = passwords.make_hash(COMPOSED)
    assert passwords.verify_password(stored, DECOMPOSED) is Match.CURRENT
    assert passwords.verify_password(stored, "\u017b\u00f3\u0142w-fisch") is Match.CURRENT
    assert passwords.verify_password(stored, "Zolw-fisch") is Match.NONE


@pytest.mark.parametrize("method", ["scrypt", "pbkdf2:sha256:1000", "argon2"])
def test_an_old_hash_of_what_was_typed_still_fits(method):
    """Other backends, and older versions, did not normalize."""
    stored = PasswordHasher().hash(DECOMPOSED) if method == "argon2" else generate_password_hash(DECOMPOSED, method)
    assert passwords.verify_password(stored, DECOMPOSED) is Match.OUTDATED
    assert passwords.verify_password(stored, COMPOSED) is Match.NONE
    assert passwords.verify_password(stored, "Zolw") is Match.NONE


@pytest.mark.parametrize("password", ["plain old one", DECOMPOSED])
def test_it_takes_as_many_hashes_whether_or_not_there_is_such_a_user(monkeypatch, password):
    compared = []
    monkeypatch.setattr(passwords, "_matches", lambda stored, password: compared.append((stored, password)))
    for stored in ("of somebody", "decoy"):
        assert passwords.verify_password(stored, password) is Match.NONE
    tried = [given for stored, given in compared if stored == "decoy"]
    assert tried == [given for stored, given in compared if stored == "of somebody"]
    assert len(tried) == (1 if password.isascii() else 2)


@pytest.mark.parametrize(
    "stored",
    [
        "pbkdf2:sha256:10000001$salt$00",
        "scrypt:32768:8:100$salt$00",
        "scrypt:1048576:32:1$salt$00",
        "scrypt:99999999999999999999:8:1$salt$00",
        "scrypt:-2:-8:1$salt$00",
        "scrypt:8:1$salt$00",
        "pbkdf2:nonsense:1$salt$00",
        "sha1$salt$00",
        "plain$$secret",
        "scrypt:a:b:c$salt$00",
        "no hash",
        "",
    ],
)
def test_what_is_no_hash_or_takes_too_much_fits_nothing(stored):
    begun = time.monotonic()
    assert passwords.verify_password(stored, "secret") is Match.NONE
    assert time.monotonic() - begun < 1


def test_the_least_length_counts_what_is_stored():
    passwords.check_new("12345678")
    passwords.check_new("1", least=1)
    for short in ("1234567", "z\u030c" * 7, ""):
        with pytest.raises(InvalidInput):
            passwords.check_new(short)
    with pytest.raises(InvalidInput, match="at least 12 characters"):
        passwords.check_new("12345678", least=12)

"""Hashing takes memory on purpose, and anybody may ask for it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from yaptide.domain.errors import Unavailable
from yaptide.services import passwords


class Slow:
    """A hasher that notes how many use it at once."""

    def __init__(self) -> None:
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def hash(self, _password: str) -> str:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.02)
        with self._lock:
            self.at_once -= 1
        return "$argon2..."

    def verify(self, _stored: str, password: str) -> bool:
        return bool(self.hash(password))


@pytest.fixture
def slow(monkeypatch):
    hasher = Slow()
    monkeypatch.setattr(passwords, "_argon2", lambda: hasher)
    return hasher


def test_few_passwords_are_hashed_at_once(slow):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(passwords.make, ["secret"] * 16))
        fitting = list(pool.map(passwords.verify, made, ["secret"] * 16))
    assert all(fitting)
    assert slow.most == 4


def test_who_would_wait_too_long_is_told_to_come_again(slow, monkeypatch):
    monkeypatch.setattr(passwords, "_PATIENCE", 0.0)
    with ThreadPoolExecutor(16) as pool:
        tries = [pool.submit(passwords.make, "secret") for _ in range(16)]
    refused = [found.exception() for found in tries if found.exception()]
    assert refused
    assert all(isinstance(error, Unavailable) for error in refused)
    assert passwords.make("secret")

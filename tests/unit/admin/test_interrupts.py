"""Ctrl-C while threads work."""

import signal
import threading

import pytest

from yaptide.admin.interrupts import Interrupts


def test_a_signal_is_noted_and_raises_where_it_is_asked_for():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts:
        interrupts.raise_if_interrupted()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_who_is_in_a_hurry_presses_it_twice():
    with Interrupts(signal.SIGINT) as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts(signal.SIGINT) as interrupts:
            signal.raise_signal(signal.SIGINT)
        assert not interrupts.received
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_leaves_no_lock_behind():
    condition, over = threading.Condition(), threading.Event()

    def send() -> None:
        while not over.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    with Interrupts(signal.SIGTERM) as interrupts:
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(20_000):  # a handler that raises, or sets an Event, has the main thread keep the lock
            with condition:
                condition.notify_all()
        over.set()
        sender.join()
        assert condition.acquire(timeout=10)
        condition.release()
    assert interrupts.received

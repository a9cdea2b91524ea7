"""Handles SIGINT and SIGTERM safely while threads run: signals are recorded, and acted on where no lock is held.

Python raises KeyboardInterrupt at any point of the main thread, also between acquiring a lock and the code that
releases it; then all threads wait for that lock forever. A handler cannot set an Event either: the interrupted code may
hold the lock of that Event.
"""

import signal
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Record signals in `received` within a `with` block; a second Ctrl-C raises KeyboardInterrupt.

    Signals that were ignored before stay ignored: shells ignore SIGINT for background processes.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self.received = False

    def raise_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt if a signal was received. Call it where no lock is held."""
        if self.received:
            raise KeyboardInterrupt

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.received = True

    def __enter__(self) -> Self:
        """Install the handlers; only the main thread can."""
        handled = [number for number in self._signals if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._record) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""Ctrl-C, and being told to stop, while threads are at work: noted, and acted on where nothing is held.

The exception that Python raises for Ctrl-C comes at any point of the main thread, also after a lock was taken and
before the code that gives it back, and then all threads wait for that lock for ever. Nor can a handler set an Event,
whose own lock may be held by what it has interrupted.
"""

import signal
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Within its block, signals are noted in `came`; a second Ctrl-C raises KeyboardInterrupt, as it usually does.

    What was ignored before stays ignored: a shell has Ctrl-C not reach what it runs in the background.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self.came = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if one came: to be called where nothing is held."""
        if self.came:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.came = True

    def __enter__(self) -> Self:
        """Begin to note; only the main thread can."""
        heard = [number for number in self._signals if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        """Have them do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

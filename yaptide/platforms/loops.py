"""Threads that repeat a step until they are stopped. An error is logged, and the step is tried again later."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from yaptide.domain.errors import YaptideError

log = logging.getLogger(__name__)

T = TypeVar("T")


def try_step(step: Callable[[], T]) -> T | None:
    """Do one step; None, with the error in the log, if anything goes wrong."""
    try:
        return step()
    except YaptideError as error:
        log.warning("%s", error)
    except Exception:
        log.exception("an unexpected error; going on")
    return None


class Loops:
    """The threads of one executor, publisher or driver; `stopping` is set as soon as they should end."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._calls = 0
        self._called = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, step: Callable[[], object], pause: float, *, wakes: bool = False) -> None:
        """Repeat a step: at once if it returns True, otherwise after `pause` seconds, or if it `wakes`, on `wake`."""
        thread = threading.Thread(target=self._repeat, args=(step, pause, wakes), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wake(self) -> None:
        """Repeat now the steps that wake; those in progress are repeated once more."""
        with self._called:
            self._calls += 1
            self._called.notify_all()

    def stop(self) -> None:
        """Stop, and wait for the steps in progress."""
        self.stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join()

    def _repeat(self, step: Callable[[], object], pause: float, wakes: bool) -> None:
        while not self.stopping.is_set():
            calls = self._calls
            if try_step(step) is not True:
                self._pause(pause, calls if wakes else None)

    def _pause(self, seconds: float, calls: int | None) -> None:
        """Wait until it is time to stop, or given the number of calls that were known, until there are more."""
        with self._called:
            self._called.wait_for(lambda: self.stopping.is_set() or calls not in (None, self._calls), seconds)

"""Processes that do the same thing at once, as many clients would; they are there before the clock starts."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

#: Makes what one process repeats: a call, given the number of the repetition.
Make = Callable[..., Callable[[int], Any]]

_PROCESSES = get_context("spawn")
_DEADLINE = 300.0


class LoadGenerator(AbstractContextManager["LoadGenerator"]):
    """`count` processes, each of which calls what `make(number, *arguments)` has made in it."""

    def __init__(self, count: int, make: Make, *arguments: Any) -> None:
        self._ends: list[Connection] = []
        self._members = []
        for number in range(count):
            ours, theirs = _PROCESSES.Pipe()
            member = _PROCESSES.Process(target=_member, args=(theirs, make, number, arguments), daemon=True)
            member.start()
            self._ends.append(ours)
            self._members.append(member)
        for end in self._ends:
            _hear(end)

    def run(self, repetitions: int) -> list[float]:
        """Have all of them make so many calls at once; the seconds of every call."""
        for end in self._ends:
            end.send(repetitions)
        return [taken for end in self._ends for taken in _hear(end)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        for end, member in zip(self._ends, self._members, strict=True):
            end.close()
            member.join(10)
            member.kill()

    def __enter__(self) -> Self:
        """Use as a context manager to have them end."""
        return self


def _hear(end: Connection) -> Any:
    if not end.poll(_DEADLINE):
        raise TimeoutError(f"a client has said nothing for {_DEADLINE:g} s")
    reply = end.recv()
    if isinstance(reply, str):
        raise RuntimeError(reply)  # noqa: TRY004 - the client's own words
    return reply


def _member(end: Connection, make: Make, number: int, arguments: tuple[Any, ...]) -> None:
    try:
        action = make(number, *arguments)
        end.send([])
        done = 0
        while True:
            repetitions = end.recv()
            taken = []
            for _ in range(repetitions):
                began = time.perf_counter()
                action(done)
                done += 1
                taken.append(time.perf_counter() - began)
            end.send(taken)
    except EOFError:
        pass
    except Exception as error:  # noqa: BLE001 - sent to the process that started it
        end.send(f"{type(error).__name__}: {error}")

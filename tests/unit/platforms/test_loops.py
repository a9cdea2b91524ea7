"""Threads that repeat a step: errors do not end them, `wake` hurries them, `stop` ends them."""

import logging
import threading

import pytest

from yaptide.domain.errors import Unavailable
from yaptide.platforms.loops import Loops, try_step

SOON = 30.0  # a longer wait is a failure
NEVER = 3600.0


@pytest.fixture
def loops():
    made = Loops()
    yield made
    made.stop()
    assert not any(thread.is_alive() for thread in made._threads)


class Steps:
    """A step that counts how often it was done; a function of that number does what it does."""

    def __init__(self, do=lambda _number: None):
        self._do = do
        self._number = 0
        self._done = threading.Condition()

    def __call__(self):
        with self._done:
            self._number += 1
            self._done.notify_all()
        return self._do(self._number)

    def reaches(self, number):
        with self._done:
            return self._done.wait_for(lambda: self._number >= number, SOON)

    @property
    def number(self):
        return self._number


def test_a_step_is_repeated_after_the_pause(loops):
    steps = Steps()
    loops.start("steps", steps, 0.001)
    assert steps.reaches(3)


def test_a_step_that_returns_true_is_repeated_at_once(loops):
    steps = Steps(lambda number: number < 3)
    loops.start("steps", steps, NEVER)
    assert steps.reaches(3)


@pytest.mark.parametrize("result", [1, "done"])
def test_a_step_that_returns_anything_else_is_not(loops, result):
    steps, others = Steps(lambda _: result), Steps(lambda number: number < 1000)
    loops.start("steps", steps, NEVER)
    loops.start("others", others, NEVER)
    assert others.reaches(1000)
    assert steps.number == 1


def test_errors_are_logged_and_end_nothing(loops, caplog):
    def fail(number):
        if number == 1:
            raise Unavailable("the database is away")
        if number == 2:
            raise ZeroDivisionError

    steps = Steps(fail)
    loops.start("steps", steps, 0.001)
    assert steps.reaches(3)
    first, second = caplog.records
    assert (first.levelno, first.message, first.exc_info) == (logging.WARNING, "the database is away", None)
    assert (second.levelno, second.message) == (logging.ERROR, "an unexpected error; going on")
    assert second.exc_info is not None


def test_only_steps_that_wake_are_woken(loops):
    steps, others = Steps(), Steps()
    loops.start("steps", steps, NEVER, wakes=True)
    loops.start("others", others, NEVER)
    assert steps.reaches(1)
    assert others.reaches(1)
    loops.wake()
    assert steps.reaches(2)
    assert others.number == 1


def test_what_is_called_for_during_a_step_is_done_after_it(loops):
    steps = Steps(lambda number: loops.wake() if number == 1 else None)
    loops.start("steps", steps, NEVER, wakes=True)
    assert steps.reaches(2)


def test_stopping_waits_for_the_step_that_is_done(loops):
    begun, ended = threading.Event(), []

    def step():
        begun.set()
        assert loops.stopping.wait(SOON)
        ended.append(True)

    loops.start("step", step, NEVER)
    assert begun.wait(SOON)
    loops.stop()
    assert ended == [True]


def test_the_result_of_a_step_is_returned():
    assert try_step(lambda: 7) == 7

"""How long a simulation will still run."""

from datetime import timedelta
from types import SimpleNamespace

from yaptide.services.backend import utc_now
from yaptide.services.simulations import estimate_time_left

NOW = utc_now()


def task(done: int, wanted: int = 100, minutes_ago: float | None = None) -> SimpleNamespace:
    start = None if minutes_ago is None else NOW - timedelta(minutes=minutes_ago)
    return SimpleNamespace(simulated_primaries=done, requested_primaries=wanted, start_time=start)


def test_it_goes_on_as_it_went_since_the_first_task_began():
    assert estimate_time_left([task(100, minutes_ago=10), task(0), task(0), task(0)], NOW) == timedelta(minutes=30)
    assert estimate_time_left([task(50, minutes_ago=5), task(50, minutes_ago=1)], NOW) == timedelta(minutes=5)


def test_what_cannot_be_known_yet_is_none():
    assert estimate_time_left([], NOW) is None
    assert estimate_time_left([task(0), task(0)], NOW) is None
    assert estimate_time_left([task(1, minutes_ago=10)], NOW) is None
    assert estimate_time_left([task(100, minutes_ago=10)], NOW) is None
    assert estimate_time_left([task(0, 0, minutes_ago=10)], NOW) is None

"""Numbers, times and states as people read them."""

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from yaptide.domain.states import EntityState
from yaptide.services.backend import utc_now
from yaptide.web import rendering


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "0.977 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5 MiB"),
        (3 << 30, "3 GiB"),
        (5000 << 30, "5,000 GiB"),
    ],
)
def test_bytes(number, text):
    assert rendering.format_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-1, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert rendering.format_duration(seconds) == text
    if seconds is not None:
        assert rendering.format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "less than a minute left"), (100, "about 2 min left"), (3600, "about 1 h 0 min left")],
)
def test_what_remains_is_said_roughly(seconds, text):
    assert rendering.format_remaining(timedelta(seconds=seconds)) == text


def test_how_long_a_simulation_takes():
    now = utc_now()
    ended = SimpleNamespace(start_time=now, end_time=now + timedelta(seconds=75))
    assert rendering.format_lasting(ended) == "1 min 15 s"
    for seconds, text in ((5, "< 1 min"), (150, "2 min"), (4000, "1 h 6 min")):
        running = SimpleNamespace(start_time=now - timedelta(seconds=seconds), end_time=None)
        assert rendering.format_lasting(running) == text


def test_times_are_sent_in_utc():
    time = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    expected = '<time datetime="2026-03-01T10:00:00+00:00">2026-03-01 10:00 UTC</time>'
    assert rendering.format_time(time) == expected
    assert rendering.format_time(datetime(2026, 3, 1, 10)) == expected  # noqa: DTZ001 - as SQLite has them
    assert rendering.format_time(datetime(2026, 3, 1, 10, tzinfo=UTC)) == expected
    assert "time" not in rendering.format_time(None)


@pytest.mark.parametrize("state", EntityState)
def test_every_state_has_a_word_and_a_class_of_its_own(state):
    assert rendering.format_state(state).startswith(f'<span class="state {state.lower()}">')
    assert rendering.state_word(str(state)).islower()

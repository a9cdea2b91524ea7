"""What all templates can use: who is signed in, the navigation, and filters for times, states and numbers."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from apiflask import APIFlask
from flask import url_for
from markupsafe import Markup

import yaptide
from yaptide.api.http import get_backend
from yaptide.domain.states import EntityState
from yaptide.domain.units import format_bytes
from yaptide.services.access import is_operator
from yaptide.services.backend import utc_now
from yaptide.services.runners import simulator_title
from yaptide.web import session

#: Address and text of each entry.
_NAVIGATION = (
    ("simulation_pages.list_simulations", "Simulations"),
    ("submission_pages.show_form", "New simulation"),
)
_OF_OPERATORS = (("operator_pages.show_operator", "Operator"),)

_STATES = {
    EntityState.UNKNOWN: "Unknown",
    EntityState.PENDING: "Waiting",
    EntityState.RUNNING: "Running",
    EntityState.CANCELED: "Canceled",
    EntityState.COMPLETED: "Completed",
    EntityState.FAILED: "Failed",
    EntityState.MERGING_QUEUED: "Waiting to merge",
    EntityState.MERGING_RUNNING: "Merging",
}


def prepare(app: APIFlask) -> None:
    """Register the variables and filters."""
    app.context_processor(_variables)
    app.add_template_filter(format_time, "time")
    app.add_template_filter(format_state, "state")
    app.add_template_filter(state_word, "word")
    app.add_template_filter(format_bytes, "bytes")
    app.add_template_filter(format_duration, "duration")
    app.add_template_filter(format_lasting, "lasting")
    app.add_template_filter(format_remaining, "remaining")
    app.add_template_filter(simulator_title, "simulator")


def _variables() -> dict[str, Any]:
    user = session.find_user()
    entries = [*_NAVIGATION, *(_OF_OPERATORS if user and is_operator(get_backend().operators, user) else ())]
    return {
        "page_user": user,
        "navigation": [(url_for(endpoint), text) for endpoint, text in entries],
        "version": yaptide.__version__,
    }


def format_time(time: datetime | None) -> Markup:
    """Return a `<time>` element; `yaptide.js` shows it in the reader's time zone."""
    if time is None:
        return Markup('<span class="muted">-</span>')
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    text = time.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), text)


def format_state(state: EntityState) -> Markup:
    """Return a state as a word with a colour and a sign."""
    return Markup('<span class="state {}">{}</span>').format(str(state).lower(), _STATES[EntityState(state)])


def state_word(state: EntityState) -> str:
    """Return a state as a word within a sentence."""
    return _STATES[EntityState(state)].lower()


def format_duration(time: timedelta | float | None) -> str:
    """Return a duration in its two largest units: `2 h 5 min`. A number is seconds."""
    if time is None:
        return "-"
    seconds = max(0, round(time.total_seconds() if isinstance(time, timedelta) else time))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_value(value: float, error: float | None = None) -> str:
    """Return a number and its standard error with one power of ten, as the scripts write it: `(2.16 ± 0.04)×10⁷`."""
    if not math.isfinite(value):
        return "(no value)"
    is_short = value == 0 or 1e-3 <= abs(value) < 1e6
    exponent = 0 if is_short else math.floor(math.log10(abs(value)))
    text = _format_digits(value / 10.0**exponent, 5)
    if error is not None and math.isfinite(error):
        text += f" ± {_format_digits(error / 10.0**exponent, 2)}"
        text = text if is_short else f"({text})"
    return text if is_short else f"{text}×10{str(exponent).translate(_SUPERSCRIPTS)}"


def _format_digits(number: float, digits: int) -> str:
    """A number with so many significant digits and no exponent, unless it is very small."""
    rounded = float(f"{number:.{digits}g}")
    text = f"{rounded:.15g}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def format_remaining(time: timedelta) -> str:
    """Return how much time is left, in words that do not change all the time."""
    seconds = time.total_seconds()
    if seconds < 60:
        return "less than a minute left"
    return f"about {format_duration(timedelta(minutes=round(seconds / 60)))} left".replace(" 0 s", "")


def format_lasting(row: Any) -> str:
    """Return how long a simulation took, or has taken: that only in minutes, so that it does not always change."""
    if row.end_time is not None:
        return format_duration(row.end_time - row.start_time)
    seconds = (utc_now() - row.start_time).total_seconds()
    return format_duration(seconds // 60 * 60).removesuffix(" 0 s") if seconds >= 60 else "< 1 min"

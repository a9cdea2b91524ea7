"""What all templates can use: who is signed in, the navigation, and filters for times, states and numbers."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from apiflask import APIFlask
from flask import url_for
from markupsafe import Markup

import yaptide
from yaptide.domain.states import EntityState
from yaptide.web import session

#: Address and text of each entry.
_NAVIGATION = (("simulation_pages.list_simulations", "Simulations"),)

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
    app.add_template_filter(format_bytes, "bytes")
    app.add_template_filter(format_duration, "duration")


def _variables() -> dict[str, Any]:
    return {
        "page_user": session.find_user(),
        "navigation": [(url_for(endpoint), text) for endpoint, text in _NAVIGATION],
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


def format_bytes(number: int) -> str:
    """Return a number of bytes in a unit that people read: `1.5 MiB`."""
    size, units = float(number), ("bytes", "KiB", "MiB", "GiB")
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.3g} {units[0]}" if size < 1000 else f"{size:,.0f} {units[0]}"


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

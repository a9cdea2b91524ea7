"""What all templates can use: who is signed in, the navigation, and filters for times, states and numbers."""

from datetime import UTC, datetime
from typing import Any

from apiflask import APIFlask
from flask import url_for
from markupsafe import Markup

import yaptide
from yaptide.api.http import get_backend
from yaptide.domain.states import EntityState
from yaptide.services.access import is_operator
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

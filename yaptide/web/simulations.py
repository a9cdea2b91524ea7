"""The list of simulations: search, sort, page, cancel and delete several at once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from flask import flash, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from yaptide.api.http import get_backend
from yaptide.domain.errors import YaptideError
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.services import simulations
from yaptide.services.users import User
from yaptide.web import errors, parts, session
from yaptide.web.blueprints import new_blueprint

blueprint = new_blueprint("simulation_pages", __name__)

#: Filters by state: name in the address, label, and states (none: all).
STATES: Mapping[str, tuple[str, tuple[EntityState, ...]]] = {
    "": ("All states", ()),
    "open": ("Waiting or running", tuple(sorted(set(EntityState) - FINAL_STATES))),
    "completed": ("Completed", (EntityState.COMPLETED,)),
    "failed": ("Failed", (EntityState.FAILED,)),
    "canceled": ("Canceled", (EntityState.CANCELED,)),
}
SIZES = (20, 50, 100)
_MAX_NUMBER = 10**6
_MAX_TITLE = 200


@dataclass(frozen=True, slots=True)
class Query:
    """The query of the list; invalid values fall back to the defaults."""

    title: str = ""
    state: str = ""
    sort: str = "start_time"
    order: str = "descend"
    size: int = SIZES[0]
    page: int = 1

    @classmethod
    def read(cls, given: Mapping[str, str]) -> "Query":
        """Read a query."""
        size, page = given.get("size", ""), given.get("page", "")
        return cls(
            given.get("title", "").replace("\0", "").strip()[:_MAX_TITLE],
            given.get("state", "") if given.get("state") in STATES else "",
            "end_time" if given.get("sort") == "end_time" else "start_time",
            "ascend" if given.get("order") == "ascend" else "descend",
            int(size) if size in map(str, SIZES) else SIZES[0],
            min(max(int(page), 1), _MAX_NUMBER) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
        )

    def address(self, **changes: Any) -> str:
        """Return the address of the list for this query with `changes`, in its shortest form."""
        plain, changed = asdict(Query()), asdict(replace(self, **changes))
        return url_for(
            "simulation_pages.list_simulations",
            **{name: value for name, value in changed.items() if value != plain[name]},
        )

    def find(self, user: User) -> simulations.Listed:
        """Return the page of simulations."""
        states = STATES[self.state][1]
        page = simulations.Page(self.page, self.size, self.sort, self.order == "descend", states, self.title)
        return simulations.list_simulations(get_backend(), user, page)


@blueprint.get("/simulations")
def list_simulations() -> ResponseReturnValue:
    """List the simulations of the user; htmx gets only the rows, or 204 if they have not changed."""
    user, query = session.require_user(), Query.read(request.args)
    rows = _render_rows(user, query)
    if session.is_htmx():
        return parts.answer_part(rows)
    return render_template("simulations.html", query=query, rows=rows, states=STATES, sizes=SIZES)


def _render_rows(user: User, query: Query) -> Markup:
    listed = query.find(user)
    is_live = any(row.job_state not in FINAL_STATES for row in listed.rows)
    return parts.render_part(
        "simulation_rows.html",
        query=query,
        listed=listed,
        progress=simulations.measure_progress(get_backend(), listed),
        last_page=max(1, -(-listed.total // query.size)),
        is_live=is_live,
    )


_DONE = {"cancel": "canceled", "delete": "deleted"}


@blueprint.post("/simulations/act")
def act_on_many() -> ResponseReturnValue:
    """Cancel or delete the chosen simulations separately, and report the outcome of each."""
    user, form = session.require_user(), request.form
    act = simulations.delete_simulation if form.get("action") == "delete" else simulations.cancel_simulation
    chosen = list(dict.fromkeys(form.getlist("job_id")))[: SIZES[-1]]
    outcomes = Counter(_outcome(act, user, job_id) for job_id in chosen)
    done = outcomes.pop("", 0)
    if done:
        flash(f"{_count(done)} {_DONE['delete' if act is simulations.delete_simulation else 'cancel']}", "success")
    for reason, number in outcomes.items():
        flash(f"{_count(number)} left as they are: {reason}" if number > 1 else reason, "warning")
    if not chosen:
        flash("Choose simulations first, by the boxes in front of them", "warning")
    return session.redirect_to(Query.read(dict(parse_qsl(form.get("query", "")))).address())


def _outcome(act: Any, user: User, job_id: str) -> str:
    """Do it; return why it could not be done, or nothing."""
    try:
        state = act(get_backend(), user, job_id)
    except YaptideError as error:
        return errors.words_of(str(error))
    return "" if state is None else refusal(act is simulations.delete_simulation, state)


def refusal(is_deletion: bool, state: EntityState) -> str:
    """Return why a simulation in `state` cannot be deleted, or canceled, in a sentence."""
    if is_deletion:
        return "A simulation that has not ended cannot be deleted: cancel it first"
    if state in FINAL_STATES:
        return "A simulation that has ended cannot be canceled"
    return "A simulation that is being submitted to its cluster cannot be canceled yet: try again shortly"


def _count(number: int) -> str:
    return "1 simulation" if number == 1 else f"{number} simulations"

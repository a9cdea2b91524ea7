"""The pages of one simulation: state, input, log files and history."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response, flash, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from yaptide.api.http import get_backend
from yaptide.domain.errors import NotFound
from yaptide.domain.estimators import RefusedPage
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.services import batch, logfiles, results, simulations
from yaptide.services.backend import utc_now
from yaptide.services.simulations import Status
from yaptide.services.users import User
from yaptide.web import parts, session
from yaptide.web.blueprints import new_blueprint
from yaptide.web.simulations import refusal

blueprint = new_blueprint("detail_pages", __name__)

#: Tasks that are drawn, and that are listed; of more, those that have not completed come first.
MOST_TASKS, MOST_ROWS = 1000, 200
#: Changes of state that are shown, the newest ones.
MOST_CHANGES = 1000
#: Characters of a file that are shown; all of it can be downloaded.
MOST_SHOWN = 200_000
_PROJECT = "project.json"
#: Routes of the API with documents to download.
_DOCUMENTS = {"results": "results.get_results", "input": "simulations.read_input", "history": "simulations.get_history"}


@blueprint.get("/simulations/<job_id>")
def show_simulation(job_id: str) -> ResponseReturnValue:
    """Show the state of a simulation; htmx gets only the live part, or 204 if it has not changed."""
    user, backend = session.require_user(), get_backend()
    status = simulations.read_status(backend, user, job_id)
    live = _render_live(user, job_id, status)
    if session.is_htmx():
        return parts.answer_part(live)
    return _page("simulation.html", job_id, status.simulation, live=live)


def _render_live(user: User, job_id: str, status: Status) -> Markup:
    backend, row, tasks = get_backend(), status.simulation, status.tasks
    has_ended = row.job_state in FINAL_STATES
    done, wanted = sum(task.simulated_primaries for task in tasks), sum(task.requested_primaries for task in tasks)
    states = Counter(task.task_state for task in tasks)
    shown = tasks if len(tasks) <= MOST_TASKS else sorted(tasks, key=_is_completed)[:MOST_TASKS]
    queue = batch.waiting_tasks(backend, job_id) if row.platform == "BATCH" and not has_ended else None
    waiting = status.waiting if status.waiting and status.waiting not in (queue or "") else None
    return parts.render_part(
        "simulation_live.html",
        job_id=job_id,
        simulation=row,
        reason=simulations.last_reason(backend, user, job_id) if has_ended else waiting,
        queue=queue,
        input_digest=simulations.read_input_digest(backend, user, job_id),
        is_late=has_ended and session.is_htmx(),
        refused=[RefusedPage(**page) for page in orjson.loads(row.refused_pages or "[]")],
        has_ended=has_ended,
        has_results=has_ended and _has_results(user, job_id),
        tasks=shown,
        cell=_cell(len(shown)),
        most_rows=MOST_ROWS,
        task_count=len(tasks),
        states=states,
        failures=simulations.read_failures(backend, user, job_id) if states[EntityState.FAILED] else {},
        primaries=(done, wanted),
        left=None if row.job_state != EntityState.RUNNING else simulations.estimate_time_left(tasks, utc_now()),
    )


def _cell(count: int) -> int:
    """Return how many pixels a task is wide in the picture: the fewer tasks, the wider."""
    return 26 if count <= 40 else 13


def _is_completed(task: Any) -> bool:
    return bool(task.task_state == EntityState.COMPLETED)


def _has_results(user: User, job_id: str) -> bool:
    try:
        return bool(results.pages_metadata(get_backend(), user, job_id))
    except NotFound:
        return False


def _page(template: str, job_id: str, simulation: Any, **variables: Any) -> str:
    """Render a page of a simulation, which has the links to the others."""
    return render_template(template, job_id=job_id, simulation=simulation, **variables)


@blueprint.post("/simulations/<job_id>/cancel")
def cancel_simulation(job_id: str) -> ResponseReturnValue:
    """Cancel a simulation."""
    state = simulations.cancel_simulation(get_backend(), session.require_user(), job_id)
    if state is not None:
        flash(refusal(False, state), "warning")
    return session.redirect_to(url_for("detail_pages.show_simulation", job_id=job_id))


@blueprint.post("/simulations/<job_id>/delete")
def delete_simulation(job_id: str) -> ResponseReturnValue:
    """Delete a simulation that has ended, with everything about it."""
    state = simulations.delete_simulation(get_backend(), session.require_user(), job_id)
    if state is not None:
        flash(refusal(True, state), "warning")
        return session.redirect_to(url_for("detail_pages.show_simulation", job_id=job_id))
    flash("1 simulation deleted", "success")
    return session.redirect_to(url_for("simulation_pages.list_simulations"))


@blueprint.get("/simulations/<job_id>/input")
def show_input(job_id: str) -> ResponseReturnValue:
    """Show the input files, or the project with the parts of it that are not simulated."""
    user = session.require_user()
    status = simulations.read_status(get_backend(), user, job_id)
    document = simulations.read_input_document(get_backend(), user, job_id)
    files = _input_files(document)
    return _page(
        "input.html", job_id, status.simulation, files=files, left_out=document.get("left_out"), most=MOST_SHOWN
    )


def _input_files(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the input files of a stored input, name to text; a project of the editor is one of them."""
    files = {str(name): str(text) for name, text in (document.get("input_files") or {}).items()}
    if document.get("input_json") is not None:
        files.setdefault(_PROJECT, json.dumps(document["input_json"], indent=2, ensure_ascii=False))
    return files


@blueprint.get("/simulations/<job_id>/input/file")
def download_input(job_id: str) -> ResponseReturnValue:
    """Download the input file whose `name` is in the query."""
    document = simulations.read_input_document(get_backend(), session.require_user(), job_id)
    return _download(_input_files(document))


@blueprint.get("/simulations/<job_id>/logs")
def show_logfiles(job_id: str) -> ResponseReturnValue:
    """Show the log files that have arrived."""
    user = session.require_user()
    status = simulations.read_status(get_backend(), user, job_id)
    return _page("logs.html", job_id, status.simulation, files=_read_logfiles(user, job_id), most=MOST_SHOWN)


def _read_logfiles(user: User, job_id: str) -> dict[str, str]:
    """Return the log files, sorted by name; there may be none."""
    simulations.read_status(get_backend(), user, job_id)
    try:
        return dict(sorted(logfiles.read_logfiles(get_backend(), user, job_id).items()))
    except NotFound:
        return {}


@blueprint.get("/simulations/<job_id>/logs/file")
def download_logfile(job_id: str) -> ResponseReturnValue:
    """Download the log file whose `name` is in the query."""
    return _download(_read_logfiles(session.require_user(), job_id))


def _download(files: Mapping[str, str]) -> Response:
    name = request.args.get("name", "")
    if name not in files:
        raise NotFound(f"There is no file of the name {name[:100]!r}")
    response = Response(files[name], mimetype="text/plain")
    response.headers.set("Content-Disposition", "attachment", filename=name.rpartition("/")[2] or "file.txt")
    return response


@blueprint.get("/simulations/<job_id>/history")
def show_history(job_id: str) -> ResponseReturnValue:
    """Show the transitions of the simulation and its tasks, newest first."""
    user, backend = session.require_user(), get_backend()
    status = simulations.read_status(backend, user, job_id)
    changes = simulations.read_history(backend, user, job_id, MOST_CHANGES + 1)[::-1]
    return _page("history.html", job_id, status.simulation, changes=changes, most=MOST_CHANGES)


@blueprint.get("/simulations/<job_id>/download/<what>")
def download_document(job_id: str, what: str) -> ResponseReturnValue:
    """Lead to a JSON document of the API; on the way, an access token that has expired is renewed."""
    simulations.read_status(get_backend(), session.require_user(), job_id)
    if what not in _DOCUMENTS:
        raise NotFound("There is no page at this address")
    return session.redirect_to(url_for(_DOCUMENTS[what], job_id=job_id, values=1 if what == "results" else None))

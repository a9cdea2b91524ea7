"""A new simulation: choose its input, check it and see it, submit it."""

import secrets
from dataclasses import dataclass

from flask import Response, current_app, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from yaptide.api import errors as api_errors
from yaptide.api.http import get_backend
from yaptide.domain.errors import Forbidden, InvalidInput, YaptideError
from yaptide.services import checks, clusters, conversion, examples, input_upload, simulations, submission_keys
from yaptide.services.access import may_use_clusters
from yaptide.services.checks import Place
from yaptide.services.input_upload import Received, Upload
from yaptide.services.simulations import Preview, Submission, Submitted
from yaptide.services.slices import slice_submission
from yaptide.services.users import User
from yaptide.web import session
from yaptide.web.blueprints import new_blueprint
from yaptide.web.pictures import Picture, draw_slice

blueprint = new_blueprint("submission_pages", __name__)

#: Names of the two inputs for files: single ones or an archive, and a folder.
_FILES = ("files", "folder")
_HERE = ""
_LONGEST_KEY = 100


@dataclass(frozen=True, slots=True)
class Checkup:
    """What a check has found: what was received, and what it would become, or the `problem` and where it is."""

    received: Received | None = None
    preview: Preview | None = None
    picture: Picture | None = None
    problem: str | None = None
    place: Place | None = None
    status: int = 200


@blueprint.get("/new")
def show_form() -> ResponseReturnValue:
    """Show the form for a new simulation."""
    return _show_page(session.require_user())


@blueprint.post("/new/check")
def check_input() -> ResponseReturnValue:
    """Check an input as submitting it does, and show what it would become; nothing is stored."""
    user = session.require_user()
    checkup = _check(user)
    if session.is_htmx():
        return render_template("checkup.html", checkup=checkup)
    return _show_page(user, checkup), checkup.status


@blueprint.post("/new")
def submit() -> ResponseReturnValue:
    """Submit a simulation and show it, or what keeps it from being submitted."""
    user, given = session.require_user(), None
    try:
        given = _receive()
        submitted = _submit_once(user, _submission(user, given))
    except YaptideError as error:
        checkup = _explain(error, given)
        if session.is_htmx():
            return render_template("checkup.html", checkup=checkup)
        return _show_page(user, checkup), checkup.status
    return _go_to(submitted.job_id)


@blueprint.post("/new/example")
def run_example() -> ResponseReturnValue:
    """Submit the example and show it."""
    return _go_to(_submit_once(session.require_user(), examples.example_submission()).job_id)


def _submit_once(user: User, submission: Submission) -> Submitted:
    """Submit what a form asks for: the same form sent again with the same content gets the same simulation."""
    backend, form_key = get_backend(), request.form.get("form_key", "")[:_LONGEST_KEY]
    if not form_key:
        return simulations.submit_simulation(backend, user, submission)
    key = submission_keys.make_key(form_key, submission.content)
    return simulations.submit_simulation(backend, user, submission, f"{key.key}-{key.content_sha256}")


def _go_to(job_id: str) -> Response:
    """Show a simulation. htmx follows redirects by itself, and would put the page into a part of this one."""
    address = url_for("detail_pages.show_simulation", job_id=job_id)
    if session.is_htmx():
        return Response(status=204, headers={"HX-Redirect": address})
    return session.redirect_to(address)


def _show_page(user: User, checkup: Checkup | None = None) -> str:
    backend = get_backend()
    everything = simulations.Page(1, 1, "start_time", True, ())
    return render_template(
        "new.html",
        checkup=checkup,
        form=request.form or MultiDict(),
        is_first=simulations.list_simulations(backend, user, everything).total == 0,
        example=examples.EXAMPLE.name,
        simulators=conversion.list_titles(),
        clusters=clusters.list_names(backend) if may_use_clusters(user) else [],
        most_tasks=backend.limits.tasks,
        most_mib=current_app.config["MAX_CONTENT_LENGTH"] // 2**20,
        check_address=url_for(".check_input"),
        form_key=secrets.token_urlsafe(16),
    )


def _check(user: User) -> Checkup:
    given = None
    try:
        given = _receive()
        submission = _submission(user, given)
        preview = simulations.preview_submission(get_backend(), user, submission)
    except YaptideError as error:
        return _explain(error, given)
    geometry = slice_submission(submission, preview.sim_type)
    return Checkup(given, preview, None if geometry is None else draw_slice(geometry))


def _explain(error: YaptideError, given: Received | None) -> Checkup:
    """Return what is wrong with an input, in the words of the API, and the line that it is about."""
    answer = api_errors.refuse(error)
    message = answer.get_json()["message"]
    place = checks.find_place(message, given.files) if given else None
    return Checkup(given, problem=message, place=place, status=answer.status_code)


def _receive() -> Received:
    """Return the input in the form; raises InvalidInput."""
    files = [file for name in _FILES for file in request.files.getlist(name) if file.filename]
    uploads = [Upload(file.filename or "", file.read()) for file in files]
    return input_upload.read_uploads(uploads, current_app.config["MAX_CONTENT_LENGTH"])


def _submission(user: User, given: Received) -> Submission:
    """Return what the form asks for; raises InvalidInput, Forbidden."""
    form = request.form
    where = form.get("where", _HERE)
    if where != _HERE and not may_use_clusters(user):
        raise Forbidden("Only users who sign in through Keycloak can use clusters")
    return Submission(
        form.get("sim_type", conversion.COMMON),
        _tasks(form.get("ntasks", "")),
        form.get("title", "").strip() or given.title.replace("\0", "")[: simulations.MAX_TITLE] or "Untitled",
        given.files,
        given.project,
        None if where == _HERE else {"cluster_name": where},
    )


def _tasks(text: str) -> int | None:
    """The number of tasks asked for, None for an empty field; raises InvalidInput."""
    text = text.strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9:
        raise InvalidInput("The number of tasks is a whole number, or empty")
    return int(text)

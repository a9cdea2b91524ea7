"""Routes for simulations: submit, follow, cancel, list, delete; input, history and log files."""

import html
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import orjson
from apiflask import APIBlueprint
from flask import Response, request

from yaptide import logs
from yaptide.api import openapi, schemas
from yaptide.api.http import get_backend, get_reader, get_user, http_date, json_response, stitched_response
from yaptide.domain.errors import Forbidden, InvalidInput
from yaptide.domain.states import EntityState
from yaptide.services import checks, conversion, logfiles, simulations, summaries, watching
from yaptide.services.access import may_use_clusters

blueprint = APIBlueprint("simulations", __name__, tag="Simulations")


@blueprint.post("/jobs/direct")
@blueprint.input(schemas.Project, location="json")
@blueprint.output(schemas.Submitted, status_code=202)
def submit_direct(json_data: schemas.Project) -> Response:
    """Submit a simulation to the executor or workers of the server."""
    return _submit(_submission(json_data))


@blueprint.post("/jobs/batch")
@blueprint.input(schemas.Project, location="json")
@blueprint.output(schemas.Submitted, status_code=202)
def submit_batch(json_data: schemas.Project) -> Response:
    """Submit a simulation to a cluster."""
    if not may_use_clusters(get_user()):
        raise Forbidden("User is not allowed to use this endpoint")
    return _submit(replace(_submission(json_data), batch=json_data.batch_options or {}))


def _submit(submission: simulations.Submission) -> Response:
    key = request.headers.get(openapi.IDEMPOTENCY_KEY)
    submitted = simulations.submit_simulation(get_backend(), get_user(), submission, key)
    logs.bind_log_context(job_id=submitted.job_id)
    document: dict[str, Any] = {"message": "Job started", "job_id": submitted.job_id, "sim_type": submitted.sim_type}
    if submitted.left_out:
        document["left_out"] = submitted.left_out
    return json_response(document, 202)


@blueprint.post("/check")
@blueprint.input(schemas.ProjectToCheck, location="json")
@blueprint.output(schemas.CheckedInput)
def check_input(json_data: schemas.ProjectToCheck) -> Response:
    """Check an input as `POST /jobs/direct` does, with the same body. Nothing is stored.

    Responds 200 also for an input with problems; `is_valid` tells which it is.
    """
    checkup = checks.check_submission(get_backend(), get_user(), _submission(json_data))
    return json_response({"message": "Input checked", **checkup.describe()})


@blueprint.post("/convert")
@blueprint.input(schemas.ProjectToConvert, location="json")
@blueprint.output(schemas.ConvertedProject)
def convert_project_json(json_data: schemas.ProjectToConvert) -> Response:
    """Convert a project of the web editor to input files of a simulator. Nothing is stored."""
    get_user()
    conversion_result = conversion.convert_project(json_data.input_json, json_data.sim_type)
    document = {"message": "Project converted", "sim_type": json_data.sim_type, "input_files": conversion_result.files}
    return json_response(
        {**document, "resolution": conversion_result.resolution, "left_out": conversion_result.left_out}
    )


def _submission(project: schemas.Project | schemas.ProjectToCheck) -> simulations.Submission:
    name = "input_json" if project.input_type == "editor" else "input_files"
    content = getattr(project, name)
    if content is None:
        raise InvalidInput(f"input_type {project.input_type} needs {name}")
    return simulations.Submission(project.sim_type, project.ntasks, project.title, **{name: content})


@blueprint.get("/jobs")
@blueprint.get("/jobs/direct")
@blueprint.get("/jobs/batch")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.JobStatus)
def get_status(query: schemas.JobQuery) -> Response:
    """Show the state of a simulation and its tasks."""
    user, status = simulations.poll_status(get_backend(), get_reader(), query.job_id)
    logs.bind_log_context(user=user.username)
    state = status.simulation.job_state
    tasks = [_task(task) for task in status.tasks]
    document = {"message": f"Job state: {state}", "job_state": state, "job_tasks_status": tasks}
    if status.waiting is not None:
        document["waiting"] = status.waiting
    if status.simulation.refused_pages is not None:
        document["refused"] = orjson.loads(status.simulation.refused_pages)
    return json_response(document)


@blueprint.get("/watch")
@blueprint.input(schemas.Watching, location="query", arg_name="query")
@blueprint.output(schemas.WatchedSimulations)
@blueprint.doc(responses={304: "Nothing has changed since the response with this ETag"})
def watch_simulations(query: schemas.Watching) -> Response:
    """Show the progress of several simulations. With `If-None-Match`, responds 304 if nothing has changed."""
    job_ids = list(dict.fromkeys(filter(None, query.job_id.split(","))))
    if not 1 <= len(job_ids) <= schemas.MOST_WATCHED:
        raise InvalidInput(f"job_id: give 1 to {schemas.MOST_WATCHED} identifiers, separated by commas")
    watched = watching.watch_simulations(get_backend(), get_user(), job_ids)
    rows = [{name: value for name, value in asdict(one).items() if value is not None} for one in watched]
    response = json_response({"message": "Simulations", "simulations": rows})
    response.add_etag()
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response


@blueprint.get("/jobs/summary")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Summary)
def summarize_simulation(query: schemas.JobQuery) -> Response:
    """Summarize a simulation and its tasks, as `yaptide status --json` does, but without the range."""
    summary = summaries.summarize_simulation(get_backend(), get_user(), query.job_id)
    return json_response({"message": "Summary", **summary})


@blueprint.get("/jobs/list")
@blueprint.input(schemas.SummaryListing, location="query", arg_name="query")
@blueprint.output(schemas.Summaries)
def list_summaries(query: schemas.SummaryListing) -> Response:
    """List the user's simulations, newest first, as `yaptide list --json` does."""
    page = simulations.Page(query.page, query.page_size, title=query.title)
    return json_response({"message": "Simulations", **summaries.list_simulations(get_backend(), get_user(), page)})


def _task(task: Any) -> dict[str, Any]:
    # There may be 10,000 tasks: unpacking the row at once is faster than a loop over its fields.
    number, state, requested, simulated, start, end, update, seconds_left = task
    document = {
        "task_id": number,
        "task_state": state,
        "requested_primaries": requested,
        "simulated_primaries": simulated,
    }
    if start is not None:
        document["start_time"] = http_date(start)
    if end is not None:
        document["end_time"] = http_date(end)
    if update is not None:
        document["last_update_time"] = http_date(update)
    if seconds_left is not None:
        minutes, seconds = divmod(seconds_left, 60)
        hours, minutes = divmod(minutes, 60)
        document["estimated_time"] = {"hours": hours, "minutes": minutes, "seconds": seconds}
    return document


@blueprint.delete("/jobs")
@blueprint.delete("/jobs/direct")
@blueprint.delete("/jobs/batch")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Message)
def cancel_simulation(query: schemas.JobQuery) -> Response:
    """Cancel a simulation. A finished simulation stays as it is."""
    ended = simulations.cancel_simulation(get_backend(), get_user(), query.job_id)
    return json_response({"message": f"Cannot cancel job which is in {ended} state" if ended else "Job canceled"})


@blueprint.post("/jobs")
@blueprint.input(schemas.SimulationReport, location="json")
@blueprint.output(schemas.Reported, status_code=202)
@blueprint.doc(tags=["Workers"])
def report_simulation(json_data: schemas.SimulationReport) -> Response:
    """Store a worker's report on a simulation, sent with its update key."""
    batch = json_data.model_dump(include={"job_dir", "array_id", "collect_id"}, exclude_none=True)
    report = simulations.Report(json_data.job_state, json_data.end_time, json_data.log, batch)
    state = simulations.report_simulation(get_backend(), json_data.sim_id, json_data.update_key, report)
    return json_response({"message": "Job updated", "job_state": state}, 202)


@blueprint.get("/jobs/history")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.History)
def get_history(query: schemas.JobQuery) -> Response:
    """List every change of state: when, by whom, and why."""
    rows = summaries.list_history(get_backend(), get_user(), query.job_id)
    changes = [
        {**row, "time": http_date(datetime.fromisoformat(row["time"])), "exact_time": row["time"]} for row in rows
    ]
    return json_response({"message": "Job history", "history": changes})


@blueprint.get("/jobs/key")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.UpdateKey)
def read_update_key(query: schemas.JobQuery) -> Response:
    """Return the update key of a simulation, for external workers; see docs/workers.md."""
    number, key = simulations.read_update_key(get_backend(), get_user(), query.job_id)
    return json_response({"message": "Anyone with this key can report", "simulation_id": number, "update_key": key})


@blueprint.get("/user/simulations")
@blueprint.input(schemas.Listing, location="query", arg_name="query")
@blueprint.output(schemas.Simulations)
def list_simulations(query: schemas.Listing) -> Response:
    """List the user's simulations, one page at a time."""
    states = tuple(_state(name) for name in query.job_state.split(",") if name)
    descending = query.order_type == "descend"
    page = simulations.Page(query.page_idx, query.page_size, query.order_by, descending, states, query.title)
    listing = simulations.list_simulations(get_backend(), get_user(), page)
    return json_response(
        {
            "message": "User simulations",
            "page_count": -(-listing.total // page.size),
            "simulations_count": listing.total,
            "simulations": [_item(row, listing.waiting.get(row.job_id)) for row in listing.rows],
        }
    )


def _state(name: str) -> EntityState:
    if name not in EntityState.__members__:
        raise InvalidInput(f"job_state: unknown state {name[:40]!r}; use {', '.join(EntityState)}")
    return EntityState(name)


def _item(row: Any, waiting: str | None) -> dict[str, Any]:
    # In the front end every key of an item overrides the status, so no key may be added here. Metadata is only
    # displayed.
    metadata = {
        "platform": row.platform,
        "server": "Yaptide",
        "input_type": row.input_type,
        "sim_type": row.sim_type,
    }
    if waiting is not None:
        metadata["waiting"] = waiting
    return {
        "job_id": row.job_id,
        "title": row.title,
        "start_time": http_date(row.start_time),
        "end_time": http_date(row.end_time),
        "metadata": metadata,
    }


@blueprint.delete("/user/simulations")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Message)
def delete_simulation(query: schemas.JobQuery) -> Response:
    """Delete a simulation with all its data. Cancel a running one first."""
    state = simulations.delete_simulation(get_backend(), get_user(), query.job_id)
    if state is not None:
        raise Forbidden(f"Cannot delete job which is in {state} state")
    return json_response({"message": "Simulation deleted"})


@blueprint.get("/inputs")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Input)
def read_input(query: schemas.JobQuery) -> Response:
    """Return the submitted input."""
    stored = simulations.read_input(get_backend(), get_user(), query.job_id)
    return stitched_response([b'{"message":"Input of the job","input":', stored, b"}"])


@blueprint.get("/logfiles")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.LogfilesAnswer)
def read_logfiles(query: schemas.JobQuery) -> Response:
    """Return the log files. Markup is escaped, because the front end inserts them into a page as they are."""
    texts = logfiles.read_logfiles(get_backend(), get_user(), query.job_id)
    escaped = {html.escape(name, quote=False): html.escape(text, quote=False) for name, text in texts.items()}
    return json_response({"message": "Logfiles", "logfiles": escaped})


@blueprint.post("/logfiles")
@blueprint.input(schemas.Logfiles, location="json")
@blueprint.output(schemas.Message, status_code=202)
@blueprint.doc(tags=["Workers"])
def post_logfiles(json_data: schemas.Logfiles) -> Response:
    """Store log files that a worker sends with its update key."""
    logfiles.post_logfiles(get_backend(), json_data.simulation_id, json_data.update_key, json_data.logfiles)
    return json_response({"message": "Log files saved"}, 202)

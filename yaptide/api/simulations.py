"""Simulations: submit, follow, cancel, list, delete; their input, history and log files."""

import html
from dataclasses import replace
from typing import Any

import orjson
from apiflask import APIBlueprint
from flask import Response

from yaptide import logs
from yaptide.api import schemas
from yaptide.api.http import access_token, get_backend, get_user, http_date, json_response, stitched_response
from yaptide.domain.errors import Forbidden, InvalidInput
from yaptide.domain.states import EntityState
from yaptide.services import conversion, logfiles, simulations

blueprint = APIBlueprint("simulations", __name__, tag="Simulations")


@blueprint.post("/jobs/direct")
@blueprint.input(schemas.Project, location="json")
@blueprint.output(schemas.Submitted, status_code=202)
def submit_direct(json_data: schemas.Project) -> Response:
    """Submit a simulation to the server's own workers."""
    return _started(simulations.submit_simulation(get_backend(), get_user(), _submission(json_data)))


@blueprint.post("/jobs/batch")
@blueprint.input(schemas.Project, location="json")
@blueprint.output(schemas.Submitted, status_code=202)
def submit_batch(json_data: schemas.Project) -> Response:
    """Submit a simulation to a cluster."""
    if not get_user().is_keycloak:
        raise Forbidden("User is not allowed to use this endpoint")
    submission = replace(_submission(json_data), batch=json_data.batch_options or {})
    return _started(simulations.submit_simulation(get_backend(), get_user(), submission))


def _started(submitted: simulations.Submitted) -> Response:
    logs.bind_log_context(job_id=submitted.job_id)
    document: dict[str, Any] = {"message": "Job started", "job_id": submitted.job_id, "sim_type": submitted.sim_type}
    if submitted.left_out:
        document["left_out"] = submitted.left_out
    return json_response(document, 202)


@blueprint.post("/convert")
@blueprint.input(schemas.ProjectToConvert, location="json")
@blueprint.output(schemas.ConvertedProject)
def convert_project_json(json_data: schemas.ProjectToConvert) -> Response:
    """A project of the web editor as input files of a simulator; nothing is stored."""
    get_user()
    made = conversion.convert_project(json_data.input_json, json_data.sim_type)
    document = {"message": "Project converted", "sim_type": json_data.sim_type, "input_files": made.files}
    return json_response({**document, "resolution": made.resolution, "left_out": made.left_out})


def _submission(project: schemas.Project) -> simulations.Submission:
    name = "input_json" if project.input_type == "editor" else "input_files"
    given = getattr(project, name)
    if given is None:
        raise InvalidInput(f"input_type {project.input_type} needs {name}")
    return simulations.Submission(project.sim_type, project.ntasks, project.title, **{name: given})


@blueprint.get("/jobs")
@blueprint.get("/jobs/direct")
@blueprint.get("/jobs/batch")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.JobStatus)
def get_status(query: schemas.JobQuery) -> Response:
    """How a simulation and its tasks stand."""
    asking, found = simulations.poll_status(get_backend(), access_token(), query.job_id)
    logs.bind_log_context(user=asking.username)
    state = found.simulation.job_state
    tasks = [_task(task) for task in found.tasks]
    document = {"message": f"Job state: {state}", "job_state": state, "job_tasks_status": tasks}
    if found.waiting is not None:
        document["waiting"] = found.waiting
    if found.simulation.refused_pages is not None:
        document["refused"] = orjson.loads(found.simulation.refused_pages)
    return json_response(document)


def _task(task: Any) -> dict[str, Any]:
    # There may be 10,000: a row is taken apart at once, and nothing is looped over.
    number, state, requested, simulated, start, end, update, left = task
    found = {
        "task_id": number,
        "task_state": state,
        "requested_primaries": requested,
        "simulated_primaries": simulated,
    }
    if start is not None:
        found["start_time"] = http_date(start)
    if end is not None:
        found["end_time"] = http_date(end)
    if update is not None:
        found["last_update_time"] = http_date(update)
    if left is not None:
        minutes, seconds = divmod(left, 60)
        hours, minutes = divmod(minutes, 60)
        found["estimated_time"] = {"hours": hours, "minutes": minutes, "seconds": seconds}
    return found


@blueprint.delete("/jobs")
@blueprint.delete("/jobs/direct")
@blueprint.delete("/jobs/batch")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Message)
def cancel_simulation(query: schemas.JobQuery) -> Response:
    """Cancel a simulation; one that has ended stays as it is."""
    ended = simulations.cancel_simulation(get_backend(), get_user(), query.job_id)
    return json_response({"message": f"Cannot cancel job which is in {ended} state" if ended else "Job canceled"})


@blueprint.post("/jobs")
@blueprint.input(schemas.SimulationReport, location="json")
@blueprint.output(schemas.Reported, status_code=202)
@blueprint.doc(tags=["Workers"])
def report_simulation(json_data: schemas.SimulationReport) -> Response:
    """What a worker says of a simulation, with its update key."""
    batch = json_data.model_dump(include={"job_dir", "array_id", "collect_id"}, exclude_none=True)
    told = simulations.Report(json_data.job_state, json_data.end_time, json_data.log, batch)
    state = simulations.report_simulation(get_backend(), json_data.sim_id, json_data.update_key, told)
    return json_response({"message": "Job updated", "job_state": state}, 202)


@blueprint.get("/jobs/history")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.History)
def get_history(query: schemas.JobQuery) -> Response:
    """Every change of state: when, who, why."""
    rows = simulations.read_history(get_backend(), get_user(), query.job_id)
    changes = [{**row._mapping, "time": http_date(row.time)} for row in rows]
    return json_response({"message": "Job history", "history": changes})


@blueprint.get("/jobs/key")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.UpdateKey)
def read_update_key(query: schemas.JobQuery) -> Response:
    """The key with which workers of others report about a simulation, for its owner; see docs/workers.md."""
    number, key = simulations.read_update_key(get_backend(), get_user(), query.job_id)
    return json_response({"message": "Whoever has this key can report", "simulation_id": number, "update_key": key})


@blueprint.get("/user/simulations")
@blueprint.input(schemas.Listing, location="query", arg_name="query")
@blueprint.output(schemas.Simulations)
def list_simulations(query: schemas.Listing) -> Response:
    """A page of the user's simulations."""
    states = tuple(_state(name) for name in query.job_state.split(",") if name)
    descending = query.order_type == "descend"
    page = simulations.Page(query.page_idx, query.page_size, query.order_by, descending, states, query.title)
    found = simulations.list_simulations(get_backend(), get_user(), page)
    return json_response(
        {
            "message": "User simulations",
            "page_count": -(-found.total // page.size),
            "simulations_count": found.total,
            "simulations": [_item(row, found.waiting.get(row.job_id)) for row in found.rows],
        }
    )


def _state(name: str) -> EntityState:
    if name not in EntityState.__members__:
        raise InvalidInput(f"job_state: {name[:40]!r} is no state")
    return EntityState(name)


def _item(row: Any, waiting: str | None) -> dict[str, Any]:
    # The front end lets every key of an item win over the status: nothing may be added here. Metadata it only shows.
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
    """Delete a simulation with everything about it; a running one has to be canceled first."""
    state = simulations.delete_simulation(get_backend(), get_user(), query.job_id)
    if state is not None:
        raise Forbidden(f"Cannot delete job which is in {state} state")
    return json_response({"message": "Simulation deleted"})


@blueprint.get("/inputs")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Input)
def read_input(query: schemas.JobQuery) -> Response:
    """What was submitted."""
    stored = simulations.read_input(get_backend(), get_user(), query.job_id)
    return stitched_response([b'{"message":"Input of the job","input":', stored, b"}"])


@blueprint.get("/logfiles")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.LogfilesAnswer)
def read_logfiles(query: schemas.JobQuery) -> Response:
    """Log files; markup in them is escaped, since the front end writes them into a page as they come."""
    found = logfiles.read_logfiles(get_backend(), get_user(), query.job_id)
    escaped = {html.escape(name, quote=False): html.escape(text, quote=False) for name, text in found.items()}
    return json_response({"message": "Logfiles", "logfiles": escaped})


@blueprint.post("/logfiles")
@blueprint.input(schemas.Logfiles, location="json")
@blueprint.output(schemas.Message, status_code=202)
@blueprint.doc(tags=["Workers"])
def post_logfiles(json_data: schemas.Logfiles) -> Response:
    """Log files that a worker sends, with its update key."""
    logfiles.post_logfiles(get_backend(), json_data.simulation_id, json_data.update_key, json_data.logfiles)
    return json_response({"message": "Log files saved"}, 202)

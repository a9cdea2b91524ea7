"""Tasks: what workers report."""

from apiflask import APIBlueprint
from flask import Response

from yaptide import logs
from yaptide.api import schemas
from yaptide.api.http import get_backend, json_response
from yaptide.domain.errors import InvalidInput
from yaptide.services import tasks

blueprint = APIBlueprint("tasks", __name__, tag="Workers")


@blueprint.post("/tasks")
@blueprint.input(schemas.TaskReport, location="json")
@blueprint.output(schemas.Reported, status_code=202)
def report_task(json_data: schemas.TaskReport) -> Response:
    """What a worker says of a task, with its update key; the answer's `task_state` tells it whether to go on."""
    logs.bind_log_context(simulation=json_data.simulation_id, task=json_data.task_id)
    update = tasks.Update(**vars(json_data.update_dict))
    state = tasks.report_task(get_backend(), json_data.simulation_id, json_data.task_id, json_data.update_key, update)
    return json_response({"message": "Task updated", "task_state": state}, 202)


@blueprint.post("/tasks/list")
@blueprint.input(schemas.TaskReports, location="json")
@blueprint.output(schemas.ReportedTasks, status_code=202)
def report_tasks(json_data: schemas.TaskReports) -> Response:
    """What a worker says of many tasks of one simulation, as `POST /tasks` does of one; all or nothing."""
    logs.bind_log_context(simulation=json_data.simulation_id)
    updates = {told.task_id: tasks.Update(**vars(told.update_dict)) for told in json_data.updates}
    if len(updates) < len(json_data.updates):
        raise InvalidInput("A task is reported twice")
    states = tasks.report_tasks(get_backend(), json_data.simulation_id, json_data.update_key, updates)
    found = [{"task_id": number, "task_state": state} for number, state in states.items()]
    return json_response({"message": "Tasks updated", "tasks": found}, 202)

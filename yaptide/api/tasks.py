"""Routes for external workers' reports on tasks."""

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
    """Store a report on a task, sent with its update key. The `task_state` of the response tells whether to go on."""
    logs.bind_log_context(simulation=json_data.simulation_id, task=json_data.task_id)
    update = tasks.Update(**vars(json_data.update_dict))
    state = tasks.report_task(get_backend(), json_data.simulation_id, json_data.task_id, json_data.update_key, update)
    return json_response({"message": "Task updated", "task_state": state}, 202)


@blueprint.post("/tasks/list")
@blueprint.input(schemas.TaskReports, location="json")
@blueprint.output(schemas.ReportedTasks, status_code=202)
def report_tasks(json_data: schemas.TaskReports) -> Response:
    """Store a worker's reports on several tasks of a simulation, as `POST /tasks` does for one; all or nothing."""
    logs.bind_log_context(simulation=json_data.simulation_id)
    updates = {report.task_id: tasks.Update(**vars(report.update_dict)) for report in json_data.updates}
    if len(updates) < len(json_data.updates):
        raise InvalidInput("A task is reported twice")
    states = tasks.report_tasks(get_backend(), json_data.simulation_id, json_data.update_key, updates)
    task_states = [{"task_id": number, "task_state": state} for number, state in states.items()]
    return json_response({"message": "Tasks updated", "tasks": task_states}, 202)

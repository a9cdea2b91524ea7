"""Tasks: what workers report."""

from apiflask import APIBlueprint
from flask import Response

from yaptide import logs
from yaptide.api import schemas
from yaptide.api.http import answer, backend
from yaptide.services import tasks

blueprint = APIBlueprint("tasks", __name__, tag="Workers")


@blueprint.post("/tasks")
@blueprint.input(schemas.TaskReport, location="json")
@blueprint.output(schemas.Reported, status_code=202)
def report(json_data: schemas.TaskReport) -> Response:
    """What a worker says of a task, with its update key; the answer's `task_state` tells it whether to go on."""
    logs.bind(simulation=json_data.simulation_id, task=json_data.task_id)
    update = tasks.Update(**json_data.update_dict.model_dump())
    state = tasks.report(backend(), json_data.simulation_id, json_data.task_id, json_data.update_key, update)
    return answer({"message": "Task updated", "task_state": state}, 202)

"""Routes for yaptide's workers on other machines: claim, progress, results and failures of tasks and merges.

Workers authenticate with `Authorization: Bearer <update key>`, which is checked before a body is read. Every call can
be repeated after a lost response.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from apiflask import APIBlueprint
from flask import Response, current_app, request

from yaptide.api import schemas
from yaptide.api.http import get_backend, get_worker, json_response
from yaptide.api.openapi import FILE, respond_with
from yaptide.domain.errors import InvalidInput
from yaptide.services import workers
from yaptide.services.tasks import Lease

blueprint = APIBlueprint("work", __name__, tag="Own workers", url_prefix="/worker/<int:simulation_id>")

_CHUNK = 1 << 20


@blueprint.post("/tasks/<int:task_id>/claim")
@blueprint.input(schemas.TaskClaim, location="json")
@blueprint.output(schemas.ClaimedTask)
def claim_task(simulation_id: int, task_id: int, json_data: schemas.TaskClaim) -> Response:
    """Claim a task and get its input; 409 if the task does not wait to be run."""
    version, digest = json_data.simulator_version, json_data.simulator_digest
    claimed, files = workers.claim_task(
        get_backend(), get_worker(), task_id, json_data.worker, version, digest, with_input=json_data.with_input
    )
    document = {
        "message": "The task is yours",
        "job_id": claimed.job_id,
        "sim_type": claimed.sim_type,
        "primaries": claimed.primaries,
        "seed": claimed.seed,
        "owner": claimed.owner,
        "attempt": claimed.attempt,
        "input_files": dict(files),
    }
    return json_response(document)


@blueprint.post("/tasks/<int:task_id>/progress")
@blueprint.input(schemas.TaskProgress, location="json")
@blueprint.output(schemas.Wanted)
def report_progress(simulation_id: int, task_id: int, json_data: schemas.TaskProgress) -> Response:
    """Report the progress of a task. The response tells whether to continue."""
    lease = Lease(simulation_id, task_id, json_data.owner)
    wanted = workers.report_progress(
        get_backend(), get_worker(), lease, json_data.simulated_primaries, json_data.estimated_time
    )
    return _wanted(wanted)


@blueprint.put("/tasks/<int:task_id>/output")
@blueprint.input(schemas.RunQuery, location="query", arg_name="query")
@blueprint.output(schemas.Wanted)
def upload_output(simulation_id: int, task_id: int, query: schemas.RunQuery) -> Response:
    """Upload the results of a finished task, as a file written by yaptide's workers (.npz)."""
    _allow_large()
    lease = Lease(simulation_id, task_id, query.owner)
    if query.primaries is None:
        raise InvalidInput("Missing primaries in the query")
    return _wanted(workers.complete_task(get_backend(), get_worker(), lease, query.primaries, request.stream))


@blueprint.put("/tasks/<int:task_id>/files")
@blueprint.input(schemas.FilesQuery, location="query", arg_name="query")
@blueprint.output(schemas.Wanted)
def upload_files(simulation_id: int, task_id: int, query: schemas.FilesQuery) -> Response:
    """Upload the output files of a simulator as a zip archive, which the server parses."""
    _allow_large()
    proof = get_worker()
    with tempfile.NamedTemporaryFile(dir=get_backend().data_dir) as file:
        shutil.copyfileobj(request.stream, file, _CHUNK)
        file.flush()
        lease = Lease(simulation_id, task_id, query.owner)
        return _wanted(workers.hand_in(get_backend(), proof, lease, query.exit_code, Path(file.name)))


@blueprint.post("/tasks/<int:task_id>/failure")
@blueprint.input(schemas.TaskEnd, location="json")
@blueprint.output(schemas.Wanted)
def report_failure(simulation_id: int, task_id: int, json_data: schemas.TaskEnd) -> Response:
    """Report that a task has failed: the reason and its log files."""
    lease = Lease(simulation_id, task_id, json_data.owner)
    return _wanted(workers.fail_task(get_backend(), get_worker(), lease, json_data.reason, json_data.logfiles))


@blueprint.post("/tasks/<int:task_id>/canceled")
@blueprint.input(schemas.TaskEnd, location="json")
@blueprint.output(schemas.Wanted)
def report_canceled(simulation_id: int, task_id: int, json_data: schemas.TaskEnd) -> Response:
    """Upload the log files of a task that was canceled while it ran."""
    lease = Lease(simulation_id, task_id, json_data.owner)
    workers.explain_cancel(get_backend(), get_worker(), lease, json_data.logfiles)
    return _wanted(False)


@blueprint.post("/tasks/<int:task_id>/return")
@blueprint.input(schemas.TaskEnd, location="json")
@blueprint.output(schemas.Wanted)
def return_task(simulation_id: int, task_id: int, json_data: schemas.TaskEnd) -> Response:
    """Return a task of a worker that must stop, so that another worker runs it."""
    lease = Lease(simulation_id, task_id, json_data.owner)
    return _wanted(workers.give_back(get_backend(), get_worker(), lease, json_data.reason))


@blueprint.get("/tasks/<int:task_id>/output")
@blueprint.doc(responses=respond_with(200, "The results as they were uploaded", FILE))
def download_output(simulation_id: int, task_id: int) -> Response:
    """Download the results of a task, for the worker that merges them."""
    with tempfile.TemporaryDirectory() as folder:  # an open file can be read after its name is removed
        path = workers.fetch_output(get_backend(), get_worker(), task_id, Path(folder))
        size = path.stat().st_size
        response = Response(_chunks(path.open("rb")), mimetype="application/octet-stream")
    response.content_length = size
    return response


@blueprint.post("/merge/claim")
@blueprint.input(schemas.MergeClaim, location="json")
@blueprint.output(schemas.ClaimedMerge)
def claim_merge(simulation_id: int, json_data: schemas.MergeClaim) -> Response:
    """Claim the merge of a simulation whose tasks have all ended; 409 if there is nothing to merge."""
    merge = workers.claim_merge(get_backend(), get_worker(), json_data.worker)
    tasks = [{"task_id": task_id, "primaries": primaries} for task_id, primaries in merge.completed]
    return json_response({"message": "The merge is yours", "owner": merge.owner, "tasks": tasks})


@blueprint.post("/merge/heartbeat")
@blueprint.input(schemas.MergeOwner, location="json")
@blueprint.output(schemas.Wanted)
def send_merge_heartbeat(simulation_id: int, json_data: schemas.MergeOwner) -> Response:
    """Send a heartbeat of a merge. The response tells whether to continue."""
    return _wanted(workers.merge_heartbeat(get_backend(), get_worker(), json_data.owner))


@blueprint.post("/merge/failure")
@blueprint.input(schemas.MergeFailure, location="json")
@blueprint.output(schemas.Wanted)
def report_merge_failure(simulation_id: int, json_data: schemas.MergeFailure) -> Response:
    """Report that the results cannot be merged, with the reason."""
    return _wanted(workers.merge_failed(get_backend(), get_worker(), json_data.owner, json_data.reason))


@blueprint.put("/merge/results")
@blueprint.input(schemas.MergeOwner, location="query", arg_name="query")
@blueprint.output(schemas.Wanted)
def upload_merged(simulation_id: int, query: schemas.MergeOwner) -> Response:
    """Upload merged results, as a file written by yaptide's workers (zip); payloads are stored unchanged."""
    _allow_large()
    proof = get_worker()
    with tempfile.TemporaryFile(dir=get_backend().data_dir) as file:
        if not workers.merge_heartbeat(get_backend(), proof, query.owner):
            return _wanted(False)
        shutil.copyfileobj(request.stream, file, _CHUNK)
        return _wanted(workers.store_merged(get_backend(), proof, query.owner, file))


def _allow_large() -> None:
    request.max_content_length = current_app.config["MAX_RESULTS_LENGTH"]


def _wanted(wanted: bool) -> Response:
    return json_response({"message": "Go on" if wanted else "Not wanted any more", "wanted": wanted}, 200)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk

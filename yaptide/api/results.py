"""Routes for results: workers send them, users read them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlencode

from apiflask import APIBlueprint
from flask import Response, current_app, request
from werkzeug.utils import secure_filename

from yaptide import logs
from yaptide.api import schemas
from yaptide.api.http import get_backend, get_user, json_response, key_first, stitched_response
from yaptide.domain.errors import InvalidInput
from yaptide.services import results, results_upload

blueprint = APIBlueprint("results", __name__, tag="Results")

_HEAD = 4096
_CHUNK = 1 << 20
_IN_MEMORY = 8 << 20
_ANY_ORDER = 1 << 20
#: Maximum length of the name of a downloaded file.
_MAX_NAME = 200


@blueprint.post("/results")
@blueprint.output(schemas.ResultsSaved, status_code=202)
@blueprint.doc(tags=["Workers"])
def post_results() -> Response:
    """Store all results that a worker sends with its update key. Sending the same results again changes nothing.

    An invalid page does not affect the other pages: it is left out, and reported in `refused`.

    Body: `{"simulation_id", "update_key", "estimators": [{"name", "metadata", "pages": [page, ...]}]}`. In a body of
    more than 1 MiB the keys must come in this order, so that the update key is checked before the rest is received.
    """
    request.max_content_length = current_app.config["MAX_RESULTS_LENGTH"]
    with _received_body(request.stream) as body:
        posted = results_upload.post_results(get_backend(), body)
    logs.bind_log_context(job_id=posted.job_id)
    refused = {"refused": [page._asdict() for page in posted.refused]} if posted.refused else {}
    return json_response({"message": "Results saved", **refused}, 202)


@contextmanager
def _received_body(stream: IO[bytes]) -> Iterator[bytes | IO[bytes]]:
    """Yield the body, as a file if it is large; reject a wrong key before the rest is read."""
    head = stream.read(_HEAD)
    key = key_first(head)
    if key:
        logs.bind_log_context(job_id=results_upload.check_key(get_backend(), key))
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(_folder())) as spooled:
        while head:
            spooled.write(head)
            if not key and spooled.tell() > _ANY_ORDER:
                raise InvalidInput(
                    'Results of more than 1 MiB must begin with {"simulation_id": ..., "update_key": "..."'
                )
            head = stream.read(_CHUNK)
        if spooled.tell() > _IN_MEMORY:  # large results are not read into memory
            yield spooled
        else:
            spooled.seek(0)
            yield spooled.read()


def _folder() -> Path:
    """Return the data folder, where large results are stored for validation: `/tmp` may be too small."""
    folder = get_backend().data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@blueprint.get("/estimators")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Estimators)
def list_estimators(query: schemas.JobQuery) -> Response:
    """List the names and dimensions of all pages, without their values."""
    estimators = results.pages_metadata(get_backend(), get_user(), query.job_id)
    return json_response({"message": "Estimators metadata", "estimators_metadata": estimators})


@blueprint.get("/results")
@blueprint.input(schemas.ResultsQuery, location="query", arg_name="query")
@blueprint.output(schemas.ResultsPages)
def get_results(query: schemas.ResultsQuery) -> Response:
    """Return all results, those of one estimator, or some of its pages in ascending order.

    Pages with three or more axes that are requested by `page_numbers` are returned without values, which could be
    hundreds of megabytes: `{"dimensions": 3, "results_url", "metadata"}`. `results_url` (an absolute path with a query)
    downloads the page. With `values=1` every page includes its values, and the response is a download.
    """
    selection = (query.job_id, query.estimator_name, query.page_numbers)
    address = None if query.values else _address(query)
    answer = results.read_answer(get_backend(), get_user(), *selection, address=address)
    response = stitched_response(answer, answer.length)
    if query.values:
        name = secure_filename("-".join(filter(None, selection)).replace(",", "_"))[:_MAX_NAME]
        response.headers.set("Content-Disposition", "attachment", filename=f"{name}.json")
    return response


def _address(query: schemas.ResultsQuery) -> results.Address:
    """Return a function from page numbers to the addresses where they can be downloaded."""

    def address(page_number: int) -> str:
        selection = {"job_id": query.job_id, "estimator_name": query.estimator_name, "page_numbers": page_number}
        return f"{request.script_root}{request.path}?{urlencode(selection | {'values': 1}, quote_via=quote)}"

    return address

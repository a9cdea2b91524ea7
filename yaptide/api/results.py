"""Results: workers send them, users read them."""

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
from yaptide.services import results

blueprint = APIBlueprint("results", __name__, tag="Results")

_HEAD = 4096
_CHUNK = 1 << 20
_IN_MEMORY = 8 << 20
_ANY_ORDER = 1 << 20
#: Characters of the name of a file to download.
_LONGEST_NAME = 200


@blueprint.post("/results")
@blueprint.output(schemas.ResultsSaved, status_code=202)
@blueprint.doc(tags=["Workers"])
def post_results() -> Response:
    """Results that a worker sends, with its update key; stored all at once. The same again change nothing.

    A page that cannot be kept is left out alone, and named in `refused`.

    Body: `{"simulation_id", "update_key", "estimators": [{"name", "metadata", "pages": [page, ...]}]}`. In one of more
    than 1 MiB the keys come in this order, so that the update key is checked before the rest is taken in.
    """
    request.max_content_length = current_app.config["MAX_RESULTS_LENGTH"]
    with _received_body(request.stream) as body:
        posted = results.post_results(get_backend(), body)
    logs.bind_log_context(job_id=posted.job_id)
    refused = {"refused": [page._asdict() for page in posted.refused]} if posted.refused else {}
    return json_response({"message": "Results saved", **refused}, 202)


@contextmanager
def _received_body(stream: IO[bytes]) -> Iterator[bytes | IO[bytes]]:
    """The body, in a file if it is large; a wrong key is refused with the rest still unread."""
    head = stream.read(_HEAD)
    key = key_first(head)
    if key:
        logs.bind_log_context(job_id=results.check_key(get_backend(), key))
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(_folder())) as spooled:
        while head:
            spooled.write(head)
            if not key and spooled.tell() > _ANY_ORDER:
                raise InvalidInput(
                    'Results of more than 1 MiB have to begin with {"simulation_id": ..., "update_key": "..."'
                )
            head = stream.read(_CHUNK)
        if spooled.tell() > _IN_MEMORY:  # it stays on the disk
            yield spooled
        else:
            spooled.seek(0)
            yield spooled.read()


def _folder() -> Path:
    """The data folder, where large results wait to be checked: it has the room for them that `/tmp` may not have."""
    folder = get_backend().data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@blueprint.get("/estimators")
@blueprint.input(schemas.JobQuery, location="query", arg_name="query")
@blueprint.output(schemas.Estimators)
def list_estimators(query: schemas.JobQuery) -> Response:
    """Names and dimensions of all pages, without their numbers."""
    found = results.pages_metadata(get_backend(), get_user(), query.job_id)
    return json_response({"message": "Estimators metadata", "estimators_metadata": found})


@blueprint.get("/results")
@blueprint.input(schemas.ResultsQuery, location="query", arg_name="query")
@blueprint.output(schemas.ResultsPages)
def get_results(query: schemas.ResultsQuery) -> Response:
    """All results, those of one estimator, or some of its pages, in ascending order.

    Pages with three axes or more that are asked for by `page_numbers` come without their numbers, which may be hundreds
    of megabytes: `{"dimensions": 3, "results_url", "metadata"}`. Their `results_url`, an absolute path with a query,
    downloads such a page alone. With `values=1` every page is whole, and the answer a download.
    """
    asked = (query.job_id, query.estimator_name, query.page_numbers)
    found = results.read_answer(get_backend(), get_user(), *asked, address=None if query.values else _address(query))
    response = stitched_response(found, found.length)
    if query.values:
        name = secure_filename("-".join(filter(None, asked)).replace(",", "_"))[:_LONGEST_NAME]
        response.headers.set("Content-Disposition", "attachment", filename=f"{name}.json")
    return response


def _address(query: schemas.ResultsQuery) -> results.Address:
    """Where each page of the estimator can be downloaded."""

    def address(page_number: int) -> str:
        asked = {"job_id": query.job_id, "estimator_name": query.estimator_name, "page_numbers": page_number}
        return f"{request.script_root}{request.path}?{urlencode(asked | {'values': 1}, quote_via=quote)}"

    return address

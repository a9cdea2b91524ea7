"""Reading results over HTTP, compressed and uncompressed, and as arrays in Python."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import orjson
import simdjson

from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store
from benchmarks.workloads.storing import Shape, list_shapes
from yaptide_client import answers
from yaptide_client.results import Results

_BESIDE = "bare: one SELECT of the payloads, sent as they are"
_BESIDE_INFLATED = "bare: one SELECT of the payloads, inflated by isal"
_BESIDE_ARRAYS = "simdjson parses, and numpy takes its buffers"


def rows(context: Context) -> Iterator[Row]:
    """Measure them on each database."""
    for shape in list_shapes(context):
        for store in context.stores():
            yield from _served(context, store, shape)
    yield _arrays(context, list_shapes(context)[0])


def _served(context: Context, store: Store, shape: Shape) -> Iterator[Row]:
    [number] = store.add_simulations(1, 2)
    estimators = [{"name": f"e{n}", "metadata": {}, "pages": shape.make_pages()} for n in range(shape.estimators)]
    body = orjson.dumps({"simulation_id": number, "update_key": KEY, "estimators": estimators})
    cookie, one = store.token(), "&estimator_name=e0"
    queries = {"all": "", "one estimator": one, "one page": f"{one}&page_numbers=0&values=1"}
    if shape.pages == 1:
        del queries["one estimator"]
    with closing(store.wire()) as wire, closing(store.bare_wire()) as bare:
        wire.send(wire.request("POST", "/results", body), 202)
        for what, query in queries.items():
            path = f"/results?job_id={store.job_id(number)}{query}"
            for packed in (True, False):
                encoding = "gzip" if packed else "identity"
                request = wire.request("GET", path, Cookie=cookie, Accept_Encoding=encoding)
                query_bare = {"simulation": number, "what": what} | ({"packed": 1} if packed else {})
                limit = bare.request("GET", f"/results?{urlencode(query_bare)}")
                samples = in_turns(context.rounds(11), partial(wire.send, request), partial(bare.send, limit))
                name = f"GET /results, {shape.name}, {what}, {'gzip' if packed else 'not gzip'}"
                yield Row(name, store.kind, *samples, Goal("factor", 1.5), _BESIDE if packed else _BESIDE_INFLATED)


def _arrays(context: Context, shape: Shape) -> Row:
    estimators = [{"name": "e0", "metadata": {}, "pages": shape.make_pages()}]
    text = orjson.dumps({"message": "Results", "estimators": estimators})
    response = httpx.Response(200, content=text, headers={"Content-Type": "application/json"})

    def limit() -> None:
        page = simdjson.Parser().parse(text).at_pointer("/estimators/0/pages/0")
        for place in ("/data/values", "/axis_dim1/values", "/axis_dim2/values", "/axis_dim3/values"):
            np.frombuffer(page.at_pointer(place).as_buffer(of_type="d"))

    samples = in_turns(context.rounds(11), lambda: read_response(response), limit)
    return Row(f"arrays in Python, {shape.name}", "-", *samples, Goal("factor", 1.3), _BESIDE_ARRAYS)


def read_response(response: httpx.Response) -> Results:
    """Read a response as `yaptide.client` does."""
    reader: Any = getattr(answers, "read_results_document", answers.read_document)  # older clients have no arrays
    return Results.from_document(reader(response))

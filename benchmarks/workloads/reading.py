"""Reading results over HTTP, compressed and not, and as arrays in Python."""

import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from typing import Any, Self

import httpx
import numpy as np
import orjson
import simdjson
from isal import isal_zlib

from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import KEY, Store, connect
from benchmarks.workloads.storing import Shape, shapes
from yaptide_client import answers
from yaptide_client.results import Results

_PROCESSES = get_context("spawn")
_SELECT = """SELECT p.compressed_data FROM "Page" p JOIN "Estimator" e ON p.estimator_id = e.id
    WHERE e.simulation_id = ?"""
_CHUNK = 1 << 20


def rows(context: Context) -> Iterator[Row]:
    """Measure them on each database."""
    for shape in shapes(context):
        for store in context.stores():
            yield from _served(context, store, shape)
    yield _arrays(context, shapes(context)[0])


def _served(context: Context, store: Store, shape: Shape) -> Iterator[Row]:
    [number] = store.simulations(1, 2)
    found = [{"name": f"e{n}", "metadata": {}, "pages": shape.pages_of()} for n in range(shape.estimators)]
    body = orjson.dumps({"simulation_id": number, "update_key": KEY, "estimators": found})
    cookie = store.token()
    asked = {"all": "", "one estimator": "&estimator_name=e0", "one page": "&estimator_name=e0&page_numbers=0"}
    if shape.pages == 1:
        del asked["one estimator"]
    with closing(store.wire()) as wire, _Sender(store.url) as sender:
        wire.send(wire.request("POST", "/results", body), 202)
        for what, query in asked.items():
            path = f"/results?job_id={store.job_id(number)}{query}"
            for packed in (True, False):
                encoding = "gzip" if packed else "identity"
                request = wire.request("GET", path, Cookie=cookie, Accept_Encoding=encoding)
                limit = partial(sender.ask, number, what, packed)
                taken = in_turns(context.rounds(11), partial(wire.send, request), limit)
                name = f"GET /results, {shape.name}, {what}, {'gzip' if packed else 'not gzip'}"
                yield Row(name, store.kind, *taken, Goal("factor", 1.5))


class _Sender:
    """A process that selects payloads and sends them over loopback, and the connection to it."""

    def __init__(self, url: str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._process = _PROCESSES.Process(target=_send, args=(listener, url), daemon=True)
        self._process.start()
        self._socket = socket.create_connection(listener.getsockname(), 60)
        listener.close()
        self._buffer = bytearray(_CHUNK)

    def ask(self, simulation: int, what: str, packed: bool) -> None:
        """Have the payloads of a simulation sent, and drop them."""
        self._socket.sendall(orjson.dumps([simulation, what, packed]).ljust(100))
        head = b""
        while len(head) < 8:
            head += self._socket.recv(8 - len(head))
        left = int.from_bytes(head, "big")
        while left:
            left -= self._socket.recv_into(self._buffer, min(left, _CHUNK))

    def __enter__(self) -> Self:
        """Use as a context manager to have it end."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._socket.close()
        self._process.join(10)
        self._process.kill()


def _send(listener: socket.socket, url: str) -> None:
    connection = connect(url)
    statement = _SELECT if url.startswith("sqlite") else _SELECT.replace("?", "%s")
    there, _ = listener.accept()
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while len(asked := there.recv(100, socket.MSG_WAITALL)) == 100:
        simulation, what, packed = orjson.loads(asked.rstrip())
        more = {"all": "", "one estimator": " AND e.name = 'e0'"}.get(what, " AND e.name = 'e0' AND p.page_number = 0")
        cursor: Any = connection.cursor() if url.startswith("sqlite") else connection.cursor(binary=True)
        data = [row[0] for row in cursor.execute(statement + more, (simulation,))]
        connection.rollback()
        if not packed:
            data = [isal_zlib.decompress(each, 31) for each in data]
        there.sendall(sum(map(len, data)).to_bytes(8, "big"))
        for each in data:
            there.sendall(each)


def _arrays(context: Context, shape: Shape) -> Row:
    found = [{"name": "e0", "metadata": {}, "pages": shape.pages_of()}]
    text = orjson.dumps({"message": "Results", "estimators": found})
    response = httpx.Response(200, content=text, headers={"Content-Type": "application/json"})

    def limit() -> None:
        page = simdjson.Parser().parse(text).at_pointer("/estimators/0/pages/0")
        for place in ("/data/values", "/axis_dim1/values", "/axis_dim2/values", "/axis_dim3/values"):
            np.frombuffer(page.at_pointer(place).as_buffer(of_type="d"))

    taken = in_turns(context.rounds(11), lambda: read(response), limit)
    return Row(f"arrays in Python, {shape.name}", "-", *taken, Goal("factor", 1.3))


def read(response: httpx.Response) -> Results:
    """What `yaptide.client` does with an answer."""
    reader: Any = getattr(answers, "results", answers.document)  # where the client has no way of its own to arrays
    return Results.from_document(reader(response))

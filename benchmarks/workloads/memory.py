"""Memory of the server above its memory after start, for a page of 27,000,000 values (300^3)."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from benchmarks import machine
from benchmarks.context import Context
from benchmarks.measuring import Goal, Row
from benchmarks.store import KEY, Store
from benchmarks.wire import Wire
from tests.support.processes import Server, descendants
from yaptide.persistence import codec

_OWNER = "bench/worker"
_BLOCK = 100_000


def rows(context: Context) -> Iterator[Row]:
    """Measure it on each database, with a new server for each request."""
    side = context.size(300, 30)
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        text = Path(folder) / "page.json"
        with text.open("wb") as file:
            _write_page(file, side)
        packed = Path(folder) / "results.zip"
        _pack(packed, text)
        for store in context.stores():
            yield from _of(store, text, packed, side**3)


def _of(store: Store, text: Path, packed: Path, count: int) -> Iterator[Row]:
    [posted] = store.add_simulations(1, 1)
    [merged] = store.add_simulations(1, 1, "MERGING_RUNNING", _OWNER)
    cookie = store.token()
    read = f"/results?job_id={store.job_id(posted)}"
    what = {
        "POST /results as JSON": partial(_post, number=posted, text=text),
        "results compressed by our worker": partial(_put, number=merged, packed=packed),
        "GET /results, gzip": partial(_get, path=read, cookie=cookie, encoding="gzip"),
        "GET /results, not gzip": partial(_get, path=read, cookie=cookie, encoding="identity"),
    }
    for name, action in what.items():
        fresh = replace(store)  # the same database with a new server
        server = fresh.server
        pid = _serving(server)
        before = machine.peak_memory(pid)
        with closing(fresh.wire()) as wire:
            action(wire)
        grown = float(machine.peak_memory(pid) - before)
        server.stop()
        yield Row(f"memory for {count:,} values, {name}", store.kind, [grown], goal=Goal("bytes", 200e6))


def _write_page(file: IO[bytes], side: int) -> None:
    """Write a dose on a cube: random doubles in one half of each block, zeros in the other."""
    draw = np.random.default_rng(side)
    axis = {"name": "x", "unit": "mm", "values": [n + 0.5 for n in range(side)]}
    page = {"dimensions": 3, "axis_dim1": axis, "axis_dim2": axis, "axis_dim3": axis, "metadata": {"page_number": "0"}}
    file.write(orjson.dumps(page)[:-1] + b',"data":{"name":"dose","unit":"Gy","values":[')
    remaining = side**3
    while remaining:
        count = min(remaining, _BLOCK)
        values = draw.random(count)
        values[: count // 2] = 0
        remaining -= count
        file.write(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] + (b"," if remaining else b"]}}"))


def _pack(path: Path, text: Path) -> None:
    """Write the file that yaptide's worker sends, as in `yaptide.persistence.result_files`."""
    page = codec.encode_text(text.read_bytes()).data
    index = [{"name": "e0", "file_name": "e0", "pages": [{"number": 0, "name": "dose", "dimension": 3}]}]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("0.json.gz", codec.encode_payload({}).data)
        archive.writestr("0-0.json.gz", page)
        archive.writestr("results.json", orjson.dumps(index))


def _post(wire: Wire, number: int, text: Path) -> None:
    head = orjson.dumps({"simulation_id": number, "update_key": KEY})[:-1]
    body = head + b',"estimators":[{"name":"e0","metadata":{},"pages":[' + text.read_bytes() + b"]}]}"
    wire.send(wire.request("POST", "/results", more=len(body)), 202, body)


def _put(wire: Wire, number: int, packed: Path) -> None:
    body = packed.read_bytes()
    path = f"/worker/{number}/merge/results?owner={_OWNER}"
    wire.send(wire.request("PUT", path, more=len(body), Authorization=f"Bearer {KEY}"), 200, body)


def _get(wire: Wire, path: str, cookie: str, encoding: str) -> None:
    wire.send(wire.request("GET", path, Cookie=cookie, Accept_Encoding=encoding))


def _serving(server: Server) -> int:
    """Return the process that serves requests: the largest of those started by `yaptide up`."""
    return max(descendants(server.running.pid), key=machine.peak_memory)

"""Bodies of `POST /results`, and helpers to read what is stored of them."""

import json
import zlib

import orjson

from tests.support.storing import rows_of
from yaptide.persistence import codec
from yaptide.services import results

#: A string of numbers that is too long for a name.
MANY = "1.5," * 50_000
#: Invalid parts of a page, by what is wrong with them.
SPOILT = {
    "text among numbers": {"data": {"name": "q", "unit": "", "values": [1, "2", 3]}},
    "another length": {"data": {"name": "q", "unit": "", "values": [1, 2]}},
    "no values": {"data": {"name": "q", "unit": "", "values": []}},
    "no values on no axis": {
        "data": {"name": "q", "unit": "", "values": []},
        "axis_dim1": {"name": "z", "unit": "cm", "values": []},
    },
    "no name": {"metadata": {"page_number": "1", "name": ""}},
    "numbers for a name": {"metadata": {"page_number": "1", "name": MANY}},
    "a number that is none": {"metadata": {"page_number": "one"}},
}


def body(job, *estimators, **changes):
    """A body of `POST /results` as Python writes it, NaN and all."""
    result = {"simulation_id": job.simulation_id, "update_key": job.update_key, "estimators": estimators}
    return json.dumps(result | changes).encode()


def read(backend, user, job, **query):
    """The document that `GET /results` gives, which is one member of gzip."""
    document = results.read_answer(backend, user, job.job_id, **query)
    length, data = document.length, b"".join(codec.stitch_gzip(document))
    member = zlib.decompressobj(31)
    text = member.decompress(data)
    assert member.eof
    assert member.unused_data == b""
    assert length in (None, len(data))
    return orjson.loads(text)


def pages_of(backend, user, job, name="dose_"):
    [result] = read(backend, user, job, estimator=name)["estimators"]
    return result["pages"]


def stored(database):
    return [rows_of(database, name) for name in ("Simulation", "Task", "Estimator", "Page", "StateHistory")]


def states(database):
    return [rows_of(database, "Simulation")[0]["job_state"], *(t["task_state"] for t in rows_of(database, "Task"))]


def values(count, seed=0.5):
    return tuple(seed + number / 7 for number in range(count))

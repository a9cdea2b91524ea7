"""The limit that requests are measured beside (`benchmarks.bare`) does what ours do, though it checks nothing."""

import io
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from benchmarks.bare import Bare
from tests.support import payloads
from tests.support.api import Job, submit
from yaptide.persistence import codec
from yaptide.persistence.engine import Database

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def bare(database: Database) -> Iterator[Bare]:
    """Over the same database as ours."""
    with closing(Bare(database.address)) as result:
        yield result


def ask(bare: Bare, method: str, path: str, body: bytes = b"", **query: Any) -> bytes:
    """The body of an answer that promises success, and its length."""
    started: list[Any] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": urlencode(query)}
    environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    answer = b"".join(bare(environ, lambda *message: started.extend(message)))
    status, headers = started
    assert status.startswith("2")
    assert dict(headers)["Content-Length"] == str(len(answer))
    return answer


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def report(job: Job, **more: Any) -> bytes:
    return orjson.dumps({"simulation_id": job.simulation_id, "update_key": job.update_key, **more})


def test_reports(bare: Bare, job: Job, database: Database) -> None:
    job.report_tasks({number: {"task_state": "RUNNING"} for number in range(2)})
    progress = 'SELECT simulated_primaries, estimated_time FROM "Task" ORDER BY task_id'
    update = {"simulated_primaries": 70, "estimated_time": 9}
    ask(bare, "POST", "/tasks", report(job, task_id=0, update_dict=update))
    assert rows(database, progress) == [(70, 9), (0, None)]
    further = [{"simulated_primaries": 60, "estimated_time": 0}, {"simulated_primaries": 1000, "estimated_time": 1}]
    updates = [{"task_id": number, "update_dict": update} for number, update in enumerate(further)]
    ask(bare, "POST", "/tasks/list", report(job, updates=updates))
    assert rows(database, progress) == [(70, 0), (500, 1)]
    ask(bare, "POST", "/tasks", report(job, task_id=0, update_dict=update).replace(job.update_key.encode(), b"wrong"))
    assert rows(database, progress)[0] == (70, 0)


def test_lists_and_tasks(bare: Bare, job: Job, database: Database) -> None:
    ((user,),) = rows(database, 'SELECT user_id FROM "Simulation"')
    (listed,) = orjson.loads(ask(bare, "GET", "/user/simulations", user=user))
    assert listed["job_id"] == job.job_id
    tasks = orjson.loads(ask(bare, "GET", "/jobs", simulation=job.simulation_id))
    assert [(task["task_id"], task["requested_primaries"]) for task in tasks] == [(0, 500), (1, 500)]


def test_submitting_and_deleting(bare: Bare, job: Job, database: Database) -> None:
    ((user,),) = rows(database, 'SELECT user_id FROM "Simulation"')
    body = orjson.dumps(payloads.submission(ntasks=3))
    ask(bare, "POST", "/jobs/direct", body, user=user)
    ((number,),) = rows(database, 'SELECT max(id) FROM "Simulation"')
    assert rows(database, f'SELECT count(*), max(task_id) FROM "Task" WHERE simulation_id = {number}') == [(3, 2)]
    ((stored,),) = rows(database, f'SELECT compressed_data FROM "Input" WHERE simulation_id = {number}')
    assert codec.decode_text(stored) == body
    ask(bare, "DELETE", "/user/simulations", simulation=number)
    assert rows(database, 'SELECT id FROM "Simulation"') == [(job.simulation_id,)]


def test_results(bare: Bare, signed_in: FlaskClient) -> None:
    page = payloads.page()
    stored, packed = submit(signed_in), submit(signed_in)
    items = [{"name": f"e{number}", "metadata": {}, "pages": [page, page]} for number in range(2)]
    ask(bare, "POST", "/bare/results", report(stored, estimators=items))
    data = codec.encode_payload(page).data
    lengths = f"{len(data)},{len(data)}"
    ask(bare, "PUT", "/bare/results", 4 * data, simulation=packed.simulation_id, estimators=2, lengths=lengths)
    for job in (stored, packed):
        for what, count in (("all", 4), ("one estimator", 2), ("one page", 1)):
            assert ask(bare, "GET", "/results", simulation=job.simulation_id, what=what) == count * orjson.dumps(page)
    assert ask(bare, "GET", "/results", simulation=packed.simulation_id, what="all", packed=1) == 4 * data

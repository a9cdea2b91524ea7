"""Nothing reads all of a table that grows: neither what runs all the time, nor what users and workers ask for."""

import io
import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request, request_started
from flask.testing import FlaskClient

from tests.support import payloads
from tests.support.api import PASSWORD, Job, sign_in, submit
from tests.support.many import Watch, fill
from tests.support.routes import list_api_routes
from tests.support.storing import output
from yaptide.persistence import schema, task_outputs
from yaptide.persistence.engine import Database
from yaptide.platforms.batch.driver import Driver
from yaptide.platforms.direct.broker import WorkerState
from yaptide.platforms.direct.embedded import EmbeddedExecutor, Folders
from yaptide.platforms.direct.outbox import OutboxPublisher
from yaptide.services import merging, recovery, tasks, users
from yaptide.services.backend import Backend, utc_now
from yaptide.services.tasks import Claim
from yaptide.simulators.base import Installation

MANY = 200_000
#: Steps of SQLite, and rows of PostgreSQL, for one look of whatever runs all the time, when there is nothing to do.
LOOK = {True: 1000, False: 10}
#: The same for any statement.
MOST = {True: 2000, False: 200}
#: The list of the API, and the page with the same list.
LISTS = {"GET /user/simulations", "GET /jobs/list", "GET /simulations"}
#: A list counts the simulations of its user. For each of them it reads one entry of an index, at this cost; those of
#: other users cost nothing.
ENTRY = {True: 12, False: 1}
STATES = "RUNNING,PENDING,MERGING_QUEUED,MERGING_RUNNING,COMPLETED"
#: Routes that need Keycloak or a cluster, and the one that adds up, by an index, what all simulations store.
APART = {
    "POST /convert",
    "GET /auth/keycloak",
    "POST /auth/keycloak",
    "DELETE /auth/keycloak",
    "POST /jobs/batch",
    "GET /clusters",
    "GET /metrics",
}
#: The same request by another path.
SAME = {"GET /jobs/batch", "DELETE /jobs", "DELETE /jobs/batch", "GET /openapi.json", "PUT /<>/tasks/<>/files"}


class Broker:
    """A broker that takes every message and loses it."""

    def send(self, _name: str, _queue: str, _messages: Any) -> list[str]:
        return []

    def count_messages(self, queues: Any) -> dict[str, int]:
        return dict.fromkeys(queues, 0)

    def list_workers(self) -> dict[str, WorkerState]:
        return {"worker-1@host": WorkerState(("simulate.mcsquare",), 0, 2, True, {"mcsquare": ("1.1", "ab" * 32)})}


def look_around(backend: Backend, folder: Path, watch: Watch) -> Counter[str]:
    """One round of everything that runs all the time, and what each part of it costs."""
    executor = EmbeddedExecutor(backend, Folders(folder, folder, folder / "work"), 1, 60.0)
    executor.owner = f"{backend.spool.place}executor"
    executor._installed = lambda: {"mcsquare": Installation(folder / "program", "1.1", "ab" * 32)}
    courier = OutboxPublisher(backend, Broker(), folder)
    driver = Driver(backend, "http://127.0.0.1:5000", 10.0)
    driver.owner = f"{backend.spool.place}driver"

    def clean_up() -> None:
        recovery.clean_up(backend)

    steps = (executor._work_once, executor._beat, clean_up)
    steps += (courier.send_messages, courier.resend_lost, courier._monitor.requeue)
    steps += (driver._process_clusters, driver._merge_next, driver._send_heartbeat)
    announcements = (executor.announce, courier.announce_workers, driver._announce)
    steps += (*announcements, executor.withdraw)
    with watch.watching():
        for announce in announcements:  # what comes every few seconds is shorter
            watch.begin(f"{announce.__qualname__} for the first time")
            announce()
        start = len(watch.statements)
        for step in steps:
            watch.begin(step.__qualname__)
            step()
        watch.begin("recovery.requeue_silent")
        recovery.requeue_stalled(backend, utc_now() - timedelta(days=1), "dead")
    cost: Counter[str] = Counter()
    for result in watch.statements[start:]:
        cost[result.cause] += result.steps
    return cost


class Worker:
    """A worker on another machine that has the key of a simulation."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._client = job.client.application.test_client()

    def call(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._job.update_key}"}
        path = f"/worker/{self._job.simulation_id}{path}"
        answer = self._client.open(path, method=method, headers=headers, **options)
        assert answer.status_code == 200, (path, answer.json)
        return answer

    def claim(self, task_id: int) -> dict[str, Any]:
        body = {"worker": f"host-{task_id}", "simulator_version": "1.0", "simulator_digest": "ab" * 32}
        claimed = self.call("POST", f"/tasks/{task_id}/claim", json=body).json
        return {"owner": claimed["owner"], "attempt": claimed["attempt"]}

    def complete(self, task_id: int) -> None:
        query = {**self.claim(task_id), "primaries": 500}
        file = io.BytesIO()
        task_outputs.write_output(file, output(Claim(0, task_id, "", "", "", 500, 1, 1)))
        self.call("PUT", f"/tasks/{task_id}/output", query_string=query, data=file.getvalue())


def run_tasks(job: Job) -> None:
    """What our workers ask for, from the first claim to the end of the merge."""
    worker = Worker(job)
    run = worker.claim(0)
    worker.call("POST", "/tasks/0/progress", json=run | {"simulated_primaries": 10})
    worker.call("POST", "/tasks/0/return", json=run | {"reason": "r", "logfiles": {}})
    run = worker.claim(1)
    worker.call("POST", "/tasks/1/failure", json=run | {"reason": "r", "logfiles": {"a.log": "x"}})
    worker.call("POST", "/tasks/1/canceled", json=run | {"reason": "r", "logfiles": {"b.log": "x"}})
    worker.complete(0)
    worker.call("GET", "/tasks/0/output")
    owner = worker.call("POST", "/merge/claim", json={"worker": "m"}).json["owner"]
    worker.call("POST", "/merge/heartbeat", json={"owner": owner})
    worker.call("PUT", "/merge/results", query_string={"owner": "nobody"}, data=b"")
    worker.call("POST", "/merge/failure", json={"owner": owner, "reason": "r"})


def report(job: Job) -> None:
    """What workers of others report."""
    assert job.report_task(0, task_state="RUNNING").status_code == 202
    assert job.report_task(0, simulated_primaries=5).status_code == 202
    assert job.report_tasks({0: {"simulated_primaries": 6}, 1: {"task_state": "RUNNING"}}).status_code == 202
    assert job.report(job_state="RUNNING", log={"a": "b"}).status_code == 202
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "logfiles": {"c": "d"}}
    assert job.client.post("/logfiles", json=body).status_code == 202
    assert job.post_results().status_code == 202


def read(job: Job) -> None:
    """What users ask about a simulation that has ended."""
    for path in (
        "/jobs",
        "/jobs/direct",
        "/jobs/history",
        "/jobs/summary",
        "/jobs/key",
        "/inputs",
        "/logfiles",
        "/estimators",
        "/results",
    ):
        assert job.get(path).status_code == 200, path
    for part in ("", "/input", "/logs", "/history"):
        assert job.client.get(f"/simulations/{job.job_id}{part}").status_code == 200, part
    watched = f"{job.job_id},job-1000,job-1001,job-1002,job-2003"
    assert job.client.get("/watch", query_string={"job_id": watched}).status_code == 200
    query = {"estimator_name": "dose", "page_numbers": "0-1"}
    assert job.get("/results", **query).status_code == 200


def list_all(client: FlaskClient) -> None:
    """Pages of all kinds of lists, of rare states and of frequent ones."""
    kinds = itertools.product(("start_time", "end_time"), ("ascend", "descend"), ("", "FAILED", "RUNNING", STATES))
    for order_by, order_type, states in kinds:
        query = {"order_by": order_by, "order_type": order_type, "job_state": states, "page_size": 10}
        assert client.get("/user/simulations", query_string=query).status_code == 200
    assert client.get("/jobs/list").status_code == 200


def keep_account(bob: FlaskClient, password: str) -> None:
    """What users do with their own account, and its end."""
    body = {"username": "bob", "password": password}
    assert bob.post("/auth/login", json=body).status_code == 202
    assert bob.post("/user/tokens", json={"name": "laptop"}).status_code == 201
    for path in ("/user/tokens", "/user/sessions", "/user/export"):
        with bob.get(path) as answer:
            assert answer.status_code == 200, path
    assert bob.delete("/user/tokens", query_string={"name": "laptop"}).status_code == 200
    assert bob.delete("/user/sessions").status_code == 200
    assert bob.post("/user/password", json={"password": password, "new_password": PASSWORD}).status_code == 200
    assert bob.delete("/user", json=body | {"password": PASSWORD}).status_code == 200


def use(client: FlaskClient) -> None:
    """Everything that users and workers ask of the server."""
    app = client.application
    for path in ("/", "/healthz", "/readyz", "/docs", "/static/yaptide.css", "/simulations"):
        assert client.get(path).status_code == 200, path
    bob = app.test_client()
    bob.put("/auth/register", json={"username": "bob", "password": PASSWORD})
    assert bob.post("/auth/login", json={"username": "bob", "password": PASSWORD}).status_code == 202
    for method, path in (("GET", "/auth/refresh"), ("GET", "/auth/status"), ("DELETE", "/auth/logout")):
        assert bob.open(path, method=method).status_code == 200
    bob.post("/auth/login", json={"username": "bob", "password": PASSWORD})
    update = {"password": PASSWORD, "new_password": PASSWORD + "!"}
    assert bob.post("/user/update", json=update).status_code == 202
    keep_account(bob, PASSWORD + "!")
    run_tasks(submit(client))
    assert client.post("/check", json=payloads.submission()).json["is_valid"]
    job = submit(client)
    report(job)
    read(job)
    list_all(client)
    canceled = submit(client)
    assert canceled.delete("/jobs/direct").status_code == 200
    for gone in (job, canceled):
        assert gone.delete("/user/simulations").status_code == 200


def work(client: FlaskClient, backend: Backend) -> None:
    """What the embedded executor does with a simulation of one task."""
    files = {"input_type": "files", "input_files": payloads.shieldhit_files(), "input_json": None}
    job = submit(client, ntasks=1, **files)
    owner = f"{backend.spool.place}executor"
    claim = tasks.claim_task(backend, owner, ["shieldhit"])
    assert claim is not None
    tasks.input_files(backend, claim)
    tasks.note_begin(backend, claim, "1.0", "ab" * 32)
    tasks.beat_leases(backend, owner, [claim], [])
    assert tasks.report_progress(backend, claim, 10, None)
    assert tasks.complete_task(backend, claim, output(claim))
    simulation = merging.claim_merge(backend, owner)
    assert simulation is not None
    tasks.beat_leases(backend, owner, [], [simulation.id])
    merging.merge_simulation(backend, simulation, owner)
    assert job.state == "COMPLETED"


def routes_of(app: Flask) -> set[str]:
    """Method and path of each route of the API; numbers in it left out."""
    return {f"{route.method} {named(route.path)}" for route in list_api_routes(app)}


def named(rule: str) -> str:
    return rule.replace("/worker/<int:simulation_id>", "/<>").replace("<int:task_id>", "<>")


def costly(watch: Watch, most: int, most_of_count: int) -> list[tuple[str, int, str]]:
    """Statements that cost more than `most`; more than `most_of_count`, if a list counts with them."""
    statements = [(result.cause, result.steps, result.text) for result in watch.statements]
    return [
        (cause, steps, words)
        for cause, steps, words in statements
        if steps > (most_of_count if cause in LISTS and "count(*)" in words else most)
    ]


@pytest.fixture
def database(empty: Database) -> Database:
    """A migrated database on disk that is given up in the end: to empty it takes long."""
    schema.upgrade_tables(empty)
    return empty


@pytest.fixture
def watch(database: Database, app: Flask) -> Iterator[Watch]:
    """Notes statements, and what they are for."""
    result = Watch(database)

    def note(_: Flask) -> None:
        result.begin(f"{request.method} {named(str(request.url_rule))}")

    request_started.connect(note, app)
    yield result
    request_started.disconnect(note, app)


def test_what_has_ended_costs_nothing(
    client: FlaskClient, backend: Backend, database: Database, app: Flask, watch: Watch, tmp_path: Path
) -> None:
    """One test for all, since making the store takes longest."""
    alice = sign_in(app, "alice")
    empty = look_around(backend, tmp_path, watch)
    fill(database, users.ensure_user(backend, "alice").id, users.ensure_user(backend, "carol").id, MANY)
    watch.statements.clear()
    full = look_around(backend, tmp_path, watch)
    assert {cause: steps for cause, steps in full.items() if steps > LOOK[database.is_sqlite]} == {}
    if database.is_sqlite:  # in an empty store PostgreSQL has no rows to read
        assert full.keys() == empty.keys()
        assert sum(full.values()) < 1.1 * sum(empty.values())
    most = MOST[database.is_sqlite]
    newcomer = sign_in(app, "dave")
    with watch.watching():
        list_all(newcomer)
    assert costly(watch, most, most) == []
    with watch.watching():
        use(alice)
        work(alice, backend)
    submit(alice)  # there is something to look at
    look_around(backend, tmp_path, watch)
    look_around(backend, tmp_path, watch)
    assert [(result.cause, result.scans, result.text) for result in watch.statements if result.scans] == []
    assert costly(watch, most, most + ENTRY[database.is_sqlite] * MANY // 2) == []
    assert routes_of(app) - watch.causes == APART | SAME

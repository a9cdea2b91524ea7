"""Contradicting reports that meet at a real server: eight clients at once, many times.

`make stress` runs this with RACES=300: as many rounds of each race, and a kill at each of 24 moments.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from tests.support import payloads
from tests.support.invariants import broken_invariants
from tests.support.postgres import Postgres
from tests.support.processes import Place, Server, place
from tests.support.storing import FOREIGN
from yaptide.persistence import schema
from yaptide.services import simulations, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Submission, Submitted
from yaptide.services.spool import Folder

RACES = int(os.environ.get("RACES", "24"))
CLIENTS = 8
FINAL = {"COMPLETED", "FAILED", "CANCELED"}
MOMENTS = 24

Call = Callable[[httpx.Client], httpx.Response]


@dataclass
class Arena:
    """A server, eight clients of it who are signed in, and a way to submit that does not pass through it."""

    server: Server
    backend: Backend
    clients: list[httpx.Client]
    pool: ThreadPoolExecutor

    def submit(self) -> Submitted:
        """A new simulation of two tasks."""
        project = payloads.project("dose")
        user = users.ensure_user(self.backend, "racer")
        return simulations.submit_simulation(self.backend, user, Submission("shieldhit", 2, "race", None, project))

    def at_once(self, *calls: Call) -> list[httpx.Response]:
        """All clients call at the same moment, each the next of `calls`."""
        barrier = threading.Barrier(CLIENTS)

        def run(number: int) -> httpx.Response:
            barrier.wait(30)
            return calls[number % len(calls)](self.clients[number])

        return list(self.pool.map(run, range(CLIENTS)))

    def status(self, job: Submitted) -> dict[str, Any]:
        """What the front end sees."""
        status: dict[str, Any] = self.clients[0].get("/jobs/direct", params={"job_id": job.job_id}).json()
        return status

    def pages(self, job: Submitted) -> int:
        """How many pages are stored."""
        return stored_pages(self.server.place, job)


def stored_pages(there: Place, job: Submitted) -> int:
    """How many pages the results of a simulation have in the database."""
    pages = 'SELECT COUNT(*) FROM "Page" p JOIN "Estimator" e ON e.id = p.estimator_id WHERE e.simulation_id = '
    return int(there.query(f"{pages}{job.simulation_id}")[0][0])


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    variables = {}
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        variables["FLASK_SQLALCHEMY_DATABASE_URI"] = server.create_database()
    with place(tmp_path_factory.mktemp(request.param) / "place", **variables) as there:
        there.data.mkdir()
        schema.upgrade_tables(there.database)
        yield there


@pytest.fixture(autouse=True)
def _nothing_is_wrong(there: Place) -> Iterator[None]:
    yield
    assert broken_invariants(there.database) == []


@pytest.fixture(scope="module")
def arena(there: Place) -> Iterator[Arena]:
    server = there.up("--no-executor")
    backend = Backend(there.database, Folder(there.data / "spool"), b"0" * 32, foreign_workers=FOREIGN)
    users.ensure_user(backend, "racer")
    users.set_password(backend, "racer", "a long password")
    clients = [httpx.Client(base_url=server.url, timeout=60) for _ in range(CLIENTS)]
    for client in clients:
        response = client.post("/auth/login", json={"username": "racer", "password": "a long password"})
        assert response.status_code == 202, response.text
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield Arena(server, backend, clients, pool)
    for client in clients:
        client.close()
    server.stop()


def says(job: Submitted, state: str) -> Call:
    """A worker's word on the simulation."""
    body = {"sim_id": job.simulation_id, "update_key": job.update_key, "job_state": state}
    return lambda client: client.post("/jobs", json=body)


def says_of_a_task(job: Submitted, task: int, **update: Any) -> Call:
    """A worker's word on a task."""
    body = {"simulation_id": job.simulation_id, "task_id": task, "update_key": job.update_key, "update_dict": update}
    return lambda client: client.post("/tasks", json=body)


def cancels(job: Submitted) -> Call:
    """The user's word."""
    return lambda client: client.delete("/jobs/direct", params={"job_id": job.job_id})


def results_of(job: Submitted, count: int = 6) -> bytes:
    """A body of POST /results with `count` pages."""
    pages = [payloads.page(number, values=(0.1 * number, 1 / 3)) for number in range(count)]
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key}
    return orjson.dumps({**body, "estimators": [payloads.estimator("dose_", *pages)]})


def sends(job: Submitted) -> Call:
    """A worker's results."""
    return lambda client: client.post("/results", content=results_of(job))


@pytest.mark.parametrize("other", ["CANCELED", "FAILED"])
def test_one_end_wins_and_stays(arena: Arena, other: str) -> None:
    ends = {"COMPLETED": 0, other: 0}
    for _ in range(RACES):
        job = arena.submit()
        answers = arena.at_once(says(job, "COMPLETED"), cancels(job) if other == "CANCELED" else says(job, other))
        assert {answer.status_code for answer in answers} <= {200, 202}
        end = arena.status(job)["job_state"]
        ends[end] += 1
        arena.at_once(says(job, "COMPLETED"), says(job, "FAILED"), says(job, "RUNNING"), cancels(job))
        after = arena.status(job)
        assert {after["job_state"], *(task["task_state"] for task in after["job_tasks_status"])} == {end}
    assert sum(ends.values()) == RACES


def test_nothing_steps_back_after_the_end(arena: Arena) -> None:
    for _ in range(RACES):
        job = arena.submit()
        arena.at_once(says_of_a_task(job, 0, task_state="COMPLETED"), says_of_a_task(job, 1, task_state="COMPLETED"))
        arena.clients[0].post("/results", content=results_of(job))
        before = arena.status(job)
        assert before["job_state"] == "COMPLETED"
        arena.at_once(
            says(job, "RUNNING"),
            says_of_a_task(job, 0, task_state="RUNNING", simulated_primaries=1),
            says_of_a_task(job, 1, simulated_primaries=7, estimated_time=5),
            says(job, "PENDING"),
        )
        assert arena.status(job) == before


def test_progress_only_grows_whoever_comes_last(arena: Arena) -> None:
    for _ in range(RACES):
        job = arena.submit()
        items = [10 * (number + 1) for number in range(CLIENTS)]
        calls = [says_of_a_task(job, 0, task_state="RUNNING", simulated_primaries=count) for count in items]
        arena.at_once(*calls)
        assert arena.status(job)["job_tasks_status"][0]["simulated_primaries"] == max(items)


def test_results_that_arrive_twice_at_once_are_stored_once(arena: Arena) -> None:
    for _ in range(min(RACES, 50)):
        job = arena.submit()
        answers = arena.at_once(sends(job))
        assert {answer.status_code for answer in answers} == {202}
        assert arena.pages(job) == 6
        assert arena.status(job)["job_state"] == "COMPLETED"


def test_results_against_cancel_is_one_or_the_other(arena: Arena) -> None:
    for _ in range(min(RACES, 50)):
        job = arena.submit()
        arena.at_once(sends(job), cancels(job))
        state, pages = arena.status(job)["job_state"], arena.pages(job)
        assert (state, pages) in {("COMPLETED", 6), ("CANCELED", 0)}


def test_a_server_that_is_killed_has_stored_everything_or_nothing(there: Place) -> None:
    """Half of the moments lie while the body is sent, half while it is stored."""
    backend = Backend(there.database, Folder(there.data / "spool"), b"0" * 32, foreign_workers=FOREIGN)
    user = users.ensure_user(backend, "killed")
    for moment in range(0, MOMENTS, 1 if RACES >= 300 else 4):
        server = there.up("--no-executor")
        submission = Submission("shieldhit", 2, "killed", None, payloads.project("dose"))
        job = simulations.submit_simulation(backend, user, submission)
        body = results_of(job, 2000)
        send_and_kill(server, body, moment)
        pages = stored_pages(there, job)
        assert pages in {0, 2000}
        (state,) = there.query(f'SELECT job_state FROM "Simulation" WHERE id = {job.simulation_id}')
        assert state == ("COMPLETED" if pages else "PENDING",)
        assert broken_invariants(there.database) == []


def send_and_kill(server: Server, body: bytes, moment: int) -> None:
    """Send what part of the body the moment asks for, or all of it and wait a little; then kill the whole server."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /results HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    half = MOMENTS // 2
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + body[: len(body) * min(moment, half) // half])
        time.sleep(0.02 * max(0, moment - half))
        server.stop(signal.SIGKILL)

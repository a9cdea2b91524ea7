"""Nobody's slow line, broken upload or large body keeps the server from answering others."""

import contextlib
import math
import os
import socket
import statistics
import threading
import time
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import update

from tests.support.payloads import estimator, page, submission
from tests.support.processes import Server, place, until
from tests.support.strangers import Flood, connections, head, log_in
from yaptide.client import Client
from yaptide.persistence.models import SimulationModel
from yaptide.services import lifecycle
from yaptide_client.http import Job

MIB = 2**20
KEY = "of a worker"
LIMITS = {"YAPTIDE_REQUEST_SECONDS": "4", "YAPTIDE_REQUEST_RATE": "2000000"}
#: How often all strangers come at once.
SIEGES = int(os.environ.get("SIEGES", "1"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow") / "place"
    with place(folder, YAPTIDE_FOREIGN_WORKERS="shieldhit", YAPTIDE_PROXIES="1", **LIMITS) as there:
        yield there.up("--no-executor").register()


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A server with long deadlines, for slow test machines."""
    folder = tmp_path_factory.mktemp("patient") / "place"
    with place(folder, YAPTIDE_FOREIGN_WORKERS="shieldhit", YAPTIDE_REQUEST_SECONDS="120") as there:
        yield there.up("--no-executor").register()


def check_health(server: Server) -> None:
    """It responds as if there were no other clients."""
    assert p99(times_of_health(server, 200)) < 1


def times_of_health(server: Server, count: int) -> list[float]:
    """How long answers take, seconds."""
    taken = []
    with httpx.Client(base_url=server.url, timeout=30) as http:
        for _ in range(count):
            begin = time.monotonic()
            assert http.get("/healthz").status_code == 200
            taken.append(time.monotonic() - begin)
    return taken


def p99(taken: list[float]) -> float:
    return sorted(taken)[math.ceil(0.99 * len(taken)) - 1]


def in_progress(server: Server) -> int:
    """Requests that are being answered, but for the one that asks."""
    figures = httpx.get(f"{server.url}/metrics").text
    (line,) = [line for line in figures.splitlines() if line.startswith("yaptide_http_requests_in_progress ")]
    return int(float(line.split()[1])) - 1


def memory(server: Server) -> float:
    """MiB that the process that serves takes."""
    status = Path(f"/proc/{server.running.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def accepted(server: Server, client: Client) -> tuple[Job, int]:
    """A simulation without a runner, whose update key is `KEY`, and its number."""
    job = client.job(client.call("POST", "/jobs/direct", json=submission())["job_id"])
    this = SimulationModel.__table__.c.job_id == job.job_id
    with server.place.database.writing() as connection:
        values = {"update_key_hash": lifecycle.hash_update_key(KEY)}
        connection.execute(update(SimulationModel.__table__).where(this).values(values))
    ((number,),) = server.place.query(f"SELECT id FROM \"Simulation\" WHERE job_id = '{job.job_id}'")
    return job, number


def status(connection: socket.socket) -> bytes:
    return connection.recv(12)[9:]


def break_off(server: Server) -> None:
    """Begin uploads by HTTP/2, and go."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    for _ in range(32):
        with connections(server, 1, preface):
            pass


def large_result(server: Server, client: Client) -> tuple[Job, tuple[float, ...]]:
    """A simulation with a result of 10 MB and more."""
    values = tuple(number / 7 for number in range(800_000))
    job, number = accepted(server, client)
    results = {"simulation_id": number, "update_key": KEY, "estimators": [estimator("dose_", page(values=values))]}
    client.call("POST", "/results", json=results)
    return job, values


def ask_for(job: Job, client: Client, encoding: str) -> bytes:
    """The request for its results."""
    cookie = "; ".join(f"{name}={value}" for name, value in client._http.cookies.items())
    return head("GET", f"/results?job_id={job.job_id}", 0, Cookie=cookie, **{"Accept-Encoding": encoding})


def test_broken_uploads_of_http_2_are_refused(server):
    break_off(server)
    check_health(server)


def test_slow_bodies_and_headers_hold_nobody_up(server):
    slow, unfinished = head("POST", "/auth/login", 1000) + b"{", b"GET /healthz HTTP/1.1\r\nHo"
    with connections(server, 30, slow) as bodies, connections(server, 200, unfinished) as heads:
        with server.client() as client:
            check_health(server)
            assert client.simulations() == []
        for number, connection in enumerate(bodies):
            if number % 2:
                with contextlib.suppress(OSError):
                    connection.send(b" ")
        assert {status(connection) for connection in (*bodies, *heads)} == {b"408"}


def test_a_head_without_an_end_is_refused(server):
    with connections(server, 1, b"GET /healthz HTTP/1.1\r\n") as (connection,):
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
        assert status(connection) in (b"431", b"")
    check_health(server)


def test_who_sends_nothing_is_left(server):
    with connections(server, 5, b"") as idle:
        assert [connection.recv(1) for connection in idle] == [b""] * 5


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_slow_readers_hold_nobody_up_and_take_little_memory(patient, encoding):
    with patient.client() as client:
        job, values = large_result(patient, client)
        ask = ask_for(job, client, encoding)
        before = memory(patient)
        with connections(patient, 20, ask):
            until(lambda: in_progress(patient) == 20, "all of them are being answered")
            check_health(patient)
            until(lambda: memory(patient) - before < 150, "what they have not read waits in files")
            assert client.simulations()
            assert in_progress(patient) == 20
        assert job.results().page("dose", 0).values[-1] == values[-1]


def test_slow_readers_are_left(server):
    with server.client() as client:
        job, _ = large_result(server, client)
        with connections(server, 20, ask_for(job, client, "identity")) as readers:
            until(lambda: in_progress(server) > 0, "some of them are being answered")
            until(lambda: in_progress(server) == 0, "the server gives up")
            assert max(map(bytes_until_the_end, readers)) < 8 * MIB


def bytes_until_the_end(connection: socket.socket) -> int:
    """How much still comes before a connection ends."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 16):
            count += len(chunk)
    return count


def test_large_bodies_without_a_key_wait_in_files_and_few_at_a_time(server):
    size = 62 * MIB
    before, most, answers, taken = memory(server), 0.0, [], []

    def send(connection):
        chunk = b'{"x":"' + b"x" * (MIB - 6)
        with contextlib.suppress(OSError):
            for _ in range(62):
                connection.sendall(chunk)
        with contextlib.suppress(OSError):
            answers.append(status(connection))

    with connections(server, 20, head("POST", "/jobs", size)) as opened:
        threads = [threading.Thread(target=send, args=(connection,)) for connection in opened]
        for thread in threads:
            thread.start()
        alive = True
        while alive:
            alive = any(thread.is_alive() for thread in threads)
            most = max(most, memory(server))
            taken += times_of_health(server, 20)
        for thread in threads:
            thread.join()
    assert most - before < 100
    assert statistics.median(taken) < 1
    assert set(answers) <= {b"400", b"503"}
    assert answers.count(b"400") <= 4
    check_health(server)


def test_a_large_body_of_who_proves_the_key_in_a_header_is_taken(server):
    with server.client() as client:
        _, number = accepted(server, client)
        body = orjson.dumps({"log": {"a.log": "x" * 3 * MIB}, "sim_id": number, "update_key": KEY})
        headers = {"Authorization": f"Bearer {KEY}", "Yaptide-Simulation": str(number)}
        answer = httpx.post(f"{server.url}/jobs", content=body, headers=headers, timeout=60)
        assert answer.status_code == 202, answer.text
        headers["Authorization"] = "Bearer wrong"
        answer = httpx.post(f"{server.url}/jobs", content=body, headers=headers, timeout=60)
        assert answer.status_code == 400
        assert answer.json() == {"message": "Invalid update key"}


def test_all_of_them_at_once_hold_nobody_up(server):
    slow, unfinished = head("POST", "/auth/login", 1000) + b"{", b"GET /healthz HTTP/1.1\r\nHo"
    with server.client() as client, httpx.Client(base_url=server.url) as owner:
        assert log_in(owner, "192.0.2.1").is_success
        job, _ = large_result(server, client)
        ask = ask_for(job, client, "gzip")
        break_off(server)
        flood = Flood(server)
        with flood.running():
            for _ in range(SIEGES):
                with connections(server, 30, slow), connections(server, 200, unfinished), connections(server, 20, ask):
                    check_health(server)
                    begun = time.monotonic()
                    assert log_in(owner, "192.0.2.1").is_success
                    assert time.monotonic() - begun < 5
                    assert client.simulations()
    assert flood.answers[503] > 0

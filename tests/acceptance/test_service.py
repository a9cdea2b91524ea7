"""`yaptide up` as a service: stopped while it is busy, behind a reverse proxy, watched by programs."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import update

from tests.support import projects
from tests.support.payloads import estimator, submission
from tests.support.processes import DEADLINE, PASSWORD, USER, Server, beam, place, until
from yaptide.domain.errors import Unavailable
from yaptide.domain.states import EntityState
from yaptide.persistence.models import SimulationModel
from yaptide.services import lifecycle


@pytest.fixture
def there(tmp_path):
    with place(tmp_path / "place", YAPTIDE_FOREIGN_WORKERS="shieldhit") as own_place:
        yield own_place


@contextlib.contextmanager
def slow_post(server: Server, body: bytes) -> Iterator[socket.socket]:
    """A connection on which all but the last byte of `POST /results` has been sent."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /results HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body[:-1])
        yield connection


def in_progress(server: Server) -> int:
    """Requests that are being answered, but for the one that asks."""
    figures = httpx.get(f"{server.url}/metrics").text
    (line,) = [line for line in figures.splitlines() if line.startswith("yaptide_http_requests_in_progress ")]
    return int(float(line.split()[1])) - 1


def refuses(server: Server) -> bool:
    """Return whether the port is closed."""
    try:
        httpx.get(server.url, timeout=1)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:  # taken in just before, and left
        pass
    return False


def submitted(server: Server) -> tuple[str, int]:
    """A simulation without a runner: its job_id and its number."""
    with httpx.Client(base_url=server.url) as http:
        assert http.post("/auth/login", json={"username": USER, "password": PASSWORD}).status_code == 202
        answer = http.post("/jobs/direct", json=submission())
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["job_id"]
    ((number,),) = server.place.query(f"SELECT id FROM \"Simulation\" WHERE job_id = '{job_id}'")
    return job_id, number


def test_a_request_that_runs_is_answered_before_the_server_ends(there):
    server = there.up("--no-executor").register()
    _, number = submitted(server)
    with there.database.writing() as connection:
        values = {"update_key_hash": lifecycle.hash_update_key("of a worker")}
        connection.execute(update(SimulationModel.__table__).values(values))
    body = orjson.dumps({"simulation_id": number, "update_key": "of a worker", "estimators": [estimator()]})
    with httpx.Client(base_url=server.url) as idle, slow_post(server, body) as connection:
        assert idle.get("/healthz").status_code == 200  # and its connection is kept
        until(lambda: in_progress(server) == 1, "the request runs")
        server.running.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(server), "new connections are refused")
        assert server.running.process.poll() is None
        connection.sendall(body[-1:])
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 202 ")
        assert server.running.wait().code == 0
    assert there.query('SELECT job_state FROM "Simulation"') == [("COMPLETED",)]


def test_a_request_that_never_ends_does_not_keep_the_server(there):
    server = there.up("--no-executor")
    with slow_post(server, b'{"simulation_id": 1}'):
        until(lambda: in_progress(server) == 1, "the request runs")
        assert server.stop().code == 0


def test_cookies_are_secure_behind_a_proxy_that_speaks_tls(there):
    server = there.up("--no-executor", YAPTIDE_PROXIES="1").register()
    for proto, secure in (("https", True), ("http", False)):
        headers = {"X-Forwarded-Proto": proto, "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "ui.example.org"}
        answer = httpx.post(f"{server.url}/auth/login", json={"username": USER, "password": PASSWORD}, headers=headers)
        assert [("Secure" in cookie) for cookie in answer.headers.get_list("set-cookie")] == [secure] * 3
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert httpx.get(f"{server.url}/metrics", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 404


def test_the_log_is_json_to_the_last_line(there):
    server = there.up(YAPTIDE_LOG_FORMAT="json").register()
    job_id, _ = submitted(server)
    checks = httpx.get(f"{server.url}/readyz").json()["checks"]
    assert checks.keys() == {"database", "tables", "storage", "threads", "simulators"}
    assert checks["simulators"] == "mcsquare, shieldhit"
    done = server.stop()
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all({"time", "level", "logger", "event"} <= line.keys() for line in lines)
    assert any(line["event"].startswith(f"yaptide serves {server.url}") for line in lines)
    (request,) = [line for line in lines if line.get("route") == "/jobs/direct"]
    assert (request["method"], request["status"], request["user"], request["job_id"]) == ("POST", 202, USER, job_id)
    assert not [line for line in lines if line.get("route") == "/readyz"]
    assert PASSWORD not in done.err
    assert done.out == ""


def test_in_text_nothing_but_the_greeting_is_said(there):
    server = there.up().register()
    httpx.get(f"{server.url}/no/such/page")
    (line,) = server.stop().err.splitlines()
    assert line.startswith(f"yaptide serves {server.url}")


def test_a_setting_that_cannot_be_used_is_named(there):
    done = there.run("up", YAPTIDE_LOG_FORMAT="xml")
    assert done.code == 1
    assert "YAPTIDE_LOG_FORMAT" in done.complaint


def test_nothing_in_the_folder_where_it_is_started_is_run(there, tmp_path):
    """Such as modules of the names that it imports, or a clone of this project beside it."""
    for name in ("typer.py", "yaptide/__init__.py", "sitecustomize.py", "celery/__init__.py"):
        trap = there.folder / name
        trap.parent.mkdir(exist_ok=True)
        trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').write(__file__)\nraise SystemExit(1)\n")
    server = there.up().register()
    with server.client() as client:
        job = client.submit(beam(tmp_path / "beam", 500), ntasks=2)
        assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
    assert there.run("doctor").code == 0
    assert not (tmp_path / "sprung").exists()


def test_without_the_simulator_of_projects_it_is_said_how_to_get_it(there, tmp_path):
    server = there.up(YAPTIDE_SIMULATORS_DIR=str(tmp_path / "none"), YAPTIDE_FOREIGN_WORKERS="").register()
    command = "an administrator can install it with `yaptide simulators install mcsquare`"
    assert f"MCsquare, which runs projects of the web editor, is not installed: {command}" in server.running.said
    with server.client() as client, pytest.raises(Unavailable, match="yaptide simulators install mcsquare"):
        client.submit(_project(tmp_path), sim_type="shieldhit")


def _project(folder: Path) -> Path:
    file = folder / "project.json"
    file.write_bytes(orjson.dumps(projects.water_phantom()))
    return file

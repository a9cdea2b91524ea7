"""`yaptide up` over real HTTP: what it serves and refuses, to whom, and what it keeps to itself."""

import contextlib
import re
import signal
import socket
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import orjson
import pytest

from tests.support.api import of_keycloak
from tests.support.ports import free_port
from tests.support.processes import DEADLINE, PASSWORD, USER, Server, beam, place, until
from tests.support.ssh import Authority
from yaptide.client import Client
from yaptide.domain.states import EntityState
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import credentials, secrets
from yaptide.services.backend import Backend
from yaptide.services.spool import Folder

BODY_MIB = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with place(tmp_path_factory.mktemp("serving") / "place", YAPTIDE_MAX_BODY_MIB=str(BODY_MIB)) as there:
        yield there.up().register()


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    return beam(tmp_path_factory.mktemp("water") / "water")


@pytest.fixture(scope="module")
def job_id(server, water):
    """A finished simulation of two tasks."""
    with server.client() as client:
        job = client.submit(water, ntasks=2)
        assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
        return job.job_id


@pytest.fixture
def there(tmp_path):
    with place(tmp_path / "place") as own_place:
        yield own_place


@contextlib.contextmanager
def sign_in(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as http:
        assert http.post("/auth/login", json={"username": USER, "password": PASSWORD}).status_code == 202
        yield http


def test_anybody_sees_that_it_runs_and_how_it_is_used(server):
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/").json() == {"message": "yaptide is running"}
        document = http.get("/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        assert {"/jobs/direct", "/results", "/auth/login", "/user/simulations"} <= document["paths"].keys()
        page = http.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "/jobs/direct" in page.text
        # A page that fetches nothing from elsewhere works without a network, and does not reveal its readers.
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)
        assert http.get("/no/such/page").json()["message"]


def kinds(names: Iterable[str]) -> set[str]:
    """Names of cookies without the mark of the installation."""
    return {name.rpartition("_")[0] for name in names}


def test_a_session_is_two_cookies_that_scripts_cannot_read(server):
    with sign_in(server) as http:
        assert kinds(http.cookies) == {"access_token", "refresh_token", "known_device"}
        assert http.get("/auth/status").json()["username"] == USER
        again = http.get("/auth/refresh")
        (cookie,) = SimpleCookie(again.headers["set-cookie"]).values()
        assert (*kinds([cookie.key]), cookie["httponly"], cookie["samesite"], cookie["path"]) == (
            "access_token",
            True,
            "Lax",
            "/",
        )
        kept = dict(http.cookies)
        assert http.delete("/auth/logout").status_code == 200
        assert kinds(http.cookies) == {"known_device"}
        assert httpx.get(f"{server.url}/auth/status", cookies=kept).status_code == 403
        assert http.get("/auth/status").json() == {"message": "No token provided"}


def test_results_are_the_same_compressed_and_plain_and_on_the_command_line(server, job_id):
    with sign_in(server) as http:
        query = {"job_id": job_id}
        packed = http.get("/results", params=query, headers={"Accept-Encoding": "gzip"})
        plain = http.get("/results", params=query, headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        for estimator in plain.json()["estimators"]:
            one = {**query, "estimator_name": estimator["name"], "page_numbers": "0", "values": "1"}
            assert http.get("/results", params=one).json()["pages"] == estimator["pages"]
        grid = {**query, "estimator_name": "Dose grid", "page_numbers": "0"}
        [page] = http.get("/results", params=grid).json()["pages"]
        assert http.get(page["results_url"]).json() == http.get("/results", params={**grid, "values": "1"}).json()
    done = server.place.run("results", job_id, "--json")
    assert done.out.encode() == plain.content + b"\n"


@pytest.mark.parametrize("path", ["/jobs/direct", "/auth/login"])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(server, path):
    with sign_in(server) as http:
        cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Length: {10 * 2**30}\r\n\r\n{{".encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_over_the_limit_in_pieces_is_refused(server):
    """Without a length, it shows only on the way that a body is too large."""
    pieces = (b" " * 2**16 for _ in range(BODY_MIB * 16 + 1))
    with sign_in(server) as http:
        answer = http.post("/jobs/direct", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "message" in answer.json()


def test_eight_clients_at_once_see_their_own_and_nothing_else(server, water):
    def use(number: int) -> list[str]:
        name = f"user-{number}"
        with Client(server.url) as client:
            client.register(name, PASSWORD)
            client.sign_in(name, PASSWORD)
            job = client.submit(water, title=name)
            for _ in range(20):
                assert job.status()["job_tasks_status"]
                assert client.call("GET", "/auth/status")["username"] == name
            assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
            assert job.results().bragg_peak()[1] == pytest.approx(40.8, abs=1)
            return [item["title"] for item in client.simulations()]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [[f"user-{number}"] for number in range(8)]


def test_a_new_password_ends_the_sessions(server):
    with Client(server.url) as client:
        client.register("bob", PASSWORD)
        client.sign_in("bob", PASSWORD)
        done = server.place.run("users", "passwd", "bob", "--password-file", "-", stdin="another password")
        assert done.code == 0
        assert client._http.get("/auth/status").status_code == 403
        client.sign_in("bob", "another password")


def test_a_port_is_served_by_one(server):
    port = server.url.rpartition(":")[2]
    done = server.place.run("up", "--port", port, YAPTIDE_DATA_DIR=str(server.place.folder / "other"))
    assert done.code == 1
    assert done.complaint == f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use"
    assert server.answers()


def test_code_that_lies_where_it_is_started_is_not_run(there, water, tmp_path):
    trapped = tmp_path / "trapped"
    for name in ("typer", "yaptide", "multiprocessing", "numpy", "sitecustomize"):
        trap = f"open({str(trapped)!r}, 'a').write({name!r}); raise SystemExit(3)\n"
        (there.folder / f"{name}.py").write_text(trap)
    server = there.up().register()
    with server.client() as client:
        assert client.submit(water).wait(DEADLINE, every=0.1) is EntityState.COMPLETED
    assert there.run("list", "--all").code == 0
    assert not trapped.exists()


def test_a_second_server_on_the_data_serves_and_takes_over_the_tasks_from_the_first(there, water):
    first = there.up().register()
    second = there.up()
    until(lambda: "Another process runs the tasks of this data folder" in second.running.said, "it says so")
    with second.client() as client:
        job = client.submit(water)
        assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
        (actor,) = {row["actor"] for row in job.history() if row["to_state"] == "RUNNING"}
        assert first.stop().code == 0
        again = client.submit(water)
        assert again.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
        assert actor not in {row["actor"] for row in again.history()}


def test_a_restart_signs_nobody_out(there):
    server = there.up().register()
    with sign_in(server) as http:
        cookies = dict(http.cookies)
    key = there.data / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert server.stop(signal.SIGKILL).code == -signal.SIGKILL
    server = there.up()
    with httpx.Client(base_url=server.url, cookies=cookies) as http:
        assert http.get("/auth/status").json()["username"] == USER
        assert http.get("/auth/refresh").status_code == 200
    assert key.read_bytes() == before


def test_no_secret_is_said_or_given_to_a_simulator(there, tmp_path):
    """Neither on what any process prints, nor on a command line, nor in the environment of what others have written."""
    signing_key = "signing key that only the server knows"
    there.variables |= {"FLASK_SECRET_KEY": signing_key}
    server = there.up().register()
    with sign_in(server) as http:
        wrong = http.post("/auth/login", json={"username": USER, "password": f"{PASSWORD}?"})
        assert wrong.status_code == 401
        broken = http.post(
            "/auth/login", content=f'{{"password": "{PASSWORD}"', headers={"Content-Type": "application/json"}
        )
        assert broken.status_code == 400
        forged = http.post("/tasks", json={"simulation_id": 1, "task_id": 0, "update_key": PASSWORD, "update_dict": {}})
        assert forged.status_code == 400
        for refused in (wrong, broken, forged):
            assert PASSWORD not in refused.text
        tokens = list(http.cookies.values())
    with server.client() as client:
        job = client.submit(beam(tmp_path / "beam", 1e9))
        until(there.simulators, "a simulator runs")
        seen = [
            Path(f"/proc/{pid}/{name}").read_text() for pid in there.simulators() for name in ("environ", "cmdline")
        ]
        job.cancel()
        answers = [job.status(), job.history(), job.inputs(), client.simulations()]
    server.stop()
    hashes = [row[0] for row in there.query('SELECT password_hash FROM "YaptideUser"')]
    hashes += [row[0] for row in there.query('SELECT update_key_hash FROM "Simulation"')]
    everything = there.said() + "".join(seen) + orjson.dumps(answers).decode()
    assert not [secret for secret in (PASSWORD, signing_key, *tokens, *hashes) if secret in everything]
    assert not any("YAPTIDE" in text or "FLASK" in text for text in seen)


def test_a_server_does_not_start_without_the_keys_of_what_is_stored(there):
    key, other = secrets.new_key(), secrets.new_key()
    with contextlib.closing(Database(there.url)) as database:
        there.data.mkdir()
        schema.upgrade_tables(database)
        backend = Backend(database, Folder(there.data / "spool"), b"", secret_keys=(key,))
        pair = Authority().pair("alice")
        credentials.store_credentials(backend, of_keycloak(backend, "alice"), pair["cert"], pair["private"])
    for keys, message in {
        "": "set YAPTIDE_SECRET_KEYS to the one in use",
        other: "add the key that encrypted it",
    }.items():
        done = there.run("up", "--port", free_port(), YAPTIDE_SECRET_KEYS=keys)
        assert (done.code, message in done.err) == (1, True)
    assert there.run("secrets", "rotate", YAPTIDE_SECRET_KEYS=f"{other},{key}").code == 0
    there.up("--no-executor", YAPTIDE_SECRET_KEYS=other).stop()

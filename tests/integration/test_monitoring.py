"""What monitoring sees of the application: health, readiness, figures, and the log."""

import contextlib
import io
import json
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text, update

from tests.support.api import PASSWORD, cookie_name, cookie_of, submit
from tests.support.log import left_alone
from yaptide import logs
from yaptide.application import create_app
from yaptide.disk import MIN_FREE
from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Database
from yaptide.persistence.models import SimulationModel
from yaptide.persistence.queries import stats
from yaptide.services import metrics, readiness, sessions
from yaptide.settings import Settings

AWAY = "postgresql://operator:hidden-password@127.0.0.1:1/yaptide"
one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)


def made(backend, **settings):
    """The application with settings of its own."""
    return create_app(Settings(_env_file=None, **settings), backend)


@pytest.fixture
def away(app, backend, monkeypatch):
    """A database that nobody can reach."""
    database = Database(AWAY)
    monkeypatch.setitem(app.extensions, "yaptide", replace(backend, database=database))
    yield database
    database.close()


def samples(client, **arguments):
    """Every sample of a scrape: name and labels to value."""
    answer = client.get("/metrics", **arguments)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_ready_and_healthy(client, backend):
    assert client.get("/healthz").json == {"message": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    fine = {"database": "ok", "tables": "ok", "storage": "ok"}
    assert answer.json == {
        "message": "ready",
        "checks": {**fine, "simulators": ", ".join(sorted({"mcsquare", *backend.foreign_workers}))},
    }


def test_that_nothing_can_be_run_is_told_and_is_no_reason_to_send_requests_elsewhere(app, backend, monkeypatch):
    monkeypatch.setitem(app.extensions, "yaptide", replace(backend, foreign_workers=frozenset()))
    with backend.database.writing() as connection:
        connection.execute(text('DELETE FROM "Runner"'))
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json["message"]) == (200, "ready")
    assert answer.json["checks"]["simulators"] == (
        "no executor, worker or cluster can run simulations: submissions are rejected, accepted ones wait"
    )


@one_database
def test_without_a_database_it_is_healthy_and_not_ready(client, away, backend):
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["message"] == "not ready: database, tables"
    assert answer.json["checks"]["storage"] == "ok"
    assert not re.search("hidden|operator|127.0.0.1|/", answer.text)
    (check, *_) = readiness.run_checks(replace(backend, database=away))
    assert "127.0.0.1" in check.remedy
    assert "hidden" not in check.remedy


@one_database
def test_a_database_of_another_version_is_not_ready_and_stays_as_it_is(backend, empty):
    by_name = {check.name: check for check in readiness.run_checks(replace(backend, database=empty))}
    assert (by_name["database"].ok, by_name["tables"].ok) == (True, False)
    assert by_name["tables"].message == "there are no tables"
    assert by_name["tables"].remedy == "yaptide db upgrade"
    with empty.writing() as connection:
        connection.execute(text("CREATE TABLE other (id int)"))
    (_, tables, _) = readiness.run_checks(replace(backend, database=empty))
    assert tables.message == "the tables were not created by this version of yaptide"


@pytest.mark.parametrize("database", ["memory"], indirect=True)
def test_a_server_whose_tables_are_old_is_healthy_and_not_ready(backend, postgres):
    url = postgres.create_database()
    app = made(replace(backend, database=Database(url)))
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert client.get("/readyz").json["checks"] == {
        "database": "ok",
        "tables": "there are no tables",
        "storage": "ok",
    }
    assert client.get("/auth/status").status_code == 503
    app.extensions["yaptide"].database.close()
    postgres.drop_database(url)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_database_that_answers_nobody_else_is_ready(backend, database):
    """All connections of the pool are in use: that is much to do, and no reason to be restarted."""
    pool = database.engine.pool
    held = [database.engine.connect() for _ in range(pool.size() + pool._max_overflow)]
    assert all(check.ok for check in readiness.run_checks(backend))
    for connection in held:
        connection.close()


@pytest.mark.parametrize("database", ["memory"], indirect=True)
def test_a_data_folder_that_cannot_be_used_is_not_ready(client, backend, monkeypatch):
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, MIN_FREE - 1))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["checks"]["storage"] == "less than 256 MiB are free"
    monkeypatch.undo()
    # The kernel lets nobody, not even root, make a file here.
    check = readiness.run_checks(replace(backend, data_dir=Path("/proc/self/data")))[-1]
    assert not check.ok
    assert check.message.startswith("the data folder is not writable: ")
    assert "/proc" not in check.message
    assert "/proc/self" in check.remedy


@one_database
def test_looking_leaves_nothing(client, backend):
    before = sorted(backend.data_dir.rglob("*"))
    assert client.get("/readyz").status_code == 200
    assert sorted(backend.data_dir.rglob("*")) == before


def test_figures_of_the_store(client, signed_in, database):
    first, second = submit(signed_in), submit(signed_in)
    first.report_task(0, task_state="RUNNING", start_time="2026-03-01 10:00:00.0")
    second.bring_to("COMPLETED")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with database.writing() as connection:
        connection.execute(update(SimulationModel.__table__).values(start_time=hour_ago))
    result = samples(client)
    assert result["yaptide_database_up",] == 1
    assert result["yaptide_simulations", ("state", "RUNNING")] == 1
    assert result["yaptide_simulations", ("state", "PENDING")] == 0
    assert result["yaptide_tasks", ("state", "PENDING")] == 1
    assert result["yaptide_tasks", ("state", "RUNNING")] == 1
    (age,) = [value for (name, *_), value in result.items() if name == "yaptide_oldest_waiting_task_seconds"]
    assert 3600 <= age < 3700
    with database.reading() as connection:
        assert result["yaptide_stored_bytes",] == stats.stored_bytes(connection) > 0


@one_database
def test_figures_of_requests(client, signed_in):
    before = samples(client)
    body = b'{"a": 1}' + b" " * 1000
    signed_in.post("/user/update", data=body, content_type="application/json")
    sent = len(signed_in.get("/user/simulations?order_by=start_time").data)
    client.get("/no/such/page/17")
    client.open("/auth/status", method="BREW")
    after = samples(client)

    def grown(*key):
        return after[key] - before.get(key, 0)

    def requests(method, route, status):
        labels = (("method", method), ("route", route), ("status", status))
        return grown("yaptide_http_request_seconds_count", *labels)

    assert requests("POST", "/user/update", "2xx") == 1
    assert requests("GET", "/user/simulations", "2xx") == 1
    assert requests("GET", "none", "4xx") == 1
    assert requests("other", "none", "4xx") == 1
    assert grown("yaptide_http_received_bytes_total") == len(body)
    assert grown("yaptide_http_sent_bytes_total") > sent
    assert grown("yaptide_http_requests_in_progress") == 0  # each scrape counts itself; others may never be read
    assert after["process_resident_memory_bytes",] > 0


@one_database
def test_figures_of_tasks(client):
    labels = (("outcome", "COMPLETED"), ("sim_type", "mcsquare"))
    before = samples(client).get(("yaptide_task_seconds_count", *labels), 0)
    metrics.observe_task("mcsquare", EntityState.COMPLETED, 12.5)
    metrics.observe_task("mcsquare", EntityState.COMPLETED, -1.0)  # clocks differ
    assert samples(client)["yaptide_task_seconds_count", *labels] == before + 2


@one_database
def test_figures_without_a_database(client, away):
    result = samples(client)
    assert result["yaptide_database_up",] == 0
    assert result["process_resident_memory_bytes",] > 0
    assert not any(name == "yaptide_tasks" for name, *_ in result)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_figures_of_a_database_that_is_locked_do_not_wait(client, database, monkeypatch):
    with database.writing() as connection:
        connection.execute(text('LOCK TABLE "Task" IN ACCESS EXCLUSIVE MODE'))
        assert samples(client)["yaptide_database_up",] == 0
    assert samples(client)["yaptide_database_up",] == 1


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_figures_are_read_from_small_indexes(database):
    """Those hold what is open, a small part of all that there is."""
    queries = []
    event.listen(database.engine, "before_cursor_execute", lambda *result: queries.append(result[2:4]))
    with database.reading() as connection:
        stats.open_simulations(connection)
        stats.open_tasks(connection)
        stats.stored_bytes(connection)
        asked = queries[:]
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plans = [
            "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {query}", values))
            for query, values in asked
        ]
    for plan, index in zip(
        plans, ("ix_Simulation_open", "ix_Task_waiting", "ix_Simulation_user_id_stored_bytes"), strict=True
    ):
        assert f'"{index}"' in plan, plan


@one_database
@pytest.mark.parametrize(
    ("setting", "address", "header", "seen"),
    [
        ("local", "127.0.0.1", None, True),
        ("local", "::1", None, True),
        ("local", "192.0.2.1", None, False),
        ("local", "127.0.0.1", "X-Forwarded-For", False),
        ("local", "127.0.0.1", "Forwarded", False),
        ("local", "127.0.0.1", "Via", False),
        ("network", "192.0.2.1", None, True),
        ("network", "192.0.2.1", "X-Forwarded-For", False),
        ("off", "127.0.0.1", None, False),
    ],
)
@pytest.mark.parametrize("proxies", [0, 1])
def test_figures_are_for_those_who_may_see_them(backend, setting, address, header, seen, proxies):
    client = made(backend, metrics=setting, proxies=proxies).test_client()
    headers = {header: "127.0.0.1"} if header else {}
    answer = client.get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == (200 if seen else 404)
    if not seen:
        assert answer.json == client.get("/no/such/page").json


def test_every_figure_is_documented(client):
    message = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", message, re.MULTILINE))
    metrics.observe_task("mcsquare", EntityState.COMPLETED, 1)
    client.get("/")
    result = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        if family.name.startswith("yaptide_"):
            result[family.name + ("_total" if family.type == "counter" else "")] = family.type
    assert {name: kind for name, kind in rows.items() if name.startswith("yaptide_")} == result


@pytest.fixture
def log():
    """The lines of the log so far, as JSON, of all levels."""
    with left_alone():
        with contextlib.redirect_stderr(io.StringIO()) as said:
            logs.configure_logging("json", "debug")
        yield lambda: [json.loads(line) for line in said.getvalue().splitlines()]


def test_one_line_a_request(client, job, log):
    job.get("/jobs/direct")
    client.get("/no/such/page")
    client.get("/healthz")
    job.report_task(1, simulated_primaries=3)
    job.post_results()
    user, nowhere, health, task, results = (line for line in log() if line["event"] == "request")
    assert (user["method"], user["route"], user["status"]) == ("GET", "/jobs/direct", 200)
    assert (user["user"], user["job_id"], user["level"]) == ("alice", job.job_id, "info")
    assert 0 < user["milliseconds"] < 60_000
    assert (nowhere["route"], nowhere["status"]) == ("none", 404)
    assert not {"user", "job_id"} & nowhere.keys()
    assert (health["route"], health["level"]) == ("/healthz", "debug")
    assert (task["route"], task["simulation"], task["task"]) == ("/tasks", job.simulation_id, 1)
    assert (results["route"], results["status"], results["job_id"]) == ("/results", 202, job.job_id)


@one_database
def test_an_unexpected_error_is_told_with_what_it_is_about(job, log, monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(sessions.queries, "by_session", fail)
    assert job.get("/jobs/history").status_code == 500
    error, request = log()
    assert (error["level"], error["event"], error["job_id"]) == ("error", "/jobs/history failed", job.job_id)
    assert error["exception"][0]["exc_value"] == "broken"
    assert request["status"] == 500


@contextlib.contextmanager
def tables_gone(database, *names):
    """Without these tables, meanwhile."""

    def rename(end, other):
        with database.writing() as connection:
            for name in names:
                connection.execute(text(f'ALTER TABLE "{name}{end}" RENAME TO "{name}{other}"'))

    rename("", "Gone")
    try:
        yield
    finally:
        rename("Gone", "")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_no_secret_gets_into_the_log(app, client, job, log, backend, monkeypatch):
    secret = "hidden-secret"
    stored = cookie_of(job.client, "access_token")
    keys = {"simulation_id": job.simulation_id, "update_key": secret}
    headers = {"Authorization": f"Bearer {secret}", "X-Api-Key": secret, "User-Agent": secret, "Referer": secret}
    client.set_cookie(cookie_name(app, "access_token"), secret)
    client.post("/auth/login", json={"username": "alice", "password": secret})
    client.post("/auth/login", json={"username": secret, "password": secret})
    client.post("/auth/login", data=f'{{"password": "{secret}"', content_type="application/json")
    client.put("/auth/register", json={"username": "alice", "password": secret})
    client.get(f"/auth/status?token={secret}", headers=headers)
    client.get("/jobs", query_string={"job_id": secret}, headers=headers)
    client.get(f"/{secret}")
    client.open("/", method=secret.upper())
    client.get("/", headers={"Host": secret, "X-Forwarded-For": secret, "Origin": secret})
    client.post("/tasks", json={**keys, "task_id": 0, "update_dict": {"celery_id": secret}})
    client.post("/results", json={**keys, "estimators": []})
    client.post("/logfiles", json={**keys, "logfiles": {secret: secret}})
    client.post("/jobs", json={"sim_id": job.simulation_id, "update_key": secret})
    job.client.post("/user/update", json={"password": secret, "new_password": secret})
    job.post_results()
    # A statement fails in an unexpected way, with what it was given; a function, with what it holds.
    with tables_gone(backend.database, "Session", "YaptideUser"):
        client.put("/auth/register", json={"username": "bob", "password": secret})
        client.post(f"/auth/login?token={secret}", json={"username": "alice", "password": PASSWORD})
        job.get("/jobs/direct", token=secret)
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "begin_session", lambda *_, **__: 1 / 0)
        client.post("/auth/login", json={"username": "alice", "password": PASSWORD})
        patched.setitem(app.extensions, "yaptide", replace(backend, database=Database(AWAY)))
        client.get("/readyz")
        client.post("/auth/login", json={"username": "alice", "password": PASSWORD})
    lines = log()
    assert sum(line["event"] == "request" for line in lines) >= 19
    assert sum(line["level"] in ("warning", "error") for line in lines) >= 5
    message = json.dumps(lines).lower()
    secrets = (secret, "hidden-password", PASSWORD, "$argon2", stored, job.update_key)
    assert not [result for result in secrets if result.lower() in message]

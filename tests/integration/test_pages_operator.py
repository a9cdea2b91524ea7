"""The page for operators: for whom it is, and that it says what the commands say."""

from dataclasses import replace

import pytest

from tests.support.api import PASSWORD, cookie_name, of_keycloak, sign_in
from tests.support.routes import send_form
from tests.support.storing import copy_into_memory
from yaptide.application import make_backend
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER
from yaptide.services import clusters, diagnosis, runners, sessions
from yaptide.services.backend import utc_now
from yaptide.services.clusters import Cluster
from yaptide.settings import Settings

SECTIONS = ("findings", "queue", "workers", "clusters", "users", "storage")


@pytest.fixture
def database(migrated_file):
    """In memory: what is tested here is the same on all."""
    database = copy_into_memory(migrated_file)
    yield database
    database.close()


@pytest.fixture
def backend(backend):
    return replace(backend, operators=frozenset({(YAPTIDE_USER, "olga"), (KEYCLOAK_USER, "kim")}))


@pytest.fixture
def olga(app, backend):
    """An operator who is signed in."""
    return sign_in(app, "olga")


def test_operators_are_those_of_the_setting(tmp_path):
    settings = Settings(_env_file=None, data_dir=tmp_path, admins=" alice, keycloak:bob ,")
    backend = make_backend(settings)
    backend.database.close()
    assert backend.operators == {(YAPTIDE_USER, "alice"), (KEYCLOAK_USER, "bob")}
    assert make_backend(Settings(_env_file=None, data_dir=tmp_path)).operators == frozenset()


def test_nobody_else_sees_it(app, backend, olga, signed_in):
    session = sessions.begin_session(backend, of_keycloak(backend, "olga"))  # of that name at Keycloak, not here
    namesake = app.test_client()
    namesake.set_cookie(cookie_name(app, "access_token"), session.access.text)
    for client in (signed_in, namesake):
        for path in ("/operator", *(f"/operator/{name}" for name in SECTIONS)):
            answer = client.get(path)
            assert (answer.status_code, answer.mimetype) == (403, "text/html"), path
            assert "YAPTIDE_ADMINS" in answer.text
        assert "Operator" not in client.get("/simulations").text
    assert "Operator" in olga.get("/simulations").text
    assert olga.get("/operator").status_code == 200


def test_an_operator_of_keycloak(app, backend):
    client = app.test_client()
    session = sessions.begin_session(backend, of_keycloak(backend, "kim"))
    client.set_cookie(cookie_name(app, "access_token"), session.access.text)
    assert client.get("/operator").status_code == 200


def test_nobody_can_register_as_an_operator(app, client):
    for name in ("olga", "OLGA"):
        body = {"username": name, "password": PASSWORD}
        answer = client.put("/auth/register", json=body)
        if name == "olga":
            assert (answer.status_code, "kept for an administrator" in answer.json["message"]) == (403, True)
        else:  # another name, which does not make an operator
            assert answer.status_code == 201
    assert client.put("/auth/register", json={"username": "kim", "password": PASSWORD}).status_code == 201
    browser = app.test_client()
    send_form(browser, "/sign-in", username="OLGA", password=PASSWORD)
    assert browser.get("/operator").status_code == 403


def test_it_says_what_the_commands_say(backend, olga, job, monkeypatch):
    now = utc_now()
    monkeypatch.setattr(diagnosis, "utc_now", lambda: now)  # how long something waits is said in seconds
    clusters.add_cluster(backend.database, Cluster("ares"))
    page = olga.get("/operator").text
    for finding in [*diagnosis.diagnose_surroundings(backend), *diagnosis.diagnose_tasks(backend)]:
        assert finding.message in page
    assert "executor-of-tests" in page
    assert "mcsquare 1.1" in page
    assert ">ares<" in page
    assert "not set up" in page
    assert ">alice<" in page
    assert job.job_id in page


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_is_loaded_by_itself(olga, section):
    part = olga.get(f"/operator/{section}", headers={"HX-Request": "true"})
    assert part.status_code == 200
    assert "<html" not in part.text
    assert olga.get(f"/operator/{section}x").status_code == 404


def test_the_queue_counts_tasks(backend, olga, job):
    def counted():
        queue = diagnosis.count_queue(backend)
        return queue.waiting, queue.running, queue.merges

    assert counted() == (2, 0, 0)
    job.report_task(task_state="RUNNING")
    assert counted() == (1, 1, 0)
    page = olga.get("/operator/queue").text
    assert "<dt>tasks running</dt><dd>1</dd>" in page


def test_a_worker_that_has_gone_is_not_shown(backend, olga):
    runners.withdraw_runner(backend, "executor-of-tests")
    assert "executor-of-tests" not in olga.get("/operator/workers").text
    runners.withdraw_runner(backend, "driver-of-tests")
    assert "No worker is running" in olga.get("/operator/workers").text


def test_names_are_escaped(app, backend, olga):
    runners.announce_runner(backend, "<b>host</b>", runners.DIRECT, {})
    page = olga.get("/operator").text
    assert "&lt;b&gt;host&lt;/b&gt;" in page
    assert "<b>host" not in page

"""Simulations on clusters, as far as the server goes: submitting them, what their tasks may hand in, and requeueing."""

import io
import json
import stat
import warnings
from dataclasses import dataclass, replace
from zipfile import ZipFile, ZipInfo

import pytest
from flask.testing import FlaskClient

from tests.support.api import contents, cookie_name, of_keycloak
from yaptide.domain.states import EntityState
from yaptide.platforms.batch.session import reachable_url
from yaptide.services import batch, clusters, lifecycle, output_upload, recovery, sessions
from yaptide.services.backend import utc_now
from yaptide.services.clusters import Cluster
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare.sample import water_sample

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPS7Ng9ygUjuzx2HfXtGPN4kBuoq1ArzE5g3X8ZHnQs7"
one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)


def cluster(name="ares", **changes):
    values = {"host": "login.example.org", "host_key": KEY, "scratch_folder": "/scratch/{user}"}
    return Cluster(name, **values | {"simulators": {"mcsquare": "/opt/mcsquare"}} | changes)


@pytest.fixture
def kim(app, backend) -> FlaskClient:
    """A user of Keycloak who is signed in."""
    client = app.test_client()
    user = of_keycloak(backend, "kim")
    client.set_cookie(cookie_name(app, "access_token"), sessions.begin_session(backend, user).access.text)
    return client


def body(**changes):
    result = {
        "input_type": "files",
        "input_files": water_sample(3200),
        "ntasks": 2,
        "sim_type": "mcsquare",
        "title": "t",
    }
    return result | {"batch_options": {"cluster_name": "ares"}} | changes


@dataclass
class Node:
    """A node of the cluster, which has a simulation's key."""

    client: FlaskClient
    job: batch.Job
    key: str

    def call(self, method, path, **options):
        headers = {"Authorization": f"Bearer {self.key}"}
        return self.client.open(f"/worker/{self.job.id}{path}", method=method, headers=headers, **options)

    def claim(self, worker="slurm-12_1-0", task=1):
        message = {"worker": worker, "simulator_version": "", "simulator_digest": "", "with_input": False}
        return self.call("POST", f"/tasks/{task}/claim", json=message)

    def hand_in(self, data, exit_code=0, task=1):
        claimed = self.claim(task=task).json
        query = {"owner": claimed["owner"], "attempt": claimed["attempt"], "exit_code": exit_code}
        return self.call("PUT", f"/tasks/{task}/files", query_string=query, data=data)


@pytest.fixture
def node(app, backend, kim) -> Node:
    clusters.add_cluster(backend.database, cluster())
    job_id = kim.post("/jobs/batch", json=body()).json["job_id"]
    (job,) = batch.list_unfinished(backend)
    assert job.job_id == job_id
    return Node(app.test_client(), job, lifecycle.update_key(backend, job_id))


def state(kim, job_id):
    return kim.get("/jobs/batch", query_string={"job_id": job_id}).json


def test_a_job_waits_for_its_cluster_at_once(backend, kim, node):
    result = state(kim, node.job.job_id)
    assert result["job_state"] == "PENDING"
    assert [task["task_id"] for task in result["job_tasks_status"]] == [1, 2]
    assert node.job.job_id.endswith("BATCH")
    (item,) = kim.get("/user/simulations").json["simulations"]
    assert item["metadata"]["platform"] == "BATCH"
    assert (node.job.cluster_name, node.job.job_dir, node.job.array_id) == ("ares", None, None)


@one_database
def test_options_of_the_array_and_of_what_follows_it(backend, kim):
    clusters.add_cluster(backend.database, cluster())
    asked = {
        "cluster_name": "default",  # the only one
        "array_header": "#SBATCH --time=10\n#SBATCH --mem=1G\n",
        "array_options": {"--time": "20"},
        "collect_options": {"-p": "short"},
    }
    assert kim.post("/jobs/batch", json=body(batch_options=asked)).status_code == 202
    (job,) = batch.list_unfinished(backend)
    expected = {"array": {"--time": "20", "--mem": "1G"}, "collect": {"--partition": "short"}}
    assert json.loads(job.options) == expected


@one_database
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster_name": "other"}, "Unknown cluster 'other'"),
        ({"cluster_name": "a\nb"}, "cluster_name"),
        ({"cluster_name": 5}, "cluster_name"),
        ({"array_options": {"--wrap": "id"}}, "cannot have the option '--wrap'"),
        ({"array_options": {"--time": "1;id"}}, "Invalid value of the option --time"),
        ({"array_options": "--time=1"}, "array_options an object"),
        ({"collect_header": "touch x"}, "only #SBATCH lines and comments"),
        ({"collect_header": 1}, "collect_header must be a string"),
        ({"more": 1}, "'more' is unknown"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(backend, kim, options, words):
    clusters.add_cluster(backend.database, cluster())
    before = contents(backend.database)
    response = kim.post("/jobs/batch", json=body(batch_options={"cluster_name": "ares", **options}))
    assert response.status_code == 400, response.json
    assert words in response.json["message"]
    assert contents(backend.database) == before


@one_database
@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"host": None, "host_key": None}, 503, "not set up"),
        ({"host_key": None}, 503, "not set up"),
        ({"scratch_folder": None}, 503, "not set up"),
        ({"simulators": {}}, 503, "has no MCsquare"),
        ({"max_tasks": 1}, 400, "allows 1 tasks"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_at_once(backend, kim, changes, status, words):
    clusters.add_cluster(backend.database, cluster(**changes))
    response = kim.post("/jobs/batch", json=body())
    assert (response.status_code, words in response.json["message"]) == (status, True), response.json


@one_database
def test_without_a_cluster_or_without_keycloak_there_is_nothing(kim, signed_in):
    assert kim.post("/jobs/batch", json=body()).status_code == 503
    assert signed_in.post("/jobs/batch", json=body()).status_code == 403


def packed(*entries, mode=0):
    file = io.BytesIO()
    with ZipFile(file, "w") as archive, warnings.catch_warnings(action="ignore"):  # of names that are there twice
        for name, data in entries:
            info = ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return file.getvalue()


@one_database
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK, but no archive",
        packed(("../x", "")),
        packed(("/x", "")),
        packed(("a/../../x", "")),
        packed(("", "")),
        packed(("folder/", "")),
        packed(("link", "/etc/passwd"), mode=stat.S_IFLNK | 0o777),
        packed(("pipe", ""), mode=stat.S_IFIFO | 0o777),
        packed(("config.txt", "Num_Primaries 1")),  # the input is that of the server
        packed(("a", ""), ("a/b", "")),
        packed(("same", ""), ("same", "")),
        packed(*((f"f{number}", "") for number in range(1001))),
    ],
)
def test_an_archive_that_no_simulator_leaves_is_refused(backend, kim, node, tmp_path, data):
    response = node.hand_in(data)
    assert response.status_code == 400, response.json
    assert state(kim, node.job.job_id)["job_tasks_status"][0]["task_state"] == "RUNNING"
    assert {path.name for path in tmp_path.iterdir()} <= {"spool"}


def test_files_with_names_that_no_simulator_needs_are_left_out(tmp_path):
    names = [".hidden", "a\nb", "(copy)", "d\N{LATIN SMALL LETTER O WITH DIAERESIS}se", "a/b/c/d/e", "dose.bdo"]
    (tmp_path / "a.zip").write_bytes(packed(*((name, "") for name in names)))
    (tmp_path / "folder").mkdir()
    output_upload.unpack_archive(tmp_path / "a.zip", tmp_path / "folder", 1000)
    assert [path.name for path in (tmp_path / "folder").rglob("*")] == ["dose.bdo"]


@one_database
def test_an_archive_that_is_too_large_unpacked_is_refused(backend, kim, node, monkeypatch):
    limited = replace(backend, limits=replace(backend.limits, output=1000))
    monkeypatch.setitem(node.client.application.extensions, "yaptide", limited)
    assert node.hand_in(packed(("zeros", b"\0" * 1001))).status_code == 400


def test_what_the_files_say_of_a_failure_is_kept(kim, node):
    response = node.hand_in(packed((OUTPUT_LOG, "Error: <no> beam\n")), exit_code=3)
    assert response.json["wanted"] is True
    history = kim.get("/jobs/history", query_string={"job_id": node.job.job_id}).json["history"]
    assert "MCsquare reports: Error: <no> beam" in [change["reason"] for change in history]
    logs = kim.get("/logfiles", query_string={"job_id": node.job.job_id}).json["logfiles"]
    assert logs == {f"task-1-{OUTPUT_LOG}": "Error: &lt;no&gt; beam\n"}
    assert node.claim().status_code == 409


@one_database
def test_files_are_only_taken_of_whoever_runs_the_task(node):
    query = {"owner": "somebody", "attempt": 1, "exit_code": 0}
    assert node.call("PUT", "/tasks/1/files", query_string=query, data=packed()).json["wanted"] is False
    node.key = "another"
    assert node.call("PUT", "/tasks/1/files", query_string=query, data=packed()).status_code == 400


def test_a_task_that_was_requeued_is_its_next_runs(kim, node):
    first = node.claim("slurm-12_1-0").json
    assert node.claim("slurm-12_1-0").json == first
    assert "input_files" not in first or first["input_files"] == {}
    assert node.claim("slurm-13_1-1").status_code == 409  # of another job
    assert node.claim("host-1").status_code == 409
    second = node.claim("slurm-12_1-2").json
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert node.claim("slurm-12_1-0").status_code == 409
    message = {"owner": first["owner"], "attempt": 1, "simulated_primaries": 5}
    assert node.call("POST", "/tasks/1/progress", json=message).json["wanted"] is False


def test_nobody_takes_tasks_away_from_a_cluster(backend, kim, node):
    node.claim()
    recovery.requeue_stalled(backend, utc_now(), dead_owner=backend.spool.place)
    assert state(kim, node.job.job_id)["job_tasks_status"][0]["task_state"] == "RUNNING"


def test_what_a_cluster_says_does_not_overtake_what_a_node_said(backend, kim, node):
    (before, _) = batch.open_tasks(backend, node.job)
    node.claim()
    assert not batch.end_task(backend, node.job, before, EntityState.FAILED, "too late")
    (task, other) = batch.open_tasks(backend, node.job)
    assert batch.end_task(backend, node.job, task, EntityState.PENDING, "requeued")
    assert batch.end_task(backend, node.job, other, EntityState.FAILED, "its node failed", {"log": "text"})
    assert [one["task_state"] for one in state(kim, node.job.job_id)["job_tasks_status"]] == ["PENDING", "FAILED"]


def test_remarks_are_made_once_and_refusals_end_it(backend, kim, node):
    for _ in range(2):
        batch.add_note(backend, node.job, "the cluster is away")
    batch.refuse_submission(backend, node.job, "no such partition")
    history = kim.get("/jobs/history", query_string={"job_id": node.job.job_id}).json["history"]
    reasons = [change["reason"] for change in history]
    assert reasons.count("the cluster is away") == 1
    assert state(kim, node.job.job_id)["job_state"] == "FAILED"
    assert batch.list_unfinished(backend) == []


@pytest.mark.parametrize("number", [None, 7])
def test_what_may_be_on_the_cluster_is_not_refused(backend, kim, node, number):
    """The stored state decides: what the driver knows may be older than its own submission."""
    batch.store_array(backend, node.job, batch.Array(1, 1, number))
    assert not batch.refuse_submission(backend, node.job, "the certificate expired")
    assert state(kim, node.job.job_id)["job_state"] == "PENDING"
    batch.remove_array(backend, node.job, batch.Array(1, 1, number))
    assert batch.refuse_submission(backend, node.job, "no such partition") is (number is None)


def test_a_node_cannot_say_which_folder_and_jobs_are_its_own(backend, node):
    report = {"sim_id": node.job.id, "update_key": node.key, "job_dir": "/of/others", "array_id": 1, "collect_id": 2}
    assert node.client.post("/jobs", json=report).status_code == 202
    (job,) = batch.list_unfinished(backend)
    assert (job.job_dir, job.array_id, job.collect_id) == (None, None, None)


def test_only_one_installation_submits(backend, node, tmp_path):
    assert batch.claim_submission(backend, node.job, "/scratch/kim/x") == node.key
    assert batch.claim_submission(backend, node.job, "/scratch/kim/x") == node.key
    with backend.database.writing() as connection:
        connection.exec_driver_sql("UPDATE \"Simulation\" SET owner = 'elsewhere/cluster'")
    assert batch.claim_submission(backend, node.job, "/scratch/kim/x") is None
    assert batch.list_unfinished(backend) == []


@pytest.mark.parametrize(
    ("url", "host", "message"),
    [
        ("https://yaptide.example.org", "login.example.org", True),
        ("http://yaptide.example.org", "login.example.org", False),  # the key would be read on its way
        ("http://127.0.0.1:5000", "login.example.org", False),  # that is the node itself
        ("http://localhost:5000", "login.example.org", False),
        ("https://127.0.0.1", "login.example.org", False),
        ("http://127.0.0.1:5000", "127.0.0.1", True),
    ],
)
def test_where_nodes_may_send_the_key(url, host, message):
    assert reachable_url(url, cluster(host=host)) == (url if message else None)

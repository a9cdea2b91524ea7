"""Workers, watchers and senders of the older backend report to a new and an adopted database (older-workers.json)."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support import payloads
from tests.support.api import contents, cookie_name, of_keycloak
from tests.support.legacy import Old
from yaptide.persistence.engine import Database
from yaptide.services import adoption, clusters, integrity, lifecycle, secrets, sessions
from yaptide.services.clusters import Cluster
from yaptide.services.secrets import Vault

SEQUENCES = json.loads((Path(__file__).parents[1] / "fixtures/older-workers.json").read_text())
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPS7Ng9ygUjuzx2HfXtGPN4kBuoq1ArzE5g3X8ZHnQs7"


@pytest.fixture(scope="module")
def adopted_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that was adopted, with a simulation that was running."""
    path = tmp_path_factory.mktemp("adopted") / "yaptide.db"
    with Old(f"sqlite:///{path}").filling() as filler:
        number = filler.simulation("old", filler.user("alice", "secret", "pbkdf2:sha256:1"), "RUNNING", end_time=None)
        filler.task(number, 0, "RUNNING", end_time=None)
        filler.input(number)
    database = Database(path)
    options: Any = {"stale_after": timedelta(days=7), "progress": lambda *_: None}
    adoption.adopt_database(database, Vault([secrets.new_key()]), dry_run=False, **options)
    database.close()
    return path


@pytest.fixture(params=["migrated_file", "adopted_file"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A new and an adopted database."""
    database = Database(shutil.copy(request.getfixturevalue(request.param), tmp_path / "copy.db"))
    yield database
    database.close()


@pytest.fixture
def kim(app, backend) -> FlaskClient:
    """A user of Keycloak, who may use the cluster."""
    place = {"host": "login.example.org", "host_key": KEY, "scratch_folder": "/scratch/{user}"}
    cluster = Cluster("default", **place, simulators={"shieldhit": "/opt/shieldhit"})
    clusters.add_cluster(backend.database, cluster)
    client = app.test_client()
    user = of_keycloak(backend, "kim")
    client.set_cookie(cookie_name(app, "access_token"), sessions.begin_session(backend, user).access.text)
    return client


def filled(value: Any, simulation_id: int, key: str) -> Any:
    """A body with the id and the key of a simulation."""
    return {name: {"ID": simulation_id, "KEY": key}.get(str(item), item) for name, item in value.items()}


@pytest.mark.parametrize("sequence", SEQUENCES, ids=[sequence["worker"] for sequence in SEQUENCES])
def test_what_they_post_brings_a_simulation_to_its_end(sequence, app, backend, database, kim):
    platform, ends = sequence["platform"], sequence["ends"]
    body = payloads.submission(sim_type=sequence["sim_type"])
    if platform == "batch":
        body |= {"batch_options": {"cluster_name": "default"}}
    submitted = kim.post(f"/jobs/{platform}", json=body)
    assert submitted.status_code == 202, submitted.json
    query = {"job_id": submitted.json["job_id"]}
    simulation_id = backend.dispatcher.dispatched[-1] if platform == "direct" else newest_simulation(database)
    key = lifecycle.update_key(backend, query["job_id"])
    worker = app.test_client()
    for post in sequence["posts"]:
        done = worker.post(post["path"], json=filled(post["body"], simulation_id, key))
        assert done.status_code == 202, done.json

    status = kim.get(f"/jobs/{platform}", query_string=query).json
    assert status["job_state"] == ends["job_state"]
    assert [task["simulated_primaries"] for task in status["job_tasks_status"]] == ends["primaries"]
    if ends["estimators"] is not None:
        listed = kim.get("/estimators", query_string=query).json.get("estimators_metadata", [])
        assert [estimator["name"] for estimator in listed] == ends["estimators"]
    if ends["logfiles"]:
        assert kim.get("/logfiles", query_string=query).json["logfiles"] == ends["logfiles"]
    assert not [finding for finding in integrity.check_store(database) if not finding.acknowledged]


def newest_simulation(database: Database) -> int:
    return max(row[0] for row in contents(database)["Simulation"])


@pytest.mark.parametrize("database", ["adopted_file"], indirect=True)
def test_workers_of_before_are_refused_and_change_nothing(client, database):
    """Their keys are not known; their simulations have ended."""
    before = contents(database)
    for sequence in SEQUENCES:
        for post in sequence["posts"]:
            done = client.post(post["path"], json=filled(post["body"], 1, "a key of before"))
            assert (done.status_code, done.json["message"]) == (400, "Invalid update key")
    assert contents(database) == before

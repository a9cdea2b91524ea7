"""Projects of the web editor: the simulator that runs them, their conversion, and its report."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.support import payloads, projects
from tests.support.api import contents, sign_in
from yaptide.application import make_backend
from yaptide.domain.errors import InvalidInput
from yaptide.persistence.models.simulations import DIRECT
from yaptide.persistence.queries import tasks
from yaptide.services import clusters, conversion, runners
from yaptide.services.clusters import Cluster
from yaptide.services.conversion import AUTOMATIC, OFF
from yaptide.settings import Settings
from yaptide.simulators.shieldhit import ShieldHit

one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)


@pytest.fixture
def alice(app, backend, database):
    """A signed-in user; the executor has MCsquare, and there are no external workers."""
    app.extensions["yaptide"] = replace(backend, foreign_workers=frozenset())
    return sign_in(app, "alice")


def using(app, **changes):
    """Change the installation."""
    app.extensions["yaptide"] = replace(app.extensions["yaptide"], **changes)


def asked(client, sim_type="shieldhit", document=None, **changes):
    body = {"input_type": "editor", "ntasks": 2, "sim_type": sim_type, "title": "Water", **changes}
    return client.post("/jobs/direct", json={**body, "input_json": document or projects.water_phantom()})


def drawn_for(name):
    document = projects.water_phantom()
    document["project"]["simulator"] = name
    return document


def of(client, answer, path):
    return client.get(path, query_string={"job_id": answer.json["job_id"]})


def test_a_project_for_a_code_that_is_not_here_is_run_by_mcsquare(alice, backend):
    answer = asked(alice)
    assert (answer.status_code, answer.json["sim_type"]) == (202, "mcsquare")
    assert "Output 'z_profile', quantity 'FluenceProtons': MCsquare does not score 'Fluence'" in answer.json["left_out"]
    (listed,) = alice.get("/user/simulations").json["simulations"]
    assert listed["title"] == "Water (MCsquare)"
    assert (listed["metadata"]["input_type"], listed["metadata"]["sim_type"]) == ("EDITOR", "mcsquare")
    stored = of(alice, answer, "/inputs").json["input"]
    assert stored["input_json"] == projects.water_phantom()
    assert {"config.txt", "plan.txt", "scoring.json"} <= stored["input_files"].keys()
    assert stored["left_out"] == answer.json["left_out"]
    reason = of(alice, answer, "/jobs/history").json["history"][0]["reason"]
    assert reason.startswith("It was submitted for SHIELD-HIT12A, which cannot run projects here.")
    assert "FluenceProtons" in reason
    with backend.database.reading() as connection:
        assert tasks.next_pending(connection, f"{backend.spool.place}x", ["mcsquare"]) is not None


@one_database
def test_asked_for_by_name_it_keeps_its_title(alice):
    answer = asked(alice, "mcsquare")
    assert answer.status_code == 202
    assert alice.get("/user/simulations").json["simulations"][0]["title"] == "Water"
    assert "It was submitted for" not in of(alice, answer, "/jobs/history").json["history"][0]["reason"]


@one_database
@pytest.mark.parametrize(
    ("named", "title"),
    [("mcsquare", "Water"), ("shieldhit", "Water (MCsquare)"), ("geant4", "Water"), ("common", "Water"), (7, "Water")],
)
def test_common_is_the_code_that_the_project_names_or_one_that_can_run_it(alice, named, title):
    answer = asked(alice, "common", drawn_for(named))
    assert (answer.status_code, answer.json["sim_type"]) == (202, "mcsquare")
    assert alice.get("/user/simulations").json["simulations"][0]["title"] == title


@one_database
def test_an_administrator_may_have_such_projects_refused(app, alice):
    using(app, editor_simulator=OFF)
    before = contents(app.extensions["yaptide"].database)
    refused = asked(alice)
    assert refused.status_code == 503
    assert refused.json["message"].startswith("SHIELD-HIT12A is not installed")
    assert asked(alice, "common", drawn_for("geant4")).status_code == 400
    assert contents(app.extensions["yaptide"].database) == before
    assert asked(alice, "mcsquare").status_code == 202


@one_database
def test_where_there_are_clusters_nobody_stands_in_unless_it_is_said(app, alice):
    clusters.add_cluster(app.extensions["yaptide"].database, Cluster("ares"))
    assert asked(alice).status_code == 503
    using(app, editor_simulator="mcsquare")
    assert asked(alice).json["sim_type"] == "mcsquare"


@pytest.mark.parametrize(
    ("settings", "simulator"),
    [({}, AUTOMATIC), ({"broker_url": "redis://127.0.0.1:1"}, OFF), ({"editor_simulator": "mcsquare"}, "mcsquare")],
)
def test_where_there_are_workers_nobody_stands_in_unless_it_is_said(settings, simulator, tmp_path):
    assert make_backend(Settings(_env_file=None, data_dir=tmp_path, **settings)).editor_simulator == simulator


def test_a_simulator_that_does_not_exist_cannot_stand_in(tmp_path):
    with pytest.raises(InvalidInput, match="YAPTIDE_EDITOR_SIMULATOR"):
        make_backend(Settings(_env_file=None, data_dir=tmp_path, editor_simulator="geant4"))


def test_a_project_for_workers_of_others_is_converted_and_kept(app, alice):
    using(app, foreign_workers=frozenset({"shieldhit"}))
    answer = asked(alice)
    assert (answer.status_code, answer.json["sim_type"]) == (202, "shieldhit")
    stored = of(alice, answer, "/inputs").json["input"]
    assert stored["input_files"].keys() == {"beam.dat", "mat.dat", "geo.dat", "detect.dat"}
    assert stored["input_json"] == projects.water_phantom()
    assert stored["number_of_all_primaries"] == 1600


@one_database
def test_what_a_code_cannot_simulate_is_refused_with_its_place(app, alice):
    runners.announce_runner(app.extensions["yaptide"], "another", DIRECT, {"fluka": runners.Program("4", "ab" * 32)})
    refused = asked(alice, "fluka")
    assert refused.status_code == 400
    assert refused.json["message"] == (
        "Project, output 'entrance', quantity 'KineticEnergyPrimaries': yaptide cannot convert 'AvgEnergy' for FLUKA"
    )
    assert alice.get("/user/simulations").json["simulations"] == []


@one_database
def test_external_workers_also_take_what_cannot_be_converted(app, alice):
    using(app, foreign_workers=frozenset({"fluka"}))
    answer = asked(alice, "fluka")
    assert answer.status_code == 202
    assert of(alice, answer, "/inputs").json["input"]["input_files"] == {}
    reason = of(alice, answer, "/jobs/history").json["history"][0]["reason"]
    assert reason.startswith("External workers get the project without input files. Project, output 'entrance'")


@one_database
def test_without_mcsquare_the_answer_is_how_to_get_it(app, alice):
    runners.withdraw_runner(app.extensions["yaptide"], "executor-of-tests")
    refused = asked(alice)
    assert refused.status_code == 503
    assert "yaptide simulators install mcsquare" in refused.json["message"]


@one_database
@pytest.mark.parametrize(
    ("document", "words"),
    [
        (payloads.project(), "Project"),
        (projects.water_phantom(particle={"id": 25, "name": "Carbon", "z": 6, "a": 12}), "proton"),
    ],
)
def test_a_project_that_mcsquare_cannot_run_is_refused_in_a_sentence(app, alice, document, words):
    before = contents(app.extensions["yaptide"].database)
    refused = asked(alice, document=document)
    assert (refused.status_code, words in refused.json["message"]) == (400, True), refused.json
    assert contents(app.extensions["yaptide"].database) == before


@one_database
def test_a_project_is_converted_without_being_submitted(app, alice, client):
    before = contents(app.extensions["yaptide"].database)
    body = {"input_json": projects.water_phantom(), "sim_type": "mcsquare"}
    made = alice.post("/convert", json=body)
    assert made.status_code == 200
    assert {"config.txt", "plan.txt", "scoring.json"} <= made.json["input_files"].keys()
    assert "voxels" in made.json["resolution"]
    assert made.json["left_out"]
    assert alice.post("/convert", json=body | {"sim_type": "topas"}).status_code == 400
    assert client.post("/convert", json=body).status_code == 401
    assert contents(app.extensions["yaptide"].database) == before


@one_database
def test_what_is_converted_is_one_and_the_same_whoever_does_it(app, alice):
    body = {"input_json": projects.water_phantom(), "sim_type": "mcsquare"}
    made = alice.post("/convert", json=body).json["input_files"]
    assert of(alice, asked(alice), "/inputs").json["input"]["input_files"] == made


@one_database
def test_a_runner_without_heartbeats_does_not_keep_a_project(app, alice, backend):
    """Its code is left to external workers, or to the one that stands in."""
    runners.announce_runner(backend, "host/1", DIRECT, {"shieldhit": runners.Program("1", "")})
    stopped = {"name": "host/1", "time": "2020-01-01 00:00:00"}
    with backend.database.writing() as connection:
        assert runners.has_runner(backend, connection, "shieldhit")
        connection.execute(text('UPDATE "Runner" SET heartbeat_time = :time WHERE name = :name'), stopped)
        assert not runners.has_runner(backend, connection, "shieldhit")
    assert asked(alice).json["sim_type"] == "mcsquare"


@one_database
def test_a_code_that_takes_no_projects_is_refused_clearly(app, alice, backend, monkeypatch):
    using(app, editor_simulator=OFF)
    runners.announce_runner(backend, "host/1", DIRECT, {"shieldhit": runners.Program("1", "")})
    monkeypatch.setattr(conversion, "is_converter", lambda _: False)
    monkeypatch.setattr(ShieldHit, "takes_projects", False)
    refused = asked(alice)
    assert (refused.status_code, refused.json["message"]) == (
        400,
        "Submit SHIELD-HIT12A simulations as input files, not as a project of the editor",
    )


@one_database
def test_input_without_results_is_refused_where_yaptide_runs_it(app, alice, backend):
    files = {"a.inp": "START           100.\nSTOP\n"}
    document = {"sim_type": "fluka", "ntasks": 1, "input_type": "files", "input_files": files}
    using(app, foreign_workers=frozenset({"fluka"}))
    assert alice.post("/jobs/direct", json=document).status_code == 202
    runners.announce_runner(backend, "host/1", DIRECT, {"fluka": runners.Program("1", "")})
    refused = alice.post("/jobs/direct", json=document)
    assert (refused.status_code, refused.json["message"][:31]) == (400, "a.inp: no results could be read")
    files["a.inp"] = "FREE\nUSRBIN, 10.0, PROTON, -21.0\nSTART, 20000000000.0\n"
    refused = alice.post("/jobs/direct", json=document)
    assert refused.json["message"] == "A task of FLUKA has at most 9999999999 primaries: use 3 tasks or more"

"""Announcements decide which submissions are accepted; waiting simulations show the reason."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support import payloads, projects
from tests.support.api import contents, sign_in, submit
from yaptide.domain.errors import NotConfigured, Unavailable
from yaptide.editor.project_check import check_project
from yaptide.platforms.direct.broker import WorkerState
from yaptide.platforms.direct.embedded import EmbeddedExecutor, Folders
from yaptide.platforms.direct.outbox import OutboxPublisher
from yaptide.services import batch, clusters, conversion, diagnosis, recovery, runners, simulations, tasks, users
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.backend import utc_now
from yaptide.services.clusters import Cluster
from yaptide.services.conversion import OFF
from yaptide.services.diagnosis import Verdict
from yaptide.services.runners import BATCH, DIRECT, Announcement, Program
from yaptide.services.simulations import Page, Submission
from yaptide.simulators import get_simulator, list_names
from yaptide.simulators.base import Installation
from yaptide.simulators.mcsquare.sample import water_sample

PROGRAM = Program("1.1", "ab" * 32)
CLUSTER = Cluster(
    "ares",
    host="login.example.org",
    host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIiuvt8ZHBHKzqX2fmyhi+ogvlu4x5VlGPeLlPpBbqzV",
    scratch_folder="/scratch",
    simulators={"mcsquare": "/opt/MCsquare", "shieldhit": "/opt/shieldhit"},
)
FILES = {
    "mcsquare": water_sample(),
    "shieldhit": payloads.shieldhit_files(),
    "fluka": {"fl_sim.inp": "START         1000.0\nSTOP\n"},
    "topas": {"main.txt": "i:Ts/Seed = 1\ni:So/Beam/NumberOfHistoriesInRun = 100\n"},
}
ASKED = {
    **{f"files of {name}": {"input_type": "files", "sim_type": name, "input_files": FILES[name]} for name in FILES},
    **{f"common, {name}": {"input_type": "files", "sim_type": "common", "input_files": FILES[name]} for name in FILES},
    "project of shieldhit": {"input_type": "editor", "sim_type": "shieldhit", "input_json": projects.water_phantom()},
    "project of fluka": {"input_type": "editor", "sim_type": "fluka", "input_json": payloads.project()},
}
one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def backend(backend):
    """A fresh installation: no runner is announced, and there are no external workers."""
    for name in ("executor-of-tests", "driver-of-tests"):
        runners.withdraw_runner(backend, name)
    return replace(backend, foreign_workers=frozenset(), editor_simulator=OFF)


def silent_for(monkeypatch, seconds):
    """Let this time pass without any heartbeat."""
    monkeypatch.setattr(runners, "utc_now", lambda: utc_now() + timedelta(seconds=seconds))


def asked(client, **changes):
    body = {"ntasks": 2, "title": "New Project", **changes}
    return client.post("/jobs/direct", json=body)


@one_database
@pytest.mark.parametrize("what", ASKED)
def test_a_fresh_installation_refuses_in_words_and_stores_nothing(backend, signed_in, what):
    before = contents(backend.database)
    answer = asked(signed_in, **ASKED[what])
    assert answer.status_code == 503, answer.json
    title = get_simulator(what.split(" ")[-1]).title
    assert answer.json["message"].startswith(f"{title} is not installed: ")
    assert "administrator" in answer.json["message"]
    assert contents(backend.database) == before


def test_every_simulator_is_asked_for_above():
    assert list_names() == sorted(FILES)


@pytest.mark.parametrize("what", ["files of mcsquare", "common, mcsquare"])
def test_what_is_announced_is_accepted_and_does_not_wait(backend, signed_in, what):
    runners.announce_runner(backend, "executor", DIRECT, {"mcsquare": PROGRAM})
    answer = asked(signed_in, **ASKED[what])
    assert answer.status_code == 202
    assert "waiting" not in signed_in.get("/jobs", query_string={"job_id": answer.json["job_id"]}).json
    (item,) = signed_in.get("/user/simulations").json["simulations"]
    assert set(item["metadata"]) == {"platform", "server", "input_type", "sim_type"}


def test_a_driver_alone_runs_nothing_here(backend, signed_in):
    runners.announce_runner(backend, "driver", BATCH, {})
    assert asked(signed_in, **ASKED["files of mcsquare"]).status_code == 503


def test_what_ran_a_moment_ago_is_still_accepted_and_later_it_is_told_when_that_was(backend, signed_in, monkeypatch):
    runners.announce_runner(backend, "executor", DIRECT, {"mcsquare": PROGRAM})
    silent_for(monkeypatch, 50)
    accepted = asked(signed_in, **ASKED["files of mcsquare"])
    assert accepted.status_code == 202
    status = signed_in.get("/jobs", query_string={"job_id": accepted.json["job_id"]})
    assert "waiting" not in status.json
    silent_for(monkeypatch, 70)
    refused = asked(signed_in, **ASKED["files of mcsquare"])
    assert refused.status_code == 503
    words = "No runner with MCsquare has sent a heartbeat since"
    assert refused.json["message"].startswith(words)
    # and every place that shows the simulation gives the same reason
    status = signed_in.get("/jobs", query_string={"job_id": accepted.json["job_id"]})
    assert status.json["waiting"].startswith(words)
    (item,) = signed_in.get("/user/simulations").json["simulations"]
    assert item["metadata"]["waiting"].startswith(words)
    assert "waiting" not in item
    listed = simulations.list_simulations(backend, ADMINISTRATOR, Page())
    assert listed.waiting[accepted.json["job_id"]].startswith(words)
    runners.announce_runner(backend, "another", DIRECT, {"mcsquare": PROGRAM})
    status = signed_in.get("/jobs", query_string={"job_id": accepted.json["job_id"]})
    assert "waiting" not in status.json


@pytest.mark.parametrize("begun", [1, 2])
def test_what_was_begun_by_who_has_left_says_so_too(backend, monkeypatch, begun):
    runners.announce_runner(backend, "executor", DIRECT, {"mcsquare": PROGRAM})
    user = users.ensure_user(backend, "alice")
    job_id = simulations.submit_simulation(backend, user, Submission("mcsquare", 2, "t", water_sample())).job_id
    for _ in range(begun):
        tasks.claim_task(backend, backend.spool.place + "executor", ["mcsquare"])
    silent_for(monkeypatch, 70)
    assert simulations.read_status(backend, user, job_id).waiting is None  # its tasks may be running
    recovery.requeue_stalled(backend, utc_now() + timedelta(seconds=70))
    status = simulations.read_status(backend, user, job_id)
    assert status.simulation.job_state == "RUNNING"
    assert status.waiting.startswith("No runner with MCsquare has sent a heartbeat since")


@one_database
def test_a_cluster_waits_for_who_submits_to_it(backend, monkeypatch):
    clusters.add_cluster(backend.database, CLUSTER)
    user = users.ensure_user(backend, "kim")
    submission = Submission("mcsquare", 1, "t", water_sample(), batch={})
    with pytest.raises(NotConfigured, match="No cluster driver is running"):
        simulations.submit_simulation(backend, user, submission)
    runners.announce_runner(backend, "driver", BATCH, {})
    job_id = simulations.submit_simulation(backend, user, submission).job_id
    assert simulations.read_status(backend, user, job_id).waiting is None
    silent_for(monkeypatch, 70)
    assert simulations.read_status(backend, user, job_id).waiting.startswith("No cluster driver is running")


@one_database
@pytest.mark.parametrize("what", ["files of shieldhit", "project of shieldhit"])
def test_a_cluster_without_the_code_is_for_workers_of_others(backend, what):
    clusters.add_cluster(backend.database, replace(CLUSTER, simulators={"mcsquare": "/opt/MCsquare"}))
    runners.announce_runner(backend, "driver", BATCH, {})
    user = users.ensure_user(backend, "kim")
    asked_of_it = ASKED[what]
    submission = Submission(
        "shieldhit", 1, "t", asked_of_it.get("input_files"), asked_of_it.get("input_json"), batch={}
    )
    before = contents(backend.database)
    with pytest.raises(NotConfigured, match=r"has no SHIELD-HIT12A: an administrator can"):
        simulations.submit_simulation(backend, user, submission)
    assert contents(backend.database) == before
    others = replace(backend, foreign_workers=frozenset({"shieldhit"}))
    job_id = simulations.submit_simulation(others, user, submission).job_id
    assert batch.list_unfinished(others) == []  # our driver has nothing to do with it
    assert simulations.read_status(others, user, job_id).waiting == "Waiting for an external worker with SHIELD-HIT12A"


def test_two_who_tell_of_one_runner_at_once_agree(backend):
    items = [threading.Thread(target=Announcement(backend, "worker", DIRECT).tell, args=({"mcsquare": PROGRAM},))]
    items += [threading.Thread(target=Announcement(backend, "worker", DIRECT).tell, args=({"topas": PROGRAM},))]
    for thread in items:
        thread.start()
    for thread in items:
        thread.join()
    (row,) = runners.list_programs(backend)
    assert (row.runner, row.sim_type in ("mcsquare", "topas")) == ("worker", True)


def test_a_short_silence_by_the_settings_is_no_shorter_than_six_heartbeats(backend):
    impatient = replace(backend, limits=replace(backend.limits, silence=timedelta(seconds=2)))
    assert runners.runner_lifetime(impatient) == timedelta(seconds=30)
    assert runners.runner_lifetime(backend) == backend.limits.silence


def test_an_announcement_is_kept_replaced_and_withdrawn(backend, monkeypatch):
    announcement = Announcement(backend, "executor", DIRECT)
    announcement.tell({"mcsquare": PROGRAM, "topas": Program()})
    first = runners.list_programs(backend)
    assert [(row.runner, row.sim_type, row.version) for row in first] == [
        ("executor", "mcsquare", "1.1"),
        ("executor", "topas", ""),
    ]
    silent_for(monkeypatch, 70)
    assert runners.list_programs(backend) == []
    announcement.tell({"mcsquare": PROGRAM, "topas": Program()})
    assert [row.sim_type for row in runners.list_programs(backend)] == ["mcsquare", "topas"]
    announcement.tell({"topas": Program()})
    assert [row.sim_type for row in runners.list_programs(backend)] == ["topas"]
    runners.withdraw_runner(backend, "executor")  # another process removes it
    announcement.tell({"topas": Program()})
    assert [row.sim_type for row in runners.list_programs(backend)] == ["topas"]
    announcement.withdraw()
    assert runners.list_programs(backend) == []


def test_runners_that_were_silent_for_a_month_are_forgotten(backend, monkeypatch):
    runners.announce_runner(backend, "old", DIRECT, {"mcsquare": PROGRAM})
    silent_for(monkeypatch, 31 * 24 * 3600)
    runners.announce_runner(backend, "new", DIRECT, {})
    assert [row[1] for row in contents(backend.database)["Runner"]] == ["new"]
    assert contents(backend.database)["RunnerSimulator"] == []


def test_a_runner_that_is_started_again_and_again_leaves_few_behind(backend, monkeypatch):
    monkeypatch.setattr(runners, "_MOST", 3)
    for number in range(10):
        silent_for(monkeypatch, number)
        runners.announce_runner(backend, f"executor-{number}", DIRECT, {})
    left = sorted(row[1] for row in contents(backend.database)["Runner"])
    assert left == ["executor-6", "executor-7", "executor-8", "executor-9"]  # the last three, and who has come since


def test_a_project_is_not_taken_by_who_has_only_the_code(backend, signed_in, monkeypatch):
    for module in (conversion, runners):  # as if the code came from a package that cannot convert
        monkeypatch.setattr(module, "is_converter", lambda _: False)
    runners.announce_runner(backend, "executor", DIRECT, {"shieldhit": PROGRAM})
    before = contents(backend.database)
    answer = asked(signed_in, **ASKED["project of shieldhit"])
    assert answer.status_code == 503
    assert answer.json["message"].startswith("Projects cannot be converted to input of SHIELD-HIT12A yet")
    assert contents(backend.database) == before
    assert asked(signed_in, **ASKED["files of shieldhit"]).status_code == 202


def test_a_cluster_needs_somebody_who_submits_to_it(backend):
    user = users.ensure_user(backend, "kim")
    asked_of_it = Submission("mcsquare", 1, "t", water_sample(), batch={})
    with pytest.raises(NotConfigured, match="No cluster is configured"):
        simulations.submit_simulation(backend, user, asked_of_it)


@pytest.mark.parametrize(
    ("project", "place"),
    [
        ({"beam": {"numberOfParticles": 10}}, "figureManager"),
        ({}, "beam"),
        ({"beam": None}, "beam"),
        (payloads.project() | {"zoneManager": {"zones": []}}, "zoneManager"),
        (payloads.project() | {"zoneManager": {"worldZone": {}}}, "zoneManager.zones"),
        (payloads.project() | {"detectorManager": {"detectors": []}}, "detectorManager.detectors"),
        (payloads.project() | {"scoringManager": {"outputs": []}}, "scoringManager.outputs"),
        (payloads.project() | {"scoringManager": []}, "scoringManager"),
        (payloads.project(primaries=0), "beam.numberOfParticles"),
        (payloads.project(primaries=True), "beam.numberOfParticles"),
    ],
)
@one_database
def test_a_project_that_is_refused_says_where(backend, app, project, place):
    app.extensions["yaptide"] = replace(backend, foreign_workers=frozenset({"shieldhit"}))
    client = sign_in(app, "alice")
    before = contents(backend.database)
    answer = asked(client, input_type="editor", sim_type="shieldhit", input_json=project)
    assert (answer.status_code, answer.json["message"].split(":")[0]) == (400, f"Project, {place}")
    assert contents(backend.database) == before


def test_a_project_of_the_world_alone_is_enough():
    assert check_project(payloads.project(primaries=7)) == 7


@one_database
def test_a_project_without_a_simulator_is_told_to_name_one(backend, signed_in):
    answer = asked(signed_in, input_type="editor", sim_type="common", input_json=payloads.project())
    assert (answer.status_code, "name of its simulator" in answer.json["message"]) == (400, True)


def test_a_runner_of_ours_takes_a_project_that_others_could_run_too(backend, app):
    both = replace(backend, foreign_workers=frozenset({"shieldhit"}))
    app.extensions["yaptide"] = both
    runners.announce_runner(both, "executor", DIRECT, {"shieldhit": PROGRAM})
    client = sign_in(app, "alice")
    assert asked(client, **ASKED["project of shieldhit"]).status_code == 202
    assert tasks.claim_task(both, both.spool.place + "executor", ["shieldhit"]) is not None


def test_a_runner_of_ours_does_not_take_a_project_without_files(backend, app):
    others = replace(backend, foreign_workers=frozenset({"shieldhit"}))
    app.extensions["yaptide"] = others
    job = submit(sign_in(app, "alice"))
    assert job.status["waiting"] == "Waiting for an external worker with SHIELD-HIT12A"
    assert tasks.claim_task(others, others.spool.place + "executor", ["shieldhit"]) is None


class FakeBroker:
    """A broker whose workers are these; None: it is away."""

    def __init__(self, *workers: str) -> None:
        self.there: tuple[str, ...] | None = workers

    def list_workers(self) -> dict[str, WorkerState]:
        if self.there is None:
            raise Unavailable("the broker cannot be reached")
        state = WorkerState(("simulate.mcsquare", "merge"), 0, 1, True, {"mcsquare": ("1.1", "ab" * 32)})
        return dict.fromkeys(self.there, state)


def heard_of(backend):
    return [row.runner for row in runners.list_programs(backend)]


@one_database
def test_the_courier_announces_the_workers_that_answer(backend, tmp_path, monkeypatch):
    broker = FakeBroker("one", "two")
    courier = OutboxPublisher(backend, broker, tmp_path)
    assert courier.announce_workers() == 2
    assert heard_of(backend) == ["one", "two"]
    broker.there = ("two",)
    silent_for(monkeypatch, 40)
    assert courier.announce_workers() == 1
    assert heard_of(backend) == ["one", "two"]  # one may be back soon
    silent_for(monkeypatch, 70)
    assert heard_of(backend) == ["two"]
    broker.there = ()
    assert courier.announce_workers() == 0


@one_database
def test_workers_stay_announced_while_the_broker_is_away(backend, tmp_path, monkeypatch):
    broker = FakeBroker("one")
    courier = OutboxPublisher(backend, broker, tmp_path)
    courier.announce_workers()
    broker.there = None
    for seconds in (40, 80, 120):
        silent_for(monkeypatch, seconds)
        with pytest.raises(Unavailable):
            courier.announce_workers()
        assert heard_of(backend) == ["one"]


@one_database
def test_an_executor_announces_what_is_installed_with_each_beat(backend, tmp_path, monkeypatch):
    here = {}
    monkeypatch.setattr(EmbeddedExecutor, "_installed", lambda _: here)
    executor = EmbeddedExecutor(backend, Folders(tmp_path, tmp_path, tmp_path), 1, 60)
    executor.announce()
    assert heard_of(backend) == []
    here["mcsquare"] = Installation(tmp_path, "1.1", "ab" * 32)
    executor.announce()
    (row,) = runners.list_programs(backend)
    assert (row.sim_type, row.version, row.digest) == ("mcsquare", "1.1", "ab" * 32)
    del here["mcsquare"]
    executor.announce()
    assert heard_of(backend) == []


@one_database
def test_the_doctor_says_who_has_what_and_what_waits_for_nobody(backend, app, monkeypatch):
    runners.announce_runner(backend, "executor", DIRECT, {"mcsquare": PROGRAM})
    user = users.ensure_user(backend, "alice")
    simulations.submit_simulation(backend, user, Submission("mcsquare", 1, "t", water_sample()))
    others = replace(backend, foreign_workers=frozenset({"fluka"}))
    simulations.submit_simulation(others, user, Submission("fluka", 1, "t", FILES["fluka"]))
    by_name = {finding.message.split(",")[0]: finding for finding in diagnosis.diagnose_simulations(others)}
    assert by_name["executor has mcsquare 1.1"].verdict is Verdict.OK
    assert by_name["1 waiting for mcsquare"].verdict is Verdict.OK
    assert by_name["1 waiting for fluka"].verdict is Verdict.WARNING
    assert by_name["1 waiting for fluka"].remedy == "Waiting for an external worker with FLUKA"

"""Submitting, listing, following, canceling and deleting simulations, as the web front end does it."""

import base64
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.support import payloads
from tests.support.api import counts, submit
from yaptide.services import simulations as service
from yaptide.simulators.mcsquare.sample import water_sample

NO_SUCH_JOB = {"message": "Job with provided ID does not exist"}
NOT_YOURS = {"message": "Job with provided ID does not belong to the user"}
WAITS = "Waiting for an external worker with SHIELD-HIT12A"
BY_JOB = [
    "/jobs",
    "/jobs/direct",
    "/jobs/batch",
    "/inputs",
    "/estimators",
    "/results",
    "/logfiles",
    "/jobs/history",
    "/jobs/key",
]
EVERY_STATE = (
    "PENDING,RUNNING,MERGING_QUEUED,MERGING_RUNNING,FAILED,COMPLETED,CANCELED"  # as the front end asks for them
)
LIST = {"page_idx": 1, "page_size": 10, "order_type": "descend", "order_by": "start_time", "job_state": EVERY_STATE}


def listed(client, **changes) -> list[str]:
    """The job_id of each simulation in the list."""
    response = client.get("/user/simulations", query_string=LIST | changes)
    assert response.status_code == 200, response.json
    return [item["job_id"] for item in response.json["simulations"]]


@pytest.fixture
def clock(monkeypatch):
    """Let each simulation be submitted an hour after the one before."""
    start = datetime(2026, 3, 1, 10, tzinfo=UTC)
    hours = iter(range(1000))
    monkeypatch.setattr(service, "utc_now", lambda: start + timedelta(hours=next(hours)))


def test_a_submitted_job_is_visible_at_once(signed_in):
    response = signed_in.post("/jobs/direct", json=payloads.submission())
    assert response.status_code == 202
    assert set(response.json) == {"message", "job_id", "sim_type"}
    job_id = response.json["job_id"]
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}DIRECT", job_id)
    assert listed(signed_in) == [job_id]
    assert signed_in.get(f"/jobs/direct?job_id={job_id}").json["job_state"] == "PENDING"
    assert signed_in.get(f"/inputs?job_id={job_id}").status_code == 200


def test_status_of_a_new_job(job):
    response = job.get("/jobs/direct")
    assert response.status_code == 200
    task = {"task_state": "PENDING", "requested_primaries": 500, "simulated_primaries": 0}
    assert response.json == {
        "message": "Job state: PENDING",
        "job_state": "PENDING",
        "job_tasks_status": [{"task_id": 0, **task}, {"task_id": 1, **task}],
        "waiting": WAITS,
    }
    assert job.get("/jobs").json == job.get("/jobs/batch").json == response.json


def test_status_of_a_running_job(job):
    job.report_task(1, task_state="RUNNING", simulated_primaries=100, estimated_time=3665)
    assert job.status["message"] == "Job state: RUNNING"
    assert job.status["job_state"] == "RUNNING"
    running = job.task(1)
    assert set(running) == {
        *("task_id", "task_state", "requested_primaries", "simulated_primaries"),
        *("start_time", "last_update_time", "estimated_time"),
    }
    assert running["estimated_time"] == {"hours": 1, "minutes": 1, "seconds": 5}
    for name in ("start_time", "last_update_time"):
        assert parsedate_to_datetime(running[name]) == pytest.approx(datetime.now(UTC), abs=timedelta(seconds=5))


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "MERGING_QUEUED", "FAILED", "CANCELED", "COMPLETED"])
def test_the_input_comes_back_unchanged_in_every_state(job, state):
    job.bring_to(state)
    response = job.get("/inputs")
    assert response.status_code == 200
    assert set(response.json) == {"message", "input"}
    assert response.json["input"] == {
        "input_type": "EDITOR",
        "number_of_all_primaries": payloads.PRIMARIES,
        "input_files": {},
        "input_json": payloads.project(),
    }


def test_a_project_keeps_its_numbers_names_and_order(signed_in):
    project = payloads.project() | {
        "numbers": [0.1, 1e-300, 5e-324, 1.7976931348623157e308, 2**53, -(2**63), 1.0, -0.5],
        "texts": ["", "\u0000", "\U0001f9ea é", "</script>", "\\", "a__b", "fl_sim.inp"],
        "nothing": None,
        "z": {"b": 1, "a": {"": []}},
    }
    job = submit(signed_in, input_json=project)
    returned = job.get("/inputs").json["input"]["input_json"]
    assert returned == project
    assert repr(returned) == repr(project)


def test_input_files_come_back_unchanged(signed_in):
    files = payloads.shieldhit_files() | {"Water_liquid.txt": "\t\r\n µ\x0c"}
    job = submit(signed_in, input_type="files", input_files=files, input_json=None)
    assert job.get("/inputs").json["input"] == {
        "input_type": "FILES",
        "number_of_all_primaries": payloads.PRIMARIES,
        "input_files": files,
        "input_json": None,
    }
    [item] = signed_in.get("/user/simulations").json["simulations"]
    assert item["metadata"]["input_type"] == "FILES"


def test_byte_order_marks_are_not_stored(signed_in):
    files = payloads.shieldhit_files()
    job = submit(
        signed_in,
        input_type="files",
        input_files={name: f"\ufeff{text}" for name, text in files.items()},
        input_json=None,
    )
    assert job.get("/inputs").json["input"]["input_files"] == files


@pytest.mark.parametrize(
    ("files", "sim_type"),
    [
        (payloads.shieldhit_files(), "shieldhit"),
        ({"flSim.inp": "START         1000.0\nSTOP\n"}, "fluka"),  # what the front end makes of fl_sim.inp
    ],
)
def test_common_finds_the_simulator_out(signed_in, files, sim_type):
    submit(signed_in, input_type="files", sim_type="common", input_files=files)
    [item] = signed_in.get("/user/simulations").json["simulations"]
    assert item["metadata"]["sim_type"] == sim_type


def test_a_ct_that_is_mirrored_in_its_header_is_refused(signed_in, database):
    header = (
        "NDims = 3\nDimSize = 4 3 2\nElementSpacing = 30 67 60\nElementType = MET_SHORT\nElementDataFile = ct.raw\n"
    )
    files = {name: text for name, text in water_sample().items() if name != "ct.txt"}
    files |= {"ct.mhd": header, "ct.raw.base64": base64.b64encode(bytes(48)).decode()}
    body = payloads.submission(input_type="files", sim_type="mcsquare", input_files=files, input_json=None)
    before = counts(database)
    files["ct.mhd"] = header + "TransformMatrix = 1 0 0 0 -1 0 0 0 -1\n"
    response = signed_in.post("/jobs/direct", json=body)
    assert (response.status_code, set(response.json)) == (400, {"message"})
    assert response.json["message"].startswith("ct.mhd, line 6: TransformMatrix turns or mirrors the CT")
    assert counts(database) == before
    files["ct.mhd"] = header + "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    assert signed_in.post("/jobs/direct", json=body).status_code == 202


@pytest.mark.parametrize(
    ("ntasks", "primaries", "shares"),
    [(1, 1000, [1000]), (3, 1000, [334, 333, 333]), (5, 3, [1, 1, 1]), (2, 2**40 + 1, [2**39 + 1, 2**39])],
)
def test_primaries_are_split_over_at_most_as_many_tasks(signed_in, ntasks, primaries, shares):
    job = submit(signed_in, ntasks=ntasks, primaries=primaries)
    assert [task["requested_primaries"] for task in job.status["job_tasks_status"]] == shares
    assert job.get("/inputs").json["input"]["number_of_all_primaries"] == primaries


def test_the_list_has_exactly_the_keys_that_the_front_end_knows(signed_in, clock):
    job_id = submit(signed_in).job_id
    response = signed_in.get("/user/simulations", query_string=LIST)
    assert response.status_code == 200
    answer = dict(response.json)
    assert answer.pop("message")
    assert answer == {
        "page_count": 1,
        "simulations_count": 1,
        "simulations": [
            {
                "job_id": job_id,
                "title": "Water phantom",
                "start_time": "Sun, 01 Mar 2026 10:00:00 GMT",
                "end_time": None,
                "metadata": {
                    "platform": "DIRECT",
                    "server": "Yaptide",
                    "input_type": "EDITOR",
                    "sim_type": "shieldhit",
                    "waiting": WAITS,
                },
            }
        ],
    }


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "COMPLETED"])
def test_times_of_an_ended_job_can_be_parsed(job, signed_in, state):
    job.bring_to(state)
    [item] = signed_in.get("/user/simulations").json["simulations"]
    start, end = (parsedate_to_datetime(item[name]) for name in ("start_time", "end_time"))
    assert start <= end <= start + timedelta(minutes=1)


def test_nobody_sees_what_others_have_submitted(job, stranger):
    response = stranger.get("/user/simulations", query_string=LIST)
    assert (response.status_code, response.json["simulations"]) == (200, [])
    assert (response.json["page_count"], response.json["simulations_count"]) == (0, 0)


def test_ordering_by_start(signed_in, clock):
    jobs = [submit(signed_in).job_id for _ in range(3)]
    assert listed(signed_in, order_type="ascend") == jobs
    assert listed(signed_in, order_type="descend") == jobs[::-1]
    newest_first = signed_in.get("/user/simulations").json["simulations"]
    assert [item["job_id"] for item in newest_first] == jobs[::-1]


def test_ordering_by_end_has_those_that_run_as_the_latest(signed_in, clock):
    jobs = [submit(signed_in) for _ in range(4)]
    for job in (jobs[2], jobs[0]):
        job.delete("/jobs/direct")
    ids = [job.job_id for job in jobs]
    latest_first = [ids[3], ids[1], ids[0], ids[2]]
    assert listed(signed_in, order_by="end_time", order_type="descend") == latest_first
    assert listed(signed_in, order_by="end_time", order_type="ascend") == latest_first[::-1]


def test_jobs_of_the_same_time_have_a_place_of_their_own(signed_in, monkeypatch):
    monkeypatch.setattr(service, "utc_now", lambda: datetime(2026, 3, 1, tzinfo=UTC))
    jobs = [submit(signed_in).job_id for _ in range(5)]
    pages = [listed(signed_in, page_idx=n, page_size=2, order_type="ascend") for n in (1, 2, 3)]
    assert [job for page in pages for job in page] == jobs


def test_pages_of_the_list(signed_in, clock):
    jobs = [submit(signed_in).job_id for _ in range(7)]
    assert [listed(signed_in, page_size=3, page_idx=n) for n in (1, 2, 3, 4)] == [
        jobs[:3:-1],
        jobs[3:0:-1],
        jobs[:1],
        [],
    ]
    first = signed_in.get("/user/simulations").json
    assert (first["page_count"], first["simulations_count"], len(first["simulations"])) == (2, 7, 6)
    for size in (6, 10, 14, 18, 22):
        assert len(listed(signed_in, page_size=size)) == min(size, 7)


def test_filtering_by_state(signed_in):
    states = ["PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", "FAILED", "COMPLETED", "CANCELED"]
    jobs = {state: submit(signed_in).bring_to(state).job_id for state in states}
    for state in states:
        assert listed(signed_in, job_state=state) == [jobs[state]]
    last_five = ["RUNNING", "PENDING", "MERGING_QUEUED", "MERGING_RUNNING", "COMPLETED"]
    assert set(listed(signed_in, job_state=",".join(last_five))) == {jobs[state] for state in last_five}
    assert set(listed(signed_in, job_state="")) == set(jobs.values())


def test_reading_an_unknown_job(signed_in):
    for path in BY_JOB:
        response = signed_in.get(path, query_string={"job_id": "20260301-100000-unknown"})
        assert (path, response.status_code, response.json) == (path, 404, NO_SUCH_JOB)


def test_reading_what_is_somebody_elses(job, stranger):
    job.bring_to("COMPLETED")
    for path in BY_JOB:
        response = stranger.get(path, query_string={"job_id": job.job_id})
        assert (path, response.status_code, response.json) == (path, 403, NOT_YOURS)


def test_reading_needs_a_job_id(signed_in):
    for path in BY_JOB:
        response = signed_in.get(path)
        assert (path, response.status_code) == (path, 400)
        assert "job_id" in response.json["message"]


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ("PENDING", "/jobs/direct"),
        ("RUNNING", "/jobs/batch"),
        ("MERGING_QUEUED", "/jobs"),
        ("MERGING_RUNNING", "/jobs/direct"),
    ],
)
def test_canceling(job, backend, state, path):
    job.bring_to(state)
    response = job.delete(path)
    assert (response.status_code, response.json) == (200, {"message": "Job canceled"})
    assert job.state == "CANCELED"
    assert {task["task_state"] for task in job.status["job_tasks_status"]} == {"CANCELED"}
    assert listed(job.client, job_state="CANCELED") == [job.job_id]
    assert backend.dispatcher.revoked == [job.simulation_id]


def test_canceling_keeps_what_tasks_have_completed(job):
    job.report_task(0, task_state="RUNNING", simulated_primaries=7)
    job.report_task(1, task_state="COMPLETED")
    job.delete("/jobs/direct")
    assert (job.task(0)["task_state"], job.task(0)["simulated_primaries"]) == ("CANCELED", 7)
    assert (job.task(1)["task_state"], job.task(1)["simulated_primaries"]) == ("COMPLETED", 500)


@pytest.mark.parametrize("state", ["FAILED", "COMPLETED", "CANCELED"])
def test_canceling_what_has_ended_changes_nothing(job, backend, state):
    job.bring_to(state)
    before, backend.dispatcher.revoked[:] = job.status, []
    response = job.delete("/jobs/direct")
    assert (response.status_code, response.json) == (200, {"message": f"Cannot cancel job which is in {state} state"})
    assert job.status == before
    assert backend.dispatcher.revoked == []


def test_canceling_what_is_not_there_or_not_ones_own(job, signed_in, stranger):
    response = signed_in.delete("/jobs/direct?job_id=unknown")
    assert (response.status_code, response.json) == (404, NO_SUCH_JOB)
    response = stranger.delete(f"/jobs/direct?job_id={job.job_id}")
    assert (response.status_code, response.json) == (403, NOT_YOURS)
    assert job.state == "PENDING"


@pytest.mark.parametrize("state", ["MERGING_QUEUED", "MERGING_RUNNING", "FAILED", "COMPLETED", "CANCELED"])
def test_deleting_leaves_nothing(job, database, state):
    job.report(log={"run.log": "began"})
    job.bring_to(state)
    response = job.delete("/user/simulations")
    assert (response.status_code, response.json) == (200, {"message": "Simulation deleted"})
    left = {name for name, number in counts(database).items() if number}
    assert left == {"User", "YaptideUser", "Session", "Runner", "RunnerSimulator"}
    assert listed(job.client) == []
    for path in BY_JOB:
        assert (job.get(path).status_code, job.get(path).json) == (404, NO_SUCH_JOB)


def test_deleting_again_is_answered_quietly(job):
    job.bring_to("CANCELED")
    answers = [job.delete("/user/simulations") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 404, 404]
    assert answers[1].json == answers[2].json == NO_SUCH_JOB


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_what_runs_is_not_deleted(job, state):
    job.bring_to(state)
    response = job.delete("/user/simulations")
    assert (response.status_code, response.json) == (403, {"message": f"Cannot delete job which is in {state} state"})
    assert job.state == state


def test_what_is_somebody_elses_is_not_deleted(job, stranger):
    job.bring_to("COMPLETED")
    response = stranger.delete(f"/user/simulations?job_id={job.job_id}")
    assert (response.status_code, response.json) == (401, NOT_YOURS)
    assert job.state == "COMPLETED"


def test_deleting_needs_a_job_id(signed_in):
    for path in ("/jobs", "/jobs/direct", "/jobs/batch", "/user/simulations"):
        response = signed_in.delete(path)
        assert (path, response.status_code) == (path, 400)
        assert "job_id" in response.json["message"]


def test_clusters_are_for_keycloak_users(signed_in, database):
    batch = payloads.submission(batch_options={"cluster_name": "default", "array_options": {"--time": "01:00:00"}})
    before = counts(database)
    response = signed_in.post("/jobs/batch", json=batch)
    assert (response.status_code, response.json) == (403, {"message": "User is not allowed to use this endpoint"})
    assert counts(database) == before


def test_the_history_tells_every_change(job):
    job.report_task(0, task_state="RUNNING")
    job.delete("/jobs/direct")
    history = job.get("/jobs/history").json["history"]
    moves = [(change["task_id"], change["from_state"], change["to_state"], change["actor"]) for change in history]
    assert moves[:3] == [(None, None, "PENDING", "alice"), (0, None, "PENDING", "alice"), (1, None, "PENDING", "alice")]
    assert history[0]["reason"].startswith("External workers get the project without input files. ")
    assert history[0]["reason"].endswith(WAITS)
    assert [change["reason"] for change in history[1:3]] == [None, None]
    assert moves[3:5] == [(0, "PENDING", "RUNNING", "worker"), (None, "PENDING", "RUNNING", "worker")]
    assert sorted(moves[5:], key=str) == [
        (0, "RUNNING", "CANCELED", "alice"),
        (1, "PENDING", "CANCELED", "alice"),
        (None, "RUNNING", "CANCELED", "alice"),
    ]
    assert {change["reason"] for change in history[5:]} == {"canceled by its user"}
    for change in history:
        assert set(change) == {"task_id", "from_state", "to_state", "time", "exact_time", "actor", "reason"}
        parsedate_to_datetime(change["time"])

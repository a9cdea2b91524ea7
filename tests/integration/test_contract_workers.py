"""Reports of workers, clusters and scripts with an update key: tasks, simulations, log files."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.support.api import contents, submit
from yaptide.services import lifecycle

WRONG_KEY = {"message": "Invalid update key"}
UNKNOWN = 2**31 - 1


@pytest.fixture
def running(job):
    """A simulation whose task 0 runs and has simulated 100 of 500 primaries."""
    assert job.report_task(0, task_state="RUNNING", simulated_primaries=100).status_code == 202
    return job


def test_an_update_is_taken(job):
    response = job.report_task(0, task_state="RUNNING", simulated_primaries=100)
    assert (response.status_code, response.json["message"]) == (202, "Task updated")
    assert job.state == "RUNNING"
    assert job.task(0)["simulated_primaries"] == 100
    assert job.task(1)["task_state"] == "PENDING"


@pytest.mark.parametrize(
    ("reported", "shown"), [([200], 200), ([200, 150], 200), ([500], 500), ([501], 500), ([2**62], 500), ([0], 100)]
)
def test_progress_only_grows_and_never_past_what_was_requested(running, reported, shown):
    for number in reported:
        assert running.report_task(0, simulated_primaries=number).status_code == 202
    assert running.task(0)["simulated_primaries"] == shown
    running.report_task(0, simulated_primaries=number, celery_id="not the short way")
    assert running.task(0)["simulated_primaries"] == shown


def test_requested_primaries_follow_what_the_simulator_really_does(running):
    running.report_task(0, requested_primaries=600, simulated_primaries=550)
    assert (running.task(0)["requested_primaries"], running.task(0)["simulated_primaries"]) == (600, 550)


def test_what_was_simulated_is_never_more_than_what_was_requested(running):
    running.report_task(0, requested_primaries=10)
    task = running.task(0)
    assert task["simulated_primaries"] == 100
    assert task["requested_primaries"] >= task["simulated_primaries"]


def test_a_completed_task_has_simulated_what_was_requested(running):
    response = running.report_task(0, task_state="COMPLETED", simulated_primaries=3)
    assert response.status_code == 202
    task = running.task(0)
    assert (task["task_state"], task["simulated_primaries"]) == ("COMPLETED", 500)
    assert "end_time" in task
    assert "estimated_time" not in task


def test_the_time_left_ends_with_the_task(running):
    running.report_task(0, estimated_time=90, simulated_primaries=120)
    running.report_task(0, simulated_primaries=121)  # says nothing of the time
    assert running.task(0)["estimated_time"] == {"hours": 0, "minutes": 1, "seconds": 30}
    running.report_task(0, task_state="FAILED")
    assert "estimated_time" not in running.task(0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-03-01 10:00:00.250000", "Sun, 01 Mar 2026 10:00:00 GMT"),
        ("2026-03-01T10:00:00Z", "Sun, 01 Mar 2026 10:00:00 GMT"),
        ("2026-03-01T11:00:00+01:00", "Sun, 01 Mar 2026 10:00:00 GMT"),
    ],
)
def test_times_are_utc_and_set_once(job, text, shown):
    job.report_task(0, start_time=text)
    job.report_task(0, start_time="2026-03-02 00:00:00.000000", task_state="RUNNING")
    assert job.task(0)["start_time"] == shown
    job.report_task(0, task_state="COMPLETED", end_time="2026-03-01 12:00:00.000000")
    job.report_task(0, task_state="COMPLETED", end_time="2026-03-01 13:00:00.000000")
    assert job.task(0)["end_time"] == "Sun, 01 Mar 2026 12:00:00 GMT"


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED", "FAILED", "CANCELED"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_worker_whose_clock_is_slow_is_still_heard(job, state, begun):
    if begun:
        job.report_task(0, task_state="RUNNING")
    response = job.report_task(0, task_state=state, end_time="2020-01-01 00:00:00.000000")
    assert response.status_code == 202, response.json
    task = job.task(0)
    assert task["task_state"] == state
    if "start_time" in task and "end_time" in task:
        assert parsedate_to_datetime(task["start_time"]) <= parsedate_to_datetime(task["end_time"])


@pytest.mark.parametrize("final", ["COMPLETED", "FAILED", "CANCELED"])
def test_a_final_state_of_a_task_never_changes(running, final):
    running.report_task(0, task_state=final)
    before = running.task(0)
    for state in ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELED"):
        response = running.report_task(0, task_state=state, simulated_primaries=450, requested_primaries=7)
        assert response.status_code == 202
        assert response.json["task_state"] == final
    assert running.task(0) == before


def test_a_task_does_not_go_back_to_waiting(running):
    response = running.report_task(0, task_state="PENDING")
    assert (response.status_code, response.json["task_state"]) == (202, "RUNNING")
    assert running.task(0)["task_state"] == "RUNNING"


def test_reports_on_a_canceled_simulation_change_nothing(running, database):
    running.delete("/jobs/direct")
    before = contents(database)
    for update in ({"simulated_primaries": 200}, {"task_state": "COMPLETED"}, {"start_time": "2026-03-01 10:00:00"}):
        response = running.report_task(0, **update)
        assert (response.status_code, response.json["task_state"]) == (202, "CANCELED")
    assert contents(database) == before


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELED"])
def test_reports_on_tasks_of_a_simulation_that_has_ended_change_nothing(running, database, end):
    running.report(job_state=end)
    before = contents(database)
    for update in ({"simulated_primaries": 200}, {"task_state": "COMPLETED"}, {"task_state": "FAILED"}):
        assert running.report_task(0, **update).status_code == 202
        assert running.report_tasks({0: update, 1: update}).status_code == 202
    assert contents(database) == before


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (["COMPLETED", "RUNNING"], "RUNNING"),
        (["COMPLETED", "COMPLETED"], "MERGING_QUEUED"),
        (["FAILED", "COMPLETED"], "MERGING_QUEUED"),
        (["FAILED", "FAILED"], "FAILED"),
        (["FAILED", "CANCELED"], "FAILED"),
        (["CANCELED", "CANCELED"], "CANCELED"),
    ],
)
def test_the_simulation_follows_its_tasks(job, ends, state):
    for task_id, end in enumerate(ends):
        job.report_task(task_id, task_state=end)
    assert job.state == state


def test_a_wrong_key_does_not_tell_what_exists(job, database):
    before = contents(database)
    body = {"task_id": 0, "update_dict": {"task_state": "COMPLETED"}}
    for simulation_id, key in ((job.simulation_id, "wrong"), (UNKNOWN, "wrong"), (UNKNOWN, job.update_key)):
        who = {"simulation_id": simulation_id, "update_key": key}
        for path, rest in (
            ("/tasks", body),
            ("/tasks/list", {"updates": [body]}),
            ("/logfiles", {"logfiles": {"a": "b"}}),
            ("/results", {"estimators": []}),
        ):
            response = job.client.post(path, json=who | rest)
            assert (path, response.status_code, response.json) == (path, 400, WRONG_KEY)
    assert contents(database) == before


def test_a_key_is_good_for_one_simulation_only(job, signed_in):
    other = submit(signed_in)
    response = job.client.post(
        "/tasks",
        json={
            "simulation_id": other.simulation_id,
            "update_key": job.update_key,
            "task_id": 0,
            "update_dict": {"task_state": "COMPLETED"},
        },
    )
    assert (response.status_code, response.json) == (400, WRONG_KEY)
    assert other.task(0)["task_state"] == "PENDING"


def test_a_key_lasts_as_long_as_its_simulation(running, backend, monkeypatch):
    later = datetime.now(UTC) + 2 * backend.limits.update_key
    monkeypatch.setattr(lifecycle, "utc_now", lambda: later)
    monkeypatch.setattr("yaptide.services.tasks.utc_now", lambda: later)
    assert running.report_task(0, simulated_primaries=200).status_code == 202
    assert running.post_results().status_code == 202


def test_a_key_does_not_outlast_its_simulation_for_ever(running, backend, database, monkeypatch):
    running.post_results()
    before = contents(database)
    later = datetime.now(UTC) + backend.limits.update_key + timedelta(minutes=1)
    monkeypatch.setattr(lifecycle, "utc_now", lambda: later)
    monkeypatch.setattr("yaptide.services.tasks.utc_now", lambda: later)
    answers = [
        running.report_task(0, simulated_primaries=200),
        running.report_task(0, task_state="COMPLETED"),
        running.report_tasks({0: {"simulated_primaries": 200}}),
        running.report(job_state="FAILED"),
        running.post_results(),
    ]
    assert [(answer.status_code, answer.json) for answer in answers] == [(400, WRONG_KEY)] * 5
    assert contents(database) == before


@pytest.mark.parametrize(
    ("task_id", "update"),
    [(2, {}), (UNKNOWN, {}), (-1, {}), (0, {"colour": "red"}), (0, {"task_state": "MERGING_QUEUED"}), (0, {"id": 7})],
)
def test_what_is_no_task_or_no_update_is_refused(job, database, task_id, update):
    before = contents(database)
    response = job.report_task(task_id, **{"simulated_primaries": 1} | update)
    assert response.status_code == 400
    assert response.json["message"]
    assert contents(database) == before


@pytest.mark.parametrize("missing", ["simulation_id", "task_id", "update_key", "update_dict"])
def test_missing_and_additional_keys_are_refused(job, missing):
    body = {"simulation_id": job.simulation_id, "task_id": 0, "update_key": job.update_key, "update_dict": {}}
    assert job.client.post("/tasks", json=body).status_code == 202
    assert job.client.post("/tasks", json=body | {"more": 1}).status_code == 400
    del body[missing]
    response = job.client.post("/tasks", json=body)
    assert response.status_code == 400
    assert missing in response.json["message"]


def test_many_tasks_in_one_report(running):
    begun = {"task_state": "RUNNING", "simulated_primaries": 7}
    message = {0: {"simulated_primaries": 200, "estimated_time": 9}, 1: begun}
    response = running.report_tasks(message)
    assert response.status_code == 202
    assert response.json["message"] == "Tasks updated"
    assert response.json["tasks"] == [{"task_id": n, "task_state": "RUNNING"} for n in (0, 1)]
    assert [running.task(number)["simulated_primaries"] for number in (0, 1)] == [200, 7]
    assert running.task(0)["estimated_time"] == {"hours": 0, "minutes": 0, "seconds": 9}
    response = running.report_tasks({1: {"task_state": "COMPLETED"}, 0: {"task_state": "FAILED"}})
    assert [task["task_state"] for task in response.json["tasks"]] == ["COMPLETED", "FAILED"]
    assert running.state == "MERGING_QUEUED"


@pytest.mark.parametrize(("reported", "shown"), [(50, 100), (100, 100), (400, 400), (2**62, 500)])
def test_progress_in_a_list_only_grows_as_well(running, reported, shown):
    assert running.report_tasks({0: {"simulated_primaries": reported}}).status_code == 202
    assert running.task(0)["simulated_primaries"] == shown


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELED"])
def test_a_list_of_late_reports_changes_nothing_and_tells_how_it_ended(job, database, state):
    job.report_task(0, task_state="RUNNING")
    job.bring_to(state)
    before = contents(database)
    response = job.report_tasks({0: {"simulated_primaries": 400}, 1: {"task_state": "RUNNING"}})
    assert response.status_code == 202
    assert {task["task_state"] for task in response.json["tasks"]} == {state}
    assert contents(database) == before


def test_of_a_list_all_is_taken_or_nothing(running, database):
    before = contents(database)
    good = {"simulated_primaries": 300}
    twice = [{"task_id": 0, "update_dict": good}] * 2
    for response in (
        running.report_tasks({0: good, 2: good}),
        running.report_tasks({0: good, UNKNOWN: good}),
        running.report_tasks({0: good, 1: {"task_state": "MERGING_QUEUED"}}),
        running.report_tasks({0: good, 1: {"colour": "red"}}),
        running.report_tasks({0: good}, updates=twice),
        running.report_tasks({}),
        running.report_tasks({0: good}, more=1),
        running.report_tasks({0: good}, update_key="wrong"),
        running.report_tasks({0: good}, simulation_id=UNKNOWN),
    ):
        assert response.status_code == 400
        assert response.json["message"]
    assert contents(database) == before


def test_reporting_on_a_simulation(job):
    response = job.report(job_state="RUNNING")
    assert response.status_code == 202
    assert response.json["job_state"] == "RUNNING"
    assert job.state == "RUNNING"
    job.report(job_state="MERGING_QUEUED")
    job.report(job_state="MERGING_RUNNING")
    assert job.state == "MERGING_RUNNING"


@pytest.mark.parametrize(("state", "later"), [("RUNNING", "PENDING"), ("MERGING_RUNNING", "MERGING_QUEUED")])
def test_a_late_report_does_not_take_a_simulation_back(job, state, later):
    job.bring_to(state)
    response = job.report(job_state=later)
    assert (response.status_code, response.json["job_state"]) == (202, state)
    assert job.state == state


@pytest.mark.parametrize("final", ["COMPLETED", "FAILED", "CANCELED"])
def test_a_final_state_of_a_simulation_never_changes(job, final):
    job.bring_to(final)
    before = job.status
    for state in ("PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", "COMPLETED", "FAILED", "CANCELED"):
        response = job.report(job_state=state)
        assert (response.status_code, response.json["job_state"]) == (202, final)
    assert job.status == before


def test_a_simulation_that_failed_ends_its_tasks_and_tells_when(job, signed_in):
    end = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
    job.report(job_state="FAILED", end_time=f"{end:%Y-%m-%d %H:%M:%S.%f}", log={"error.log": "out of memory"})
    assert {task["task_state"] for task in job.status["job_tasks_status"]} == {"FAILED"}
    [item] = signed_in.get("/user/simulations").json["simulations"]
    assert parsedate_to_datetime(item["end_time"]) == end
    assert job.get("/logfiles").json["logfiles"] == {"error.log": "out of memory"}


def test_a_simulation_never_ends_before_it_began(job, signed_in):
    job.report(job_state="FAILED", end_time="2001-01-01 00:00:00.000000")
    [item] = signed_in.get("/user/simulations").json["simulations"]
    assert item["end_time"] == item["start_time"]


def test_reporting_on_a_simulation_with_a_wrong_key(job, database):
    before = contents(database)
    wrong = {"update_key": "wrong", "job_state": "FAILED"}
    response = job.client.post("/jobs", json={"sim_id": job.simulation_id, **wrong})
    assert (response.status_code, response.json) == (400, WRONG_KEY)
    response = job.client.post("/jobs", json={"sim_id": UNKNOWN, **wrong})
    assert response.status_code == 404
    assert contents(database) == before


def test_slurm_numbers_of_a_direct_simulation_are_ignored(job):
    assert job.report(job_dir="/scratch/1", array_id=7, collect_id=8).status_code == 202
    assert job.state == "PENDING"


def post_logfiles(job, **logfiles):
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "logfiles": logfiles}
    return job.client.post("/logfiles", json=body)


def test_log_files_come_back_as_text_that_is_safe_in_a_page(job):
    response = post_logfiles(job, **{"<b>.log": "<script>alert('&')</script>\n\"5 > 4\"", "b.log": "µ"})
    assert (response.status_code, response.json) == (202, {"message": "Log files saved"})
    response = job.get("/logfiles")
    assert response.status_code == 200
    assert set(response.json) == {"message", "logfiles"}
    assert response.json["logfiles"] == {
        "&lt;b&gt;.log": "&lt;script&gt;alert('&amp;')&lt;/script&gt;\n\"5 &gt; 4\"",
        "b.log": "µ",
    }


def test_log_files_gather_and_the_last_of_a_name_counts(job):
    for logfiles in ({"a": "1", "b": "1"}, {"b": "2"}, {"b": "2"}):
        assert post_logfiles(job, **logfiles).status_code == 202
    assert job.get("/logfiles").json["logfiles"] == {"a": "1", "b": "2"}


def test_the_same_log_files_twice_are_kept_once(job, database):
    post_logfiles(job, a="1")
    before = contents(database)
    assert post_logfiles(job, a="1").status_code == 202
    assert contents(database) == before


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "COMPLETED"])
def test_log_files_are_taken_after_the_end_since_they_explain_it(job, state):
    job.bring_to(state)
    assert post_logfiles(job, a="1").status_code == 202
    assert job.get("/logfiles").json["logfiles"] == {"a": "1"}


def test_without_log_files(job):
    response = job.get("/logfiles")
    assert (response.status_code, response.json) == (404, {"message": "Logfiles not found"})

"""Workers of others, which have the update key of a simulation and nothing else, as the existing ones report."""

from dataclasses import replace

import pytest

from tests.support import payloads
from tests.support.api import Job, contents, sign_in, submit
from tests.support.storing import output, submitted
from yaptide.domain.states import EntityState
from yaptide.services import tasks

OWNER = "place/executor-1"


def stand_in(job: Job) -> Job:
    """The same simulation for an external worker: no session, only the update key."""
    document = job.get("/jobs/key").json
    return Job(job.client.application.test_client(), job.job_id, document["simulation_id"], document["update_key"])


@pytest.mark.parametrize("input_type", ["editor", "files"])
def test_a_worker_of_others_finishes_a_simulation_with_the_key_alone(signed_in, input_type):
    files = {"input_type": "files", "input_files": payloads.shieldhit_files(), "input_json": None}
    job = submit(signed_in, **(files if input_type == "files" else {}))
    assert job.status["waiting"] == "Waiting for an external worker with SHIELD-HIT12A"
    worker = stand_in(job)
    for number in (0, 1):
        began = worker.report_task(number, task_state="RUNNING", start_time="2026-03-01 10:00:00.000000")
        assert began.json["task_state"] == "RUNNING"
        worker.report_task(number, simulated_primaries=250, estimated_time=7)
    assert "waiting" not in job.status
    assert job.task(1)["simulated_primaries"] == 250
    for number in (0, 1):
        last = {"task_state": "COMPLETED", "end_time": "2026-03-01 10:01:00.000000"}
        worker.report_task(number, **last, simulated_primaries=0, requested_primaries=0)
    assert worker.report(job_state="MERGING_RUNNING").status_code == 202
    assert worker.post_results(payloads.estimator("dose_"), payloads.estimator("dose2_")).status_code == 202
    assert worker.report(job_state="COMPLETED", log={"merge.log": "done"}).json["job_state"] == "COMPLETED"
    assert (job.state, job.task(0)["simulated_primaries"]) == ("COMPLETED", 500)
    names = [result["name"] for result in job.get("/estimators").json["estimators_metadata"]]
    assert names == (["dose", "dose2"] if input_type == "editor" else ["dose_", "dose2_"])
    assert job.get("/results").status_code == 200
    assert {change["actor"] for change in job.get("/jobs/history").json["history"]} == {"alice", "worker"}


def test_what_the_existing_batch_submission_reports_is_taken(job):
    scripts = {"submit": "#!/bin/sh", "array": "srun true"}
    sent = {"job_dir": "/scratch/runs/1", "array_id": 11, "collect_id": 12, "submit_stdout": "Job id: 11"}
    assert job.report(**sent, sh_files=scripts).status_code == 202
    log = {"message": "Job submission failed", "submit_stdout": "", "sh_files": scripts, "code": 1, "none": None}
    assert job.report(job_state="FAILED", log=log).json["job_state"] == "FAILED"
    assert job.get("/logfiles").json["logfiles"] == {
        "message": "Job submission failed",
        "submit_stdout": "",
        "sh_files": '{"submit": "#!/bin/sh", "array": "srun true"}',
        "code": "1",
        "none": "null",
    }


@pytest.mark.parametrize("wrong", [{"log": ["a"]}, {"log": "text"}, {"array_id": "11"}, {"end_time": 5}])
def test_what_means_nothing_is_still_refused(job, wrong):
    assert job.report(**wrong).status_code == 400


def test_zero_requested_primaries_means_not_told(job):
    last = {"task_state": "COMPLETED", "simulated_primaries": 0, "requested_primaries": 0}
    assert job.report_task(0, **last).json["task_state"] == "COMPLETED"
    assert (job.task(0)["requested_primaries"], job.task(0)["simulated_primaries"]) == (500, 500)
    assert job.report_task(1, requested_primaries=-1).status_code == 400
    assert job.report_task(1, requested_primaries=False).status_code == 400


def test_whoever_has_leased_a_task_is_not_overruled_by_the_key(backend):
    _, simulation = submitted(backend, 2)
    number, key = simulation.simulation_id, simulation.update_key
    claim = tasks.claim_task(backend, backend.spool.place + OWNER, ["shieldhit"])
    for update in (
        tasks.Update(simulated_primaries=50),
        tasks.Update(task_state=EntityState.COMPLETED),
        tasks.Update(task_state=EntityState.FAILED, requested_primaries=7),
    ):
        assert tasks.report_task(backend, number, claim.task_id, key, update) == "RUNNING"
        both = {claim.task_id: update, 1 - claim.task_id: tasks.Update(task_state=EntityState.RUNNING)}
        assert tasks.report_tasks(backend, number, key, both)[claim.task_id] == "RUNNING"
    assert tasks.report_progress(backend, claim, 60, None)
    assert tasks.report_progress(backend, claim, 70, None, key)
    assert tasks.complete_task(backend, claim, output(claim))
    # no runner here has the other simulator: the external worker with the key runs it
    free = 1 - claim.task_id
    assert tasks.report_task(backend, number, free, key, tasks.Update(task_state=EntityState.COMPLETED)) == "COMPLETED"


def test_a_task_that_was_given_back_is_free_again(backend):
    _, simulation = submitted(backend, 1)
    claim = tasks.claim_task(backend, backend.spool.place + OWNER, ["shieldhit"])
    assert tasks.give_back(backend, claim, "stopped")
    number, key = simulation.simulation_id, simulation.update_key
    running = tasks.Update(task_state=EntityState.RUNNING)
    assert tasks.report_task(backend, number, 0, key, running) == "RUNNING"
    assert tasks.claim_task(backend, backend.spool.place + OWNER, ["shieldhit"]) is None


def test_the_key_is_its_owners_to_ask_for(job, stranger, client):
    query = {"job_id": job.job_id}
    assert job.get("/jobs/key").json["update_key"] == job.update_key
    assert job.get("/jobs/key").json["simulation_id"] == job.simulation_id
    assert stranger.get("/jobs/key", query_string=query).status_code == 403
    assert client.get("/jobs/key", query_string=query).status_code == 401
    assert job.client.get("/jobs/key", query_string={"job_id": "none"}).status_code == 404


def test_asking_for_the_key_changes_nothing(job, database):
    before = contents(database)
    job.get("/jobs/key")
    assert contents(database) == before


def test_after_a_change_of_the_signing_key_there_is_a_new_one(app, backend):
    job = submit(sign_in(app, "alice"))
    app.extensions["yaptide"] = replace(backend, signing_key=b"another key for tests, 32 bytes or more")
    again = app.test_client()
    assert again.post("/auth/login", json={"username": "alice", "password": "correct horse"}).status_code == 202
    new = again.get("/jobs/key", query_string={"job_id": job.job_id}).json["update_key"]
    assert new != job.update_key
    assert job.report_task(0, task_state="RUNNING").status_code == 400
    assert replace(job, update_key=new).report_task(0, task_state="RUNNING").status_code == 202

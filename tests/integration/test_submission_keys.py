"""A submission with an idempotency key is stored once, however often and by whatever way it is repeated."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support import payloads, projects
from tests.support.api import contents, counts
from yaptide.domain.errors import InvalidInput, KeyReused
from yaptide.services import administration, recovery, simulations, users
from yaptide.services.simulations import Submission
from yaptide.simulators.mcsquare.sample import water_sample

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
in_memory = pytest.mark.parametrize("database", ["memory"], indirect=True)
on_disk = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def user(backend):
    return users.register_user(backend, "alice", None)


@pytest.fixture
def submission():
    return Submission("mcsquare", 2, "t", water_sample())


def post(client, headers=KEY, **changes):
    return client.post("/jobs/direct", json=payloads.submission(**changes), headers=headers)


def test_a_repeated_submission_is_answered_with_the_same_simulation(signed_in, database):
    first = post(signed_in)
    assert first.status_code == 202
    before = contents(database)
    again = post(signed_in)
    assert (again.status_code, again.json) == (first.status_code, first.json)
    assert contents(database) == before
    assert counts(database)["Simulation"] == 1


def test_another_submission_with_the_same_key_is_refused(signed_in, database):
    post(signed_in)
    for changes in ({"title": "Another"}, {"ntasks": 3}, {"primaries": 2000}):
        refused = post(signed_in, **changes)
        assert refused.status_code == 422
        assert "use a new key for each submission" in refused.json["message"]
    assert counts(database)["Simulation"] == 1
    assert post(signed_in, {"Idempotency-Key": "another"}).status_code == 202
    assert post(signed_in, {}).status_code == post(signed_in, {}).status_code == 202
    assert counts(database)["Simulation"] == 4


def test_a_key_belongs_to_its_user(signed_in, stranger):
    assert post(signed_in).json["job_id"] != post(stranger, title="Another").json["job_id"]


@in_memory
@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "\u017c", "tab\t"], ids=ascii)
def test_an_invalid_key_is_refused(signed_in, database, key):
    refused = post(signed_in, {"Idempotency-Key": key})
    assert refused.status_code == 400
    assert "visible ASCII" in refused.json["message"]
    assert counts(database)["Simulation"] == 0


@in_memory
def test_every_valid_key_is_accepted(signed_in):
    for key in ("!", "~", '"quoted"', "x" * 255):
        assert post(signed_in, {"Idempotency-Key": key}).status_code == 202


@in_memory
def test_a_refused_submission_does_not_use_up_its_key(signed_in):
    assert post(signed_in, primaries=0).status_code == 400
    assert post(signed_in).status_code == 202


def test_a_repetition_after_the_simulation_was_deleted_runs_nothing(signed_in, database):
    job_id = post(signed_in).json["job_id"]
    signed_in.delete("/jobs/direct", query_string={"job_id": job_id})
    assert signed_in.delete("/user/simulations", query_string={"job_id": job_id}).status_code == 200
    again = post(signed_in)
    assert (again.status_code, again.json["job_id"]) == (202, job_id)
    assert counts(database)["Simulation"] == 0
    assert signed_in.get("/jobs", query_string={"job_id": job_id}).status_code == 404


def test_a_repetition_is_answered_although_nothing_could_be_submitted_now(backend, user, submission):
    first = simulations.submit_simulation(backend, user, submission, "k")
    administration.set_quota(backend.database, user, 1)
    assert simulations.submit_simulation(backend, user, submission, "k") == first
    with pytest.raises(KeyReused):
        simulations.submit_simulation(backend, user, replace(submission, title="u"), "k")


@in_memory
def test_the_parts_of_a_project_that_are_left_out_are_listed_again(backend, user):
    submission = Submission("mcsquare", 1, "t", input_json=projects.water_phantom())
    first = simulations.submit_simulation(backend, user, submission, "k")
    assert first.left_out
    assert simulations.submit_simulation(backend, user, submission, "k") == first


@in_memory
def test_a_project_nested_too_deeply_is_refused(backend, user):
    project = payloads.project()
    for _ in range(400):
        project = {**payloads.project(), "nested": project}
    with pytest.raises(InvalidInput):
        simulations.submit_simulation(backend, user, Submission("shieldhit", 1, "t", input_json=project), "k")


@on_disk
def test_of_many_at_once_one_is_stored_and_all_get_it(backend, user, submission, database):
    with ThreadPoolExecutor(8) as pool:
        submitted = pool.map(lambda _: simulations.submit_simulation(backend, user, submission, "k"), range(24))
        assert len({one.job_id for one in submitted}) == 1
    assert counts(database)["Simulation"] == counts(database)["SubmissionKey"] == 1


def test_keys_are_forgotten_after_two_days(backend, user, submission, database, monkeypatch):
    now = simulations.utc_now()
    for key, age in (("old", timedelta(hours=49)), ("new", timedelta(hours=47))):
        with monkeypatch.context() as patched:
            patched.setattr(simulations, "utc_now", lambda age=age: now - age)
            simulations.submit_simulation(backend, user, submission, key)
    recovery.clean_up(backend)
    assert counts(database)["SubmissionKey"] == 1
    simulations.submit_simulation(backend, user, submission, "new")
    assert counts(database)["Simulation"] == 2
    simulations.submit_simulation(backend, user, submission, "old")
    assert counts(database)["Simulation"] == 3

"""`GET /watch`: following many simulations with one request."""

import pytest
from sqlalchemy import text

from tests.support.api import Job, submit

in_memory = pytest.mark.parametrize("database", ["memory"], indirect=True)


def watch(client, *jobs, **headers):
    query = {"job_id": ",".join(job.job_id if isinstance(job, Job) else job for job in jobs)}
    return client.get("/watch", query_string=query, headers=headers)


def test_several_simulations_are_shown_in_the_order_of_the_request(signed_in):
    first, second = submit(signed_in), submit(signed_in)
    second.report_task(0, task_state="RUNNING", simulated_primaries=20)
    response = watch(signed_in, second, first, second)
    assert response.status_code == 200
    shown = response.json["simulations"]
    assert [one["job_id"] for one in shown] == [second.job_id, first.job_id]
    numbers = ("job_state", "requested_primaries", "simulated_primaries")
    assert [tuple(one[name] for name in numbers) for one in shown] == [("RUNNING", 1000, 20), ("PENDING", 1000, 0)]
    assert shown[1]["waiting"].startswith("Waiting for")
    assert "waiting" not in shown[0]
    assert len(response.data) < 200 * 2 + 200


def test_an_unchanged_response_is_not_sent_again(signed_in):
    job = submit(signed_in)
    first = watch(signed_in, job)
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = watch(signed_in, job, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    job.report_task(0, task_state="RUNNING", simulated_primaries=20)
    changed = watch(signed_in, job, **{"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.json["simulations"][0]["change"] > first.json["simulations"][0]["change"]
    job.report_task(0, simulated_primaries=21)
    progress = watch(signed_in, job, **{"If-None-Match": changed.headers["ETag"]})
    assert progress.json["simulations"][0]["simulated_primaries"] == 21
    assert progress.json["simulations"][0]["change"] == changed.json["simulations"][0]["change"]


def test_the_reason_of_a_failure_is_shown(signed_in, database):
    job = submit(signed_in)
    job.report(job_state="FAILED")
    with database.writing() as connection:
        connection.execute(text("""UPDATE "StateHistory" SET reason = 'no beam' WHERE to_state = 'FAILED'"""))
    (shown,) = watch(signed_in, job).json["simulations"]
    assert (shown["job_state"], shown["reason"]) == ("FAILED", "no beam")


def test_only_own_simulations_are_shown(job, signed_in, stranger):
    assert watch(stranger, job).json["simulations"] == []
    assert [one["job_id"] for one in watch(signed_in, "unknown", job).json["simulations"]] == [job.job_id]


@in_memory
@pytest.mark.parametrize("job_ids", ["", ",", ",".join(map(str, range(101))), "x" * 7001], ids=range(4))
def test_no_and_too_many_identifiers_are_refused(signed_in, job_ids):
    refused = watch(signed_in, job_ids)
    assert refused.status_code == 400
    assert "job_id" in refused.json["message"]


@in_memory
def test_a_hundred_are_accepted(signed_in):
    assert watch(signed_in, *map(str, range(100))).json["simulations"] == []

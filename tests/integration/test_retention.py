"""Purging removes what is old, whole or all but the inputs, and nothing else; the figures are right afterwards."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from tests.support import payloads
from tests.support.api import contents, counts, submit
from yaptide.admin import cli
from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import EntityState
from yaptide.services import administration, integrity, retention, stats
from yaptide.services.retention import Old
from yaptide.services.spool import Folder

ENDS = (EntityState.COMPLETED, EntityState.FAILED, EntityState.CANCELED)
FILE = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


def old(*states, keep_inputs=False):
    return Old(datetime.now(UTC) - timedelta(days=90), states or ENDS, keep_inputs)


def aged(database, *jobs, days=91):
    """Have simulations begin and end so many days ago."""
    moment = datetime.now(UTC) - timedelta(days=days)
    stored = moment.replace(tzinfo=None).isoformat(" ") if database.is_sqlite else moment
    with database.writing() as connection:
        for job in jobs:
            this = {"moment": stored, "job": job.job_id}
            times = "start_time = :moment, end_time = :moment"
            connection.execute(text(f'UPDATE "Simulation" SET {times} WHERE job_id = :job'), this)


@pytest.fixture
def jobs(signed_in, database):
    """A simulation in each state: all of them began long ago, and those that have ended did so long ago."""
    made = {}
    for state in ("PENDING", "RUNNING", "MERGING_QUEUED", "COMPLETED", "FAILED", "CANCELED"):
        made[state] = submit(signed_in)
        made[state].report_task(0, task_state="FAILED") if state == "FAILED" else None
        body = {"simulation_id": made[state].simulation_id, "update_key": made[state].update_key}
        signed_in.post("/logfiles", json={**body, "logfiles": {"a.log": state}})
        made[state].bring_to(state)
    aged(database, *(made[state] for state in ENDS))
    return made


def purge(database, tmp_path, which):
    items = [row.job_id for row in retention.find_old(database, which)]
    return retention.purge_simulations(database, Folder(tmp_path / "spool"), which, items)


def test_what_is_old_goes_whole_and_nothing_else(jobs, database, tmp_path):
    spooled = tmp_path / "spool" / jobs["FAILED"].job_id
    spooled.mkdir(parents=True)
    young = submit(jobs["PENDING"].client).bring_to("FAILED")
    assert set(purge(database, tmp_path, old(EntityState.FAILED))) == {jobs["FAILED"].job_id}
    assert not spooled.exists()
    assert jobs["FAILED"].get("/jobs").status_code == 404
    assert counts(database)["Simulation"] == 6
    assert counts(database)["Task"] == 12
    assert young.state == "FAILED"
    assert len(purge(database, tmp_path, old())) == 2
    for state in ("PENDING", "RUNNING", "MERGING_QUEUED"):
        assert jobs[state].state == state
    assert purge(database, tmp_path, old()) == []
    assert integrity.check_store(database) == []


def test_inputs_can_be_kept(jobs, database, tmp_path):
    job = jobs["COMPLETED"]
    document = job.get("/inputs").json, job.status["job_tasks_status"]
    assert set(purge(database, tmp_path, old(keep_inputs=True))) == {jobs[state].job_id for state in ENDS}
    assert (job.get("/inputs").json, job.status["job_tasks_status"]) == document
    assert job.state == "COMPLETED"
    assert job.get("/results").status_code == job.get("/logfiles").status_code == 404
    last = job.get("/jobs/history").json["history"][-1]
    assert (last["actor"], last["from_state"], last["to_state"]) == ("operator", "COMPLETED", "COMPLETED")
    assert (counts(database)["Input"], counts(database)["Estimator"], counts(database)["Logfiles"]) == (6, 0, 3)
    assert integrity.check_store(database) == []  # and with it, that the bytes are counted
    before = contents(database)
    assert purge(database, tmp_path, old(keep_inputs=True)) == []
    assert contents(database) == before


def test_space_that_was_freed_can_be_used(jobs, database, tmp_path):
    alice = administration.find_user(database, "alice")
    administration.set_quota(database, alice, administration.count_holdings(database, alice).stored_bytes)
    client = jobs["PENDING"].client
    assert client.post("/jobs/direct", json=payloads.submission()).status_code == 409
    purge(database, tmp_path, old())
    assert client.post("/jobs/direct", json=payloads.submission()).status_code == 202


def test_many_go_in_several_transactions(signed_in, database, tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    made = [submit(signed_in).bring_to("CANCELED") for _ in range(5)]
    aged(database, *made)
    begun, writing = [], database.writing
    monkeypatch.setattr(type(database), "writing", lambda _: begun.append(1) or writing())
    assert len(purge(database, tmp_path, old())) == 5
    assert len(begun) == 3


@pytest.mark.parametrize("states", [(), ("RUNNING",), ("FAILED", "MERGING_QUEUED")])
def test_what_has_not_ended_is_never_removed(jobs, database, states):
    with pytest.raises(InvalidInput, match="Only ended simulations"):
        retention.find_old(database, Old(datetime.now(UTC), tuple(map(EntityState, states))))


def test_what_is_no_longer_old_stays(jobs, database, tmp_path):
    which = old()
    aged(database, jobs["FAILED"], days=1)
    assert retention.purge_simulations(database, Folder(tmp_path), which, [job.job_id for job in jobs.values()]) == [
        jobs["COMPLETED"].job_id,
        jobs["CANCELED"].job_id,
    ]


@pytest.fixture
def yaptide(database, monkeypatch, tmp_path):
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("YAPTIDE_DATA_DIR", str(tmp_path))
    return lambda *words, **options: CliRunner().invoke(cli.app, words, **options)


@FILE
def test_the_command_shows_before_it_asks(yaptide, jobs, database):
    before = contents(database)
    done = yaptide("purge", "--older-than", "90d", "--dry-run")
    assert (done.exit_code, jobs["FAILED"].job_id in done.stdout) == (0, True)
    assert done.stderr.startswith("Nothing was removed; would remove: 2 simulations (")
    assert yaptide("purge", "--older-than", "90d", input="n\n").exit_code == 1
    for words in (("--older-than", "90"), ("--older-than", "90d", "--states", "RUNNING")):
        assert isinstance(yaptide("purge", *words).exception, InvalidInput)
    assert yaptide("purge", "--older-than", "92d").stderr == "Nothing was removed; would remove: 0 simulations (0 B)\n"
    assert contents(database) == before
    done = yaptide("purge", "--older-than", "90d", "--states", "COMPLETED", "--keep-inputs", "--yes", "--json")
    (entry,) = json.loads(done.stdout)["simulations"]
    assert (entry["job_id"], entry["removed"]) == (jobs["COMPLETED"].job_id, True)
    done = yaptide("purge", "--older-than", "90d", input="y\n")
    assert done.stderr.startswith("Remove 2 simulations (")
    assert "Removed: 2 simulations (" in done.stderr
    assert counts(database)["Simulation"] == 4


@FILE
def test_stats(yaptide, jobs, database):
    result = stats.collect_stats(database, 2)
    assert result.rows == counts(database)
    kinds = {row.kind: row for row in result.payloads}
    assert {kind: row.payloads for kind, row in kinds.items()} == {"input": 6, "estimator": 1, "page": 1, "logfiles": 6}
    (alice,) = result.users
    assert alice.stored_bytes == sum(row.stored_bytes for row in result.payloads)
    assert result.largest[0].job_id == jobs["COMPLETED"].job_id
    assert len(result.largest) == 2
    assert result.disk_bytes > alice.stored_bytes
    document = json.loads(yaptide("db", "stats", "--largest", "1", "--json").stdout)
    assert document["users"] == [dict(alice._mapping)]
    assert len(document["largest"]) == 1
    assert yaptide("db", "stats").exit_code == 0

"""The check of the store: a sound one has no findings, one damage is one finding, and a repair loses nothing."""

import gzip
import hashlib
import json

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from tests.support import payloads
from tests.support.api import contents, submit
from yaptide.admin import cli
from yaptide.persistence import codec, schema
from yaptide.services import administration, integrity


@pytest.fixture
def database(empty):
    """A database of its own for each test: some of the damage is in its tables."""
    schema.upgrade_tables(empty)
    return empty


@pytest.fixture
def completed(job):
    """A simulation that has gone all the way, with results and log files, beside one that waits."""
    submit(job.client)
    for task_id in (0, 1):
        job.report_task(task_id, task_state="RUNNING")
        job.report_task(task_id, task_state="COMPLETED")
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "logfiles": {"a.log": "text"}}
    job.client.post("/logfiles", json=body)
    job.post_results(payloads.estimator("dose_", payloads.page(0), payloads.page(1)))
    assert job.state == "COMPLETED"
    return job


RECOUNT = """UPDATE "Simulation" SET stored_bytes =
    (SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "Input" WHERE simulation_id = "Simulation".id)
  + (SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "Estimator" WHERE simulation_id = "Simulation".id)
  + (SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "Logfiles" WHERE simulation_id = "Simulation".id)
  + (SELECT COALESCE(SUM(LENGTH(p.compressed_data)), 0) FROM "Page" p JOIN "Estimator" e ON e.id = p.estimator_id
     WHERE e.simulation_id = "Simulation".id)"""
LAST = 'SELECT MAX(id) FROM "StateHistory" WHERE simulation_id = 1 AND task_id'


def damage(database, *statements):
    """Change rows behind the back of everything that would forbid it."""
    with database.engine.connect() as connection:
        if database.is_sqlite:
            cursor = connection.connection.cursor()  # pragmas work outside a transaction only
            cursor.execute("PRAGMA foreign_keys=OFF")
            cursor.execute("PRAGMA ignore_check_constraints=ON")
        with connection.begin():
            if not database.is_sqlite:
                connection.execute(text("SET LOCAL session_replication_role = replica"))
            for statement in statements:
                if callable(statement):
                    statement(connection)
                else:
                    connection.execute(text(statement))
        if database.is_sqlite:
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA ignore_check_constraints=OFF")


def changed(table, change):
    """Change the stored bytes of the first payload in a table."""

    def apply(connection):
        number, data = connection.execute(text(f'SELECT id, compressed_data FROM "{table}" ORDER BY id')).first()
        this = {"data": change(bytes(data)), "id": number}
        connection.execute(text(f'UPDATE "{table}" SET compressed_data = :data WHERE id = :id'), this)

    return apply


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def replaced(table, content, encode=lambda content: codec.encode_text(content).data):
    """Put another text, with its size and digest, where the first payload of a table is."""

    def apply(connection):
        number = connection.execute(text(f'SELECT MIN(id) FROM "{table}"')).scalar()
        values = {"data": encode(content), "size": len(content), "sha": hashlib.sha256(content).hexdigest()}
        columns = "compressed_data = :data, content_size = :size, content_sha256 = :sha"
        connection.execute(text(f'UPDATE "{table}" SET {columns} WHERE id = :id'), {**values, "id": number})

    return apply


def found(database):
    return [(finding.kind, finding.where, finding.what) for finding in integrity.check_store(database)]


def test_a_sound_store_has_no_findings(completed, signed_in, database):
    for state in ("RUNNING", "MERGING_QUEUED", "FAILED", "CANCELED"):
        submit(signed_in).bring_to(state)
    administration.remove_task(database, completed.job_id, 0, administration.find_task(database, completed.job_id, 0))
    before = contents(database)
    assert found(database) == []
    assert contents(database) == before


DAMAGES = {
    "a bit of a page": ([changed("Page", flipped)], "payload", "{job}, page 0 of estimator 'dose'", None),
    "an estimator cut short": (
        [changed("Estimator", lambda data: data[:-1]), RECOUNT],
        *("payload", "{job}, estimator 'dose'", "A stored payload is damaged: it is truncated or has trailing data"),
    ),
    "bytes behind a payload": (
        [changed("Input", lambda data: data + b"x"), RECOUNT],
        "payload",
        "{job}, Input 1",
        None,
    ),
    "no gzip": ([changed("Logfiles", lambda _: b"x"), RECOUNT], "payload", "{job}, Logfiles 1", None),
    "NaN in a payload of ours": ([replaced("Input", b'{"a":NaN}'), RECOUNT], "payload", "{job}, Input 1", None),
    "no JSON": ([replaced("Page", b"{"), RECOUNT], "payload", "{job}, page 0 of estimator 'dose'", None),
    "no object": ([replaced("Logfiles", b"[1]"), RECOUNT], "payload", "{job}, Logfiles 1", "it is not a JSON object"),
    "a page that is called otherwise": (
        ["""UPDATE "Page" SET page_name = 'LET' WHERE page_number = 1"""],
        *("page", "{job}, page 1 of estimator 'dose'", "page_name is 'LET', but 'DOSE' in the payload"),
    ),
    "a page with another dimension": (
        ['UPDATE "Page" SET page_dimension = 2 WHERE page_number = 1'],
        *("page", "{job}, page 1 of estimator 'dose'", "page_dimension is 2, but 1 in the payload"),
    ),
    "a step back in the history": (
        [f"""UPDATE "StateHistory" SET to_state = 'FAILED' WHERE id = ({LAST} IS NULL)"""],
        *("history", "{job}", "it is COMPLETED, its history ends with FAILED"),
    ),
    "a gap in the history": (
        [f"""UPDATE "StateHistory" SET from_state = 'PENDING' WHERE id = ({LAST} = 1)"""],
        *("move", "{job}, task 1", None),
    ),
    "a move that is not allowed": (
        [
            """UPDATE "StateHistory" SET to_state = 'FAILED' WHERE simulation_id = 1 AND task_id = 1
               AND from_state = 'PENDING'""",
            f"""UPDATE "StateHistory" SET from_state = 'FAILED' WHERE id = ({LAST} = 1)""",
        ],
        *("move", "{job}, task 1", None),
    ),
    "a remark without a word": (
        [
            """INSERT INTO "StateHistory" (simulation_id, from_state, to_state, time, actor)
               VALUES (1, 'COMPLETED', 'COMPLETED', CURRENT_TIMESTAMP, 'x')"""
        ],
        *("move", "{job}", None),
    ),
    "an end at no time": (
        ['UPDATE "Simulation" SET end_time = NULL WHERE id = 1'],
        *("end", "{job}", "it is COMPLETED without an end time"),
    ),
    "an end before the end": (
        ['UPDATE "Task" SET end_time = CURRENT_TIMESTAMP WHERE simulation_id = 2 AND task_id = 0'],
        *("end", "{other}, task 0", "it is PENDING with an end time"),
    ),
    "more primaries than asked for": (
        ['UPDATE "Task" SET simulated_primaries = 501 WHERE simulation_id = 1 AND task_id = 0'],
        *("primaries", "{job}, task 0", "it is COMPLETED with 501 of 500 primaries"),
    ),
    "fewer primaries than were reported": (
        ['UPDATE "Task" SET simulated_primaries = 499 WHERE simulation_id = 1 AND task_id = 0'],
        *("primaries", "{job}, task 0", "it is COMPLETED with 499 of 500 primaries"),
    ),
    "log files of nothing": (
        ['UPDATE "Logfiles" SET simulation_id = 999', RECOUNT],
        *("orphan", "Logfiles with simulation_id 999", "Simulation has no such row"),
    ),
    "a simulation of nobody": (
        ['UPDATE "Simulation" SET user_id = 999 WHERE id = 2'],
        *("orphan", "Simulation with user_id 999", "User has no such row"),
    ),
    "the history of no task": (
        [
            f'UPDATE "StateHistory" SET task_id = 77 WHERE id = ({LAST} = 1)',
            'DELETE FROM "StateHistory" WHERE task_id = 1 AND simulation_id = 1',
            'DELETE FROM "CeleryTask" WHERE id = (SELECT id FROM "Task" WHERE simulation_id = 1 AND task_id = 1)',
            'DELETE FROM "Task" WHERE simulation_id = 1 AND task_id = 1',
            """UPDATE "StateHistory" SET from_state = NULL WHERE task_id = 77""",
        ],
        *("orphan", "StateHistory with id {row}", "Task has no such row"),
    ),
    "half a task": (
        ['DELETE FROM "CeleryTask" WHERE id = 1'],
        *("half", "Task 1", "its other half in CeleryTask is missing"),
    ),
    "half a simulation too much": (
        [
            "INSERT INTO \"Cluster\" (cluster_name) VALUES ('ares')",
            'INSERT INTO "BatchSimulation" (id, cluster_id) VALUES (1, 1)',
        ],
        *("half", "BatchSimulation 1", None),
    ),
    "no input": (['DELETE FROM "Input" WHERE simulation_id = 1', RECOUNT], "lacking", "{job}", "it has no input"),
    "no tasks": (
        [
            'DELETE FROM "CeleryTask" WHERE id IN (SELECT id FROM "Task" WHERE simulation_id = 2)',
            'DELETE FROM "Task" WHERE simulation_id = 2',
            'DELETE FROM "StateHistory" WHERE simulation_id = 2 AND task_id IS NOT NULL',
        ],
        *("lacking", "{other}", "it has no tasks"),
    ),
    "no pages": (['DELETE FROM "Page"', RECOUNT], "lacking", "{job}, estimator 'dose'", "it has no pages"),
    "a table too much": (["CREATE TABLE extra (id INTEGER)"], "schema", "tables", None),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_one_damage_is_one_finding_that_nothing_mends(completed, database, name):
    statements, kind, where, what = DAMAGES[name]
    damage(database, *statements)
    (finding,) = integrity.check_store(database)
    with database.reading() as connection:
        row = connection.execute(text('SELECT id FROM "StateHistory" WHERE task_id = 77')).scalar()
        other = connection.execute(text('SELECT job_id FROM "Simulation" WHERE id = 2')).scalar()
    assert (finding.kind, finding.where) == (kind, where.format(job=completed.job_id, other=other, row=row))
    assert what is None or finding.what == what
    assert finding.repair is None
    before = contents(database)
    integrity.repair_findings(database, [finding])
    assert contents(database) == before


REPAIRS = {
    "bytes": (['UPDATE "Simulation" SET stored_bytes = stored_bytes + 1 WHERE id = 1'], "{job}"),
    "size": (['UPDATE "Page" SET content_size = 1 WHERE page_number = 0'], "{job}, page 0 of estimator 'dose'"),
    "digest": (["""UPDATE "Input" SET content_sha256 = 'x' WHERE simulation_id = 1"""], "{job}, Input 1"),
    "history": ([f'DELETE FROM "StateHistory" WHERE id = ({LAST} IS NULL)'], "{job}"),
    "open-task": (
        [
            f'DELETE FROM "StateHistory" WHERE id = ({LAST} = 0)',
            """UPDATE "Task" SET task_state = 'RUNNING', end_time = NULL, simulated_primaries = 499
               WHERE simulation_id = 1 AND task_id = 0""",
        ],
        "{job}, task 0",
    ),
}


@pytest.mark.parametrize("kind", REPAIRS)
def test_what_can_be_mended_is(completed, database, kind):
    statements, where = REPAIRS[kind]
    before = contents(database)
    damage(database, *statements)
    (finding,) = integrity.check_store(database)
    assert (finding.kind, finding.where) == (kind, where.format(job=completed.job_id))
    integrity.repair_findings(database, [finding])
    integrity.repair_findings(database, [finding])  # a second time changes nothing
    assert found(database) == []
    after = contents(database)
    if kind in ("bytes", "size", "digest"):
        assert after == before
    else:
        assert len(after["StateHistory"]) == len(before["StateHistory"])
        last = completed.get("/jobs/history").json["history"][-1]
        assert (last["actor"], last["to_state"]) == ("repair", "COMPLETED")
    if kind == "open-task":
        assert completed.task(0)["simulated_primaries"] == 499


def test_a_history_that_is_gone_is_begun_anew(completed, database):
    damage(database, 'DELETE FROM "StateHistory" WHERE simulation_id = 1')
    findings = integrity.check_store(database)
    assert [finding.kind for finding in findings] == ["history"] * 3
    integrity.repair_findings(database, findings)
    assert found(database) == []


def test_a_state_that_there_is_not(completed, database):
    if not database.is_sqlite:
        damage(database, 'ALTER TABLE "Simulation" DROP CONSTRAINT "ck_Simulation_job_state"')
    damage(database, """UPDATE "Simulation" SET job_state = 'LOST' WHERE id = 1""")
    findings = integrity.check_store(database)
    kinds = [finding.kind for finding in findings]
    assert kinds == [*["file"] * database.is_sqlite, "state", "history", "end"]
    assert all(finding.repair is None for finding in findings)


def test_numbers_that_would_be_given_again(completed, database):
    if database.is_sqlite:  # goes on from the largest number in use, whatever happens
        submit(completed.client)
        assert found(database) == []
        return
    damage(database, """SELECT setval('"Task_id_seq"', 2)""")
    (finding,) = integrity.check_store(database)
    assert (finding.kind, finding.where) == ("sequence", "Task")
    assert finding.what == "the next id would be 3, but 4 is in use"
    integrity.repair_findings(database, [finding])
    assert found(database) == []
    submit(completed.client)


def test_a_file_that_breaks_its_own_rules(completed, database):
    if not database.is_sqlite:  # its checks cannot be turned off
        with pytest.raises(IntegrityError):
            damage(database, 'UPDATE "Task" SET attempts = -1 WHERE id = 1')
        return
    damage(database, 'UPDATE "Task" SET attempts = -1 WHERE id = 1')
    assert found(database) == [("file", "database file", "CHECK constraint failed in Task")]


def test_what_others_have_written_is_taken_as_it_is(completed, database):
    damage(database, replaced("Input", b'{"a": NaN, "b": -Infinity}', gzip.compress), RECOUNT)
    assert found(database) == []


def test_every_payload_is_looked_at_and_counted(completed, database):
    seen = []
    integrity.check_store(database, lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(7)]  # 2 inputs, an estimator, 2 pages, log files


@pytest.fixture
def check(database, monkeypatch):
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string(hide_password=False))
    return lambda *words: CliRunner().invoke(cli.app, ["db", "check", *words])


def test_the_command_tells_by_its_exit_code(completed, database, check):
    done = check()
    assert (done.exit_code, done.stderr, done.stdout) == (0, "No findings\n", "")
    damage(database, *REPAIRS["bytes"][0], *DAMAGES["more primaries than asked for"][0])
    done = check()
    assert done.exit_code == 1
    assert done.stderr == "2 findings, 1 repairable with: yaptide db check --repair\n"
    assert f"{completed.job_id}, task 0" in done.stdout
    assert "  it is COMPLETED with 501 of 500 primaries" in done.stdout
    done = check("--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["findings"][1] == {
        "kind": "bytes",
        "where": completed.job_id,
        "what": json.loads(done.stdout)["findings"][1]["what"],
        "repairable": True,
        "acknowledged": False,
        "repaired": False,
    }
    done = check("--repair", "--json")
    assert done.exit_code == 1
    assert [(f["kind"], f["repaired"]) for f in json.loads(done.stdout)["findings"]] == [
        ("primaries", False),
        ("bytes", True),
    ]
    damage(database, 'UPDATE "Task" SET simulated_primaries = 500 WHERE simulation_id = 1', *REPAIRS["size"][0])
    done = check("--repair")
    assert (done.exit_code, done.stderr) == (0, "1 finding, 0 remaining\n")
    assert check("--repair", "--json").exit_code == 0

"""Databases of the existing backend are converted without loss; a failure changes nothing, each decision is listed."""

import base64
import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import given, settings, strategies as st
from typer.testing import CliRunner, Result

from tests.support import legacy
from tests.support.examples import EXAMPLES
from tests.support.legacy import NOW, PASSWORDS, PRIVATE_KEY, YEARS_AGO, Filler, Old, page
from tests.support.postgres import Postgres
from yaptide.admin import cli
from yaptide.application import create_app
from yaptide.domain.errors import Conflict, InvalidInput, NotConfigured, NotFound, StorageFull
from yaptide.domain.names import make_skeleton
from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_TRANSITIONS, EntityState
from yaptide.persistence import adoption as persistence, codec, schema
from yaptide.persistence.adoption import accounts, orphans, payloads, simulations, staging, work
from yaptide.persistence.engine import Database
from yaptide.services import adoption, integrity, secrets
from yaptide.services.adoption import Report
from yaptide.services.backend import Backend
from yaptide.services.secrets import Vault
from yaptide.services.spool import Folder
from yaptide.settings import Settings

KINDS = ("sqlite", "postgresql")
PAYLOADS = ("Input", "Estimator", "Page", "Logfiles")
KEY = secrets.new_key()
VAULT = Vault([KEY])


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an old database can be made."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'old.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        created = server.create_database()
        yield created
        server.drop_database(created)


@pytest.fixture
def old(url: str) -> Old:
    """An old database with everything that is to be found in one, orphans included where they can be."""
    return filled(url)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The same database as ours."""
    database = Database(url)
    yield database
    database.close()


def filled(url: str, revision: str | None = legacy.NEWEST) -> Old:
    old = Old(url, revision, foreign_keys=False)
    with old.filling() as filler:
        legacy.fill(filler)
        if old.is_sqlite:
            legacy.fill_orphans(filler)
    return old


def adopt(database: Database, vault: Vault = VAULT, *, dry_run: bool = False, **options: Any) -> Report:
    values = {"stale_after": timedelta(days=7), "progress": lambda *_: None, **options}
    return adoption.adopt_database(database, vault, dry_run=dry_run, **values)


def rows(database: Database, query: str, **values: Any) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(sa.text(query), values).all())


def client(database: Database, folder: Path, user: str, password: str) -> FlaskClient:
    """Somebody who signed in to the adopted database."""
    backend = Backend(database, Folder(folder / "spool"), b"a key for tests, 32 bytes or more", secret_keys=(KEY,))
    app = create_app(Settings(_env_file=None, data_dir=folder), backend)
    signed_in = app.test_client()
    answer = signed_in.post("/auth/login", json={"username": user, "password": password})
    assert answer.status_code == 202, answer.json
    return signed_in


def get(signed_in: FlaskClient, path: str, job_id: str, **headers: str) -> Any:
    answer = signed_in.get(path, query_string={"job_id": job_id}, headers=headers)
    assert answer.status_code == 200, answer.json
    body = gzip.decompress(answer.data) if answer.headers.get("Content-Encoding") == "gzip" else answer.data
    return orjson.loads(body)


def check_sound(database: Database) -> None:
    """The tables are just ours, and what is in them is what our own code would have written."""
    assert schema.schema_condition(database) is schema.Condition.CURRENT
    assert schema.schema_differences(database) == []
    wrong = rows(database, """SELECT id FROM "Simulation" WHERE end_time IS NULL OR update_key_hash IS NOT NULL""")
    assert wrong == []
    assert rows(database, 'SELECT id FROM "Task" WHERE end_time IS NULL') == []
    sums = {
        key: sum(size for simulation, size in rows(database, _SIZES) if simulation == key)
        for (key,) in rows(database, 'SELECT id FROM "Simulation"')
    }
    assert dict(map(tuple, rows(database, 'SELECT id, stored_bytes FROM "Simulation"'))) == sums
    check_history(database)


_SIZES = """
    SELECT simulation_id, length(compressed_data) FROM "Input"
    UNION ALL SELECT simulation_id, length(compressed_data) FROM "Logfiles"
    UNION ALL SELECT simulation_id, length(compressed_data) FROM "Estimator"
    UNION ALL SELECT simulation_id, length(p.compressed_data) FROM "Page" p JOIN "Estimator" e ON e.id = estimator_id
"""


def check_history(database: Database) -> None:
    """Every state has its history, which ends with it and goes the ways that states may go."""
    states = {(row[0], None): row[1] for row in rows(database, 'SELECT id, job_state FROM "Simulation"')}
    states |= {
        (row[0], row[1]): row[2] for row in rows(database, 'SELECT simulation_id, task_id, task_state FROM "Task"')
    }
    last: dict[Any, str | None] = {}
    query = 'SELECT simulation_id, task_id, from_state, to_state, actor FROM "StateHistory" ORDER BY id'
    for simulation, task, before, after, actor in rows(database, query):
        assert actor == "adopt"
        assert last.get((simulation, task)) == before
        transitions = SIMULATION_TRANSITIONS if task is None else TASK_TRANSITIONS
        assert before is None or after in transitions[EntityState(before)]
        last[simulation, task] = after
    assert last == states
    assert set(states.values()) <= FINAL_STATES


def check_kept(before: dict[str, list[Any]], columns: dict[str, list[str]], database: Database) -> None:
    """Every user, hash, name and payload of the old database is in ours, under its number."""
    old = {name: [dict(zip(columns[name], row, strict=True)) for row in before[name]] for name in columns}
    now = {name: {row.id: row for row in rows(database, f'SELECT * FROM "{name}"')} for name in columns}
    for name, kept in (
        ("User", ("auth_provider",)),
        ("YaptideUser", ("password_hash",)),
        ("KeycloakUser", ("cert",)),
        ("Simulation", ("job_id", "title", "sim_type")),
        ("CelerySimulation", ("merge_id",)),
        ("BatchSimulation", ("cluster_id", "job_dir", "array_id", "collect_id")),
        ("CeleryTask", ("celery_id",)),
    ):
        for row in old[name]:
            values = [row[column] for column in kept]
            if any(values) or row["id"] in now[name]:
                assert [getattr(now[name][row["id"]], column) for column in kept] == values
    for name in ("User", "Cluster", "Simulation", "Task"):
        assert now[name].keys() >= {row["id"] for row in old[name]}
    for name in PAYLOADS:
        for row in old[name]:
            if row["compressed_data"]:
                check_payload(name, row, now)


def check_payload(name: str, row: dict[str, Any], now: dict[str, dict[int, Any]]) -> None:
    """A payload is where it was, byte by byte, or its text is among the log files of its simulation."""
    data = bytes(row["compressed_data"])
    response = now[name].get(row["id"])
    if response is not None and bytes(response.compressed_data) == data:
        return
    assert name in ("Input", "Logfiles")
    of_simulation = [other for other in now[name].values() if other.simulation_id == row["simulation_id"]]
    same = [other for other in of_simulation if text_of(other.compressed_data) == text_of(data)]
    logs = [json.loads(text_of(log.compressed_data) or b"") for log in now["Logfiles"].values()]
    texts = {text for log in logs for text in log.values()}
    assert same or base64.b64encode(data).decode() in texts or text_of(data).decode() in texts


def text_of(data: bytes) -> bytes | None:
    """The text of a payload, or None if it is damaged."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError):
        return None


def columns_of(old: Old) -> dict[str, list[str]]:
    return {name: [column.name for column in table.c] for name, table in old.tables.tables.items()}


# Taking over


@pytest.mark.parametrize("revision", [None, *legacy.REVISIONS])
def test_every_revision_becomes_ours_with_all_that_is_in_it(revision, url, database, tmp_path):
    old = filled(url, revision)
    before = old.rows()
    report = adopt(database)
    assert report.adopted
    assert report.revision == revision
    check_sound(database)
    check_kept(before, columns_of(old), database)
    pages = rows(
        database,
        'SELECT page_name, page_dimension FROM "Page" p JOIN "Estimator" e ON e.id = estimator_id '
        "JOIN \"Simulation\" s ON s.id = simulation_id WHERE job_id = 'whole' ORDER BY p.id",
    )
    assert [tuple(row) for row in pages] == [("DOSE", 1), ("LET", 1), ("FLUENCE", 1)]
    assert {row[0] for row in rows(database, "SELECT file_name FROM \"Estimator\" WHERE name = 'dose'")} == {"dose_"}


def test_the_tables_are_those_of_a_new_database(old, url, database, request, tmp_path):
    adopt(database)
    fresh_url = f"sqlite:///{tmp_path / 'fresh.db'}"
    if not database.is_sqlite:
        fresh_url = request.getfixturevalue("postgres").create_database()
    fresh = Database(fresh_url)
    schema.upgrade_tables(fresh)
    with database.reading() as adopted, fresh.reading() as made:
        assert legacy.definitions(adopted) == legacy.definitions(made)
    fresh.close()


def test_everything_is_read_by_its_owner(old, database, tmp_path):
    adopt(database)
    alice = client(database, tmp_path, "alice", PASSWORDS["alice"])
    for accepts in ("gzip", "identity"):
        results = get(alice, "/results", "whole", **{"Accept-Encoding": accepts})
        assert [estimator["name"] for estimator in results["estimators"]] == ["dose", "fluence"]
        assert results["estimators"][0]["pages"] == [page(0), page(1, "LET")]
    assert get(alice, "/inputs", "whole")["input"]["input_json"] == {"t": "first"}
    assert get(alice, "/logfiles", "whole")["logfiles"] == {"run.log": "all is well"}

    bob = client(database, tmp_path, "bob", PASSWORDS["bob"])
    assert get(bob, "/inputs", "met")["input"]["input_json"] == {"t": "newest"}
    logs = get(bob, "/logfiles", "met")["logfiles"]
    older = [text for name, text in logs.items() if re.fullmatch(r"input-\d+\.json", name)]
    assert [json.loads(text)["input_json"]["t"] for text in older] == ["older", "older"]
    assert {"first.log", "second.log"} < logs.keys()
    loaded = get(bob, "/results", "met")["estimators"]
    assert [estimator["name"] for estimator in loaded] == ["dose", "dose (2)", "twice", "no pages"]
    values = [[entry["data"]["values"][0] for entry in estimator["pages"]] for estimator in loaded]
    assert values == [[0.1, 0.1], [0.2, 0.2], [0.1, 0.3, 0.3, 0.4], []]


def test_nobody_is_served_a_nan(old, database, tmp_path):
    report = adopt(database)
    alice = client(database, tmp_path, "alice", PASSWORDS["alice"])
    for accepts in ("gzip", "identity"):
        nan, nameless = get(alice, "/results", "odd-payloads", **{"Accept-Encoding": accepts})["estimators"]
        data = nan["pages"][0]["data"]
        assert (data["values"], data["missing"], data["unit"]) == ([0.0] * 3, [[0, 2]], "(no value)")
        assert data["name"] == 'NaN Infinity " NaN'
        assert [entry["data"]["values"] for entry in nan["pages"][1:]] == [[], []]
        assert nameless["pages"] == []
    logs = get(alice, "/logfiles", "odd-payloads")["logfiles"]
    assert '{"value.log": NaN}' in logs.values()
    assert base64.b64encode(b"no gzip").decode() in logs.values()
    items = [entry.why for entry in report.decisions if entry.where.startswith("Page") and "NaN" in entry.why]
    assert items == ["it has 3 NaN or infinite numbers"]


def test_a_payload_of_ours_among_adopted_ones_is_one_more(url, tmp_path):
    """Who has been here before, and went back, has both kinds: joined as they are, and written anew, in one answer."""
    ours, nan = page(1, "LET", value=0.1), page(2, "LET", value=float("nan"))
    old = Old(url, legacy.NEWEST, foreign_keys=False)
    with old.filling() as filler:
        alice = filler.user("alice", PASSWORDS["alice"])
        number = filler.simulation("mixed", alice)
        filler.input(number)
        filler.estimator(number, "dose", page(0), codec.encode_payload(ours).data, nan)
    database = Database(url)
    adopt(database)
    stored = [bytes(row[0]) for row in rows(database, 'SELECT compressed_data FROM "Page" ORDER BY page_number')]
    assert stored[1] == codec.encode_payload(ours).data
    alice = client(database, tmp_path, "alice", PASSWORDS["alice"])
    for accepts in ("gzip", "identity"):
        [dose] = get(alice, "/results", "mixed", **{"Accept-Encoding": accepts})["estimators"]
        assert dose["pages"][:2] == [page(0), ours]
        assert dose["pages"][2]["data"]["missing"] == [[0, len(nan["data"]["values"]) - 1]]
    database.close()


@pytest.mark.parametrize(("table", "parent"), [("Page", "estimator_id"), ("Task", "simulation_id")])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_number_that_is_a_text_gets_one_that_is_free(url, database, table, parent):
    """SQLite keeps texts in columns of numbers, and takes them for larger than any number."""
    old, column = filled(url), {"Page": "page_number", "Task": "task_id"}[table]
    query = f'SELECT {parent} FROM "{table}" WHERE {parent} NOT NULL GROUP BY 1 HAVING count(*) = 2 LIMIT 1'
    with old.engine.begin() as connection:
        number = connection.scalar(sa.text(query))
        ids = connection.scalars(sa.text(f'SELECT id FROM "{table}" WHERE {parent} = {number} ORDER BY id')).all()
        for row, value in zip(ids, ("'one'", "0"), strict=True):
            connection.execute(sa.text(f'UPDATE "{table}" SET {column} = {value} WHERE id = {row}'))
    report = adopt(database)
    query = f'SELECT {column} FROM "{table}" WHERE id IN ({ids[0]}, {ids[1]}) ORDER BY id'
    assert [row[0] for row in rows(database, query)] == [1, 0]
    assert [entry.what for entry in report.decisions if entry.where == f"{table} {ids[0]}"]
    check_sound(database)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("Page", "estimator_id"),
        ("Estimator", "simulation_id"),
        ("Task", "simulation_id"),
        ("Input", "simulation_id"),
        ("Logfiles", "simulation_id"),
        ("Simulation", "user_id"),
        ("BatchSimulation", "cluster_id"),
    ],
)
@pytest.mark.parametrize("value", ["'abc'", "1.5", "x'00'"])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_reference_that_is_no_number_stops_nothing(url, database, table, column, value):
    old = filled(url)
    with old.engine.begin() as connection:
        connection.execute(
            sa.text(f'UPDATE "{table}" SET {column} = {value} WHERE id = (SELECT max(id) FROM "{table}")')
        )
    before = old.rows()
    report = adopt(database)
    number = max(row[0] for row in before[table])
    assert any(entry.where == f"{table} {number}" for entry in report.decisions)
    check_sound(database)
    check_kept({**before, "BatchSimulation": []}, columns_of(old), database)


def test_a_disk_without_room_is_refused_before_the_work(old, database, monkeypatch):
    if not database.is_sqlite:
        assert adoption.measure_room(database).free is None
        return
    needed = adoption.measure_room(database).needed
    assert needed == Path(database.engine.url.database).stat().st_size
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    before = old.rows()
    with pytest.raises(StorageFull, match="MB of free disk space, but only 0 MB are free"):
        adopt(database)
    assert old.rows() == before


def test_a_long_page_is_converted_without_holding_its_numbers(url, database):
    """Its columns are read from what remains of its text without its lists of numbers."""
    values = [0.1, float("nan"), -1e-300] * 900_000
    whole = legacy.page(0) | {"data": {"name": "DOSE", "unit": "", "values": values}}
    stored = gzip.compress(json.dumps(whole).encode(), 1)
    old = Old(url, legacy.REVISIONS[0])
    with old.filling() as filler:
        number = filler.simulation("whole", filler.user("alice", "secret", "pbkdf2:sha256:1"))
        filler.task(number)
        filler.estimator(number, "dose", stored, stored[:-9])
    report = adopt(database)
    (kept, damaged) = rows(database, 'SELECT * FROM "Page" ORDER BY page_number')
    assert bytes(kept.compressed_data) == stored
    assert (kept.page_name, kept.page_dimension) == ("DOSE", 1)
    text = gzip.decompress(stored)
    assert (kept.content_size, kept.content_sha256) == (len(text), hashlib.sha256(text).hexdigest())
    assert bytes(damaged.compressed_data) == stored[:-9]
    whys = {entry.where: entry.why for entry in report.decisions if entry.where.startswith("Page ")}
    assert whys["Page 1"] == "it has 900000 NaN or infinite numbers"
    assert "truncated" in whys["Page 2"]


def test_payloads_in_pieces_become_the_same(url, database, monkeypatch):
    """Whatever is in memory as a whole otherwise: damaged ones, empty ones, those that become log files."""
    old = filled(url)
    before = old.rows()
    whole = adopt(database, dry_run=True)
    monkeypatch.setattr("yaptide.persistence.adoption.stored._PIECE", 33)
    monkeypatch.setattr(codec, "LARGE", 64)
    report = adopt(database)
    check_sound(database)
    check_kept(before, columns_of(old), database)
    assert (report.decisions, report.rows) == (whole.decisions, whole.rows)
    for name in PAYLOADS:
        for row in rows(database, f'SELECT compressed_data, content_size, content_sha256 FROM "{name}"'):
            data = bytes(row.compressed_data)
            content = text_of(data) or data
            assert (row.content_size, row.content_sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("user", PASSWORDS)
def test_old_passwords_sign_in_and_are_hashed_anew(user, old, database, tmp_path):
    adopt(database)
    query = 'SELECT password_hash FROM "YaptideUser" y JOIN "User" u ON u.id = y.id WHERE username = :user'
    assert not rows(database, query, user=user)[0][0].startswith("$argon2")
    client(database, tmp_path, user, PASSWORDS[user])
    assert rows(database, query, user=user)[0][0].startswith("$argon2id$")
    client(database, tmp_path, user, PASSWORDS[user])


def test_users_who_cannot_sign_in_are_named(url, database):
    old = Old(url)
    with old.filling() as filler:
        for name, password in (("alice", "secret"), ("empty", ""), (" alice", "secret"), ("al ice", "secret")):
            filler.user(name, password, "pbkdf2:sha256:1")
        for name, stored in (("none", ""), ("other", "md5$salt$00"), ("hard", "scrypt:99999999:8:1$salt$00")):
            number = filler.add("User", username=name, auth_provider="YaptideUser")
            filler.add("YaptideUser", id=number, password_hash=stored)
    report = adopt(database)
    obstacles = {entry.whose: entry.why for entry in report.decisions if "cannot sign in until" in entry.what}
    unsupported = "its password hash is of a kind that is not supported"
    assert obstacles == {
        "empty": "its password is empty",
        "none": "it had no password hash",
        "other": unsupported,
        "hard": unsupported,
    }
    (longer,) = [entry.why for entry in report.decisions if entry.where == "YaptideUser"]
    assert longer == "a password of more than 1024 characters cannot be recognised by its hash"
    blanks = {entry.whose: entry.why for entry in report.decisions if "blanks" in entry.why}
    assert blanks == {
        "' alice'": "the name ' alice' differs from that of user 'alice' only in blanks",
        "'al ice'": "the name 'al ice' differs from that of user 'alice' only in blanks",
    }


def test_blanks_of_names_are_visible_in_lists(url, database, command):
    old = Old(url)
    with old.filling() as filler:
        for name in ("alice", "alice "):
            filler.simulation(f"of {name}.", filler.user(name, "secret", "pbkdf2:sha256:1"))
    assert "'alice '" in command("db", "adopt").stdout
    for words in (("users", "list"), ("simulations", "list")):
        assert "'alice '" in command(*words).stdout


def test_what_was_kept_on_purpose_is_known_to_later_checks(old, database, command):
    adopt(database)
    done = command("db", "check", "--json")
    checked = json.loads(done.stdout)
    assert {finding["kind"] for finding in checked["findings"]} == {"lacking", "primaries", "payload"}
    assert all(finding["acknowledged"] for finding in checked["findings"])
    assert (done.exit_code, checked["left"]) == (0, 0)
    assert command("db", "check").stderr == f"No findings, and {len(checked['findings'])} known since db adopt\n"
    query = """SELECT p.id FROM "Page" p JOIN "Estimator" e ON e.id = estimator_id
        JOIN "Simulation" s ON s.id = simulation_id WHERE job_id = 'damaged'"""
    with database.writing() as connection:
        page = sa.Table("Page", sa.MetaData(), autoload_with=connection)
        damaged = page.c.id == connection.execute(sa.text(query)).scalar_one()
        data = connection.execute(sa.select(page.c.compressed_data).where(damaged)).scalar_one()
        connection.execute(sa.update(page).where(damaged).values(compressed_data=data[:-1] + b"?"))
    done = command("db", "check", "--json")
    assert (done.exit_code, json.loads(done.stdout)["left"]) == (1, 1)


def test_pages_older_than_their_columns_get_the_values_of_their_payloads(url, database):
    """The columns were added with defaults, which rows from before still have."""
    old = Old(url)
    with old.filling() as filler:
        number = filler.simulation("whole", filler.user("alice", "secret", "pbkdf2:sha256:1"))
        filler.task(number)
        metadata = legacy.packed({"name": "dose_"})
        estimator = filler.add("Estimator", simulation_id=number, name="dose", compressed_data=metadata)
        filler.add("Page", estimator_id=estimator, page_number=0, compressed_data=legacy.packed(page(0)))
    adopt(database)
    assert [tuple(row) for row in rows(database, 'SELECT page_name, page_dimension FROM "Page"')] == [("DOSE", 1)]
    assert [tuple(row) for row in rows(database, 'SELECT file_name FROM "Estimator"')] == [("dose_",)]
    assert integrity.check_store(database) == []


def test_names_of_old_users_keep_others_from_what_looks_alike(old, database):
    adopt(database)
    query = 'SELECT username, name_skeleton FROM "YaptideUser" y JOIN "User" u ON u.id = y.id WHERE auth_provider = '
    result = rows(database, query + "'YaptideUser'")
    assert {make_skeleton(name) for name, _ in result} == {stored for _, stored in result if stored}


def test_private_keys_are_encrypted_and_gone_in_clear(old, url, database, tmp_path):
    report = adopt(database)
    stored = [row[0] for row in rows(database, 'SELECT private_key FROM "KeycloakUser" WHERE private_key IS NOT NULL')]
    assert {VAULT.decrypt(token) for token in stored} == {PRIVATE_KEY}
    assert not any("PRIVATE KEY" in entry.what + entry.why for entry in report.decisions)
    if database.is_sqlite:
        database.close()
        assert b"bm90aGluZyBzZWNyZXQ=" not in b"".join(file.read_bytes() for file in tmp_path.glob("old.db*"))


def test_states_are_decided_by_what_is_there(old, database):
    report = adopt(database)
    states = dict(map(tuple, rows(database, 'SELECT job_id, job_state FROM "Simulation"')))
    failed = ("years", "queued", "merging", "hour", "no-state", "failed")
    assert {states[job_id] for job_id in failed} == {"FAILED"}
    assert {states[job_id] for job_id in ("no-state-results", "lower", "whole")} == {"COMPLETED"}
    assert states["canceled"] == "CANCELED"
    reasons = {
        entry.whose: entry.why
        for entry in report.decisions
        if entry.where.startswith("Simulation") and entry.what in FINAL_STATES
    }
    assert "without a heartbeat since" in reasons["years"]
    assert reasons["hour"] == "it was RUNNING; its workers cannot report to the adopted database"
    assert reasons["no-state"] == "its state was 'SUBMITTED', and it has no results"
    assert reasons["no-state-results"] == "its state was 'CANCELLED', and it has results"
    assert not reasons.keys() & {"failed", "canceled", "lower", "whole"}
    query = 'SELECT to_state, reason FROM "StateHistory" h JOIN "Simulation" s ON s.id = simulation_id '
    query += "WHERE job_id = 'years' AND task_id IS NULL ORDER BY h.id"
    assert [row[0] for row in rows(database, query)] == ["RUNNING", "FAILED"]
    assert rows(database, query)[1][1] == reasons["years"]


def test_how_long_silence_is_stale_can_be_chosen(old, database):
    report = adopt(database, stale_after=timedelta(minutes=1), dry_run=True)
    (why,) = [
        entry.why for entry in report.decisions if entry.whose == "hour" and entry.where.startswith("Simulation")
    ][:1]
    assert "without a heartbeat" in why


def test_tasks_end_with_their_simulation_and_numbers_are_possible(old, database):
    adopt(database)
    query = 'SELECT t.* FROM "Task" t JOIN "Simulation" s ON s.id = simulation_id WHERE job_id = :job_id ORDER BY t.id'
    whole = rows(database, query, job_id="whole")
    assert [(task.task_state, task.simulated_primaries) for task in whole] == [("COMPLETED", 500), ("COMPLETED", 400)]
    odd = rows(database, query, job_id="odd-numbers")
    assert [task.simulated_primaries for task in odd] == [0, 900, 500, 500]
    assert [task.task_id for task in odd] == [0, 1, 2, 3]
    assert odd[2].end_time == odd[2].start_time
    assert odd[2].estimated_time is None
    assert {task.platform for task in odd} == {"DIRECT"}


def test_times_stay(old, database):
    adopt(database)
    with database.reading() as connection:
        table = sa.Table("Simulation", sa.MetaData(), autoload_with=connection)
        query = sa.select(table.c.start_time, table.c.end_time).where(table.c.job_id == "whole")
        start, end = (
            moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in connection.execute(query).one()
        )
    assert (start, end) == (YEARS_AGO, YEARS_AGO + timedelta(hours=1))


def test_clusters_of_one_name_stay_apart(old, database):
    adopt(database)
    query = 'SELECT job_id, cluster_name FROM "BatchSimulation" b JOIN "Simulation" s ON s.id = b.id '
    query += "JOIN \"Cluster\" c ON c.id = cluster_id WHERE job_id LIKE 'batch%' ORDER BY job_id"
    names = [tuple(row) for row in rows(database, query)]
    assert names == [("batch-0", "ares"), ("batch-1", "ares (2)"), ("batch-2", "helios")]


def test_what_nobody_owns_is_given_to_nobody(old, database):
    adopt(database)
    query = 'SELECT username, password_hash FROM "Simulation" s JOIN "User" u ON u.id = user_id '
    query += "JOIN \"YaptideUser\" y ON y.id = u.id WHERE job_id = 'nobodys'"
    assert [tuple(row) for row in rows(database, query)] == [("unowned", None)]


def test_a_user_who_is_called_unowned_gets_nothing(url, database):
    old = Old(url)
    with old.filling() as filler:
        filler.user("unowned", "secret")
        filler.simulation("nobodys", None)
    adopt(database)
    query = 'SELECT username FROM "Simulation" s JOIN "User" u ON u.id = user_id WHERE job_id = \'nobodys\''
    assert [tuple(row) for row in rows(database, query)] == [("unowned (2)",)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_orphans_are_kept_where_they_hold_anything(old, database):
    report = adopt(database)
    query = 'SELECT job_id, username FROM "Simulation" s JOIN "User" u ON u.id = user_id WHERE s.id BETWEEN 911 AND 945'
    kept = {f"left-over-of-simulation-{number}" for number in (912, 913, 941, 942, 944, 945)}
    assert {tuple(row) for row in rows(database, query)} == {(job_id, "unowned") for job_id in kept}
    dropped = {entry.where for entry in report.decisions if entry.what == "dropped" and "is missing" in entry.why}
    assert {"KeycloakUser 903", "CelerySimulation 911", "BatchTask 931"} < dropped
    assert len(dropped) == 4


def test_numbers_go_on_after_the_old_ones(url, database):
    old = Old(url)
    with old.filling() as filler:
        filler.simulation("first", filler.user("alice", "secret"))
        last = filler.simulation("second", 1)
    if not old.is_sqlite:
        with old.engine.begin() as connection:  # SQLite's old tables do not remember what was deleted
            connection.exec_driver_sql('DELETE FROM "Simulation" WHERE id = 2')
    adopt(database)
    new = {"job_id": "new", "start_time": NOW, "title": "", "platform": "DIRECT", "input_type": "FILES", "sim_type": ""}
    with database.writing() as connection:
        table = sa.Table("Simulation", sa.MetaData(), autoload_with=connection)
        insert = sa.insert(table).values(user_id=1, job_state="PENDING", **new).returning(table.c.id)
        assert connection.execute(insert).scalar_one() == last + 1


# Nothing to do, nothing to be done, nothing done


def test_a_second_run_changes_nothing(old, database):
    adopt(database)
    before = old.rows()
    report = adopt(database)
    assert not report.adopted
    assert report.decisions == []
    assert old.rows() == before


def test_a_database_of_ours_is_left_alone(url, database):
    schema.upgrade_tables(database)
    assert not adopt(database).adopted


def test_a_dry_run_changes_nothing_and_tells_the_same(old, database):
    before = old.rows()
    tried = adopt(database, dry_run=True)
    assert old.rows() == before
    done = adopt(database)
    assert tried.decisions == done.decisions
    assert tried.rows == done.rows


class Broken(Exception):
    """What a test makes go wrong."""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (orphans, "settle_orphans"),
        (accounts, "copy_accounts"),
        (simulations, "copy_simulations"),
        (payloads, "copy_payloads"),
        (staging, "set_sequences"),
        (staging, "drop_staged"),
        (staging, "bring_up_to_date"),
    ],
)
def test_a_failure_after_any_step_changes_nothing(module, name, old, database, monkeypatch):
    step = getattr(module, name)

    def fail(*arguments):
        step(*arguments)
        raise Broken

    monkeypatch.setattr(module, name, fail)
    before = old.rows()
    with pytest.raises(Broken):
        adopt(database)
    assert old.rows() == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_failure_at_any_row_changes_nothing(share, old, database, monkeypatch):
    adding = work.Work.add
    added = []
    monkeypatch.setattr(work.Work, "add", lambda *arguments: (added.append(1), adding(*arguments))[1])
    adopt(database, dry_run=True)
    left = iter(range(int(len(added) * share)))

    def fail(*arguments):
        if next(left, None) is None:
            raise Broken
        adding(*arguments)

    monkeypatch.setattr(work.Work, "add", fail)
    before = old.rows()
    with pytest.raises(Broken):
        adopt(database)
    assert old.rows() == before


#: Adopts a database, and is killed before the statement of a number, or before the commit.
KILLED = """
import os, signal, sys
from datetime import timedelta
from sqlalchemy import event
from yaptide.persistence.engine import Database
from yaptide.services import adoption
from yaptide.services.secrets import Vault

def die(*_):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)

database, left = Database(sys.argv[1]), iter(range(int(sys.argv[2])))
event.listen(database.engine, sys.argv[3], die)
options = {"stale_after": timedelta(days=7), "progress": lambda *_: None}
adoption.adopt_database(database, Vault([os.environ["KEY"]]), dry_run=False, **options)
"""
#: How often it is killed on each database: more in `make stress`.
KILLS = int(os.environ.get("KILLS", "2"))


def test_a_process_that_is_killed_at_any_moment_changes_nothing(url, database, tmp_path):
    old = filled(url)
    with old.filling() as filler:  # more than what SQLite holds in memory
        number = filler.simulation("large", 1)
        filler.estimator(number, "dose", *(random.Random(number).randbytes(2**20) for _ in range(4)))
    before, executed = old.rows(), []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *_: executed.append(1))
    adopt(database, dry_run=True)
    database.close()
    moments = [(len(executed) * kill // KILLS, "before_cursor_execute") for kill in range(1, KILLS)]
    for statement, name in [*moments, (0, "commit")]:
        words = [sys.executable, "-c", KILLED, url, str(statement), name]
        done = subprocess.run(words, env={**os.environ, "KEY": KEY}, check=False)
        assert done.returncode == -signal.SIGKILL
        assert old.rows() == before
    adopt(database)
    check_sound(database)
    check_kept(before, columns_of(old), database)
    for user, password in PASSWORDS.items():
        client(database, tmp_path, user, password)


def test_private_keys_need_a_key_to_encrypt_them(old, database):
    before = old.rows()
    with pytest.raises(NotConfigured, match="yaptide secrets new-key"):
        adopt(database, Vault([]))
    assert old.rows() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("CREATE TABLE other (id INTEGER)", "it has additional tables: other"),
        ('DROP TABLE "Logfiles"', "has no table Logfiles"),
        ('ALTER TABLE "Simulation" ADD COLUMN colour VARCHAR', "additional columns that would be lost: colour"),
        ('ALTER TABLE "Task" RENAME COLUMN task_state TO state', "has no task_state"),
        ("UPDATE alembic_version SET version_num = 'abcdef012345'", "abcdef012345 is not known"),
        ("UPDATE alembic_version SET version_num = '0001'", "0001 is not known"),
        ("INSERT INTO alembic_version VALUES ('06c32cf470e7')", "is not known"),
    ],
)
def test_what_is_not_known_is_refused(change, message, url, database):
    old = Old(url)
    with old.engine.begin() as connection:
        connection.exec_driver_sql(change)
    before = old.rows()
    with pytest.raises(Conflict, match=message):
        adopt(database)
    assert old.rows() == before


def test_an_empty_database_is_refused(url, database):
    with pytest.raises(Conflict, match="yaptide db upgrade"):
        adopt(database)


# Whatever is in there


class Dice(Filler):
    """Puts anything in that an old database may hold."""

    def __init__(self, filler: Filler, seed: int, *, orphans: bool) -> None:
        super().__init__(filler.connection, filler.tables)
        self.random = random.Random(seed)
        self.orphans = orphans

    def roll(self) -> None:
        """Fill the database."""
        users = [
            self.user(f"user {number}", "secret", "pbkdf2:sha256:1") for number in range(self.random.randint(0, 2))
        ]
        clusters = [self.add("Cluster", cluster_name=self.any("", "ares")) for _ in range(self.random.randint(1, 3))]
        items = []
        for number in range(self.random.randint(0, 5)):
            owner = self.any(None, *users, *([77] if self.orphans else []))
            platform, start = self.any("DIRECT", "BATCH", "batch", "?"), self.time()
            state = self.any(*EntityState, "", "OK", "completed")
            words = {
                "input_type": self.any("EDITOR", "FILES", "x"),
                "platform": platform,
                "sim_type": self.any("", "fluka"),
            }
            items.append(
                self.simulation(f"job {number}", owner, state, start_time=start, end_time=self.time(), **words)
            )
            if self.random.random() < 0.3:
                self.add("BatchSimulation", id=items[-1], cluster_id=self.any(*clusters), job_dir=self.any(None, "d"))
        items += [1000, 1001] if self.orphans else []
        for number in range(self.random.randint(0, 8)):
            values = {
                "simulated_primaries": self.any(-1, 0, 500, 2**31 - 1),
                "platform": self.any("DIRECT", "BATCH", ""),
            }
            values |= {"start_time": self.time(), "end_time": self.time(), "last_update_time": self.time()}
            values |= {"estimated_time": self.any(None, -3, 9)}
            if items:
                self.task(self.any(None, *items), number - 2, self.any(*EntityState, "", "OK"), **values)
        estimators = [self._estimator(self.any(*items)) for _ in range(self.random.randint(0, 5)) if items]
        estimators += [2000] if self.orphans else []
        for _ in range(self.random.randint(0, 8)):
            for name in ("Input", "Logfiles"):
                if items:
                    self.add(name, simulation_id=self.any(*items), compressed_data=self.payload())
            if estimators:
                values = {"page_name": self.any("", "DOSE"), "page_dimension": self.any(-1, 0, 2)}
                number = self.any(-1, 0, 0, 1, 5)
                self.add(
                    "Page",
                    estimator_id=self.any(*estimators),
                    page_number=number,
                    compressed_data=self.payload(),
                    **values,
                )

    def _estimator(self, simulation_id: int) -> int:
        names = {"name": self.any("", "dose", "dose (2)"), "file_name": self.any("", "dose_")}
        return self.add("Estimator", simulation_id=simulation_id, compressed_data=self.payload(), **names)

    def any(self, *choices: Any) -> Any:
        """One of the choices."""
        return self.random.choice(choices)

    def time(self) -> datetime | None:
        """A time, or none."""
        return self.any(
            None, YEARS_AGO, YEARS_AGO - timedelta(days=9), NOW - timedelta(minutes=1), NOW + timedelta(days=1)
        )

    def payload(self) -> bytes | None:
        """A payload, or what stands in its place."""
        value = self.any({}, {"a.log": "ä"}, [float("inf")], None, page(0), {"values": [float("nan")]})
        packed = legacy.packed(value)
        return self.any(
            None, b"", packed, packed, packed, packed[:-3], b"no gzip", gzip.compress(b"{"), gzip.compress(b"\xff")
        )


@given(st.integers(0, 2**32), st.sampled_from([None, *legacy.REVISIONS]), st.booleans())
@settings(max_examples=10 * EXAMPLES)
def test_whatever_is_in_an_sqlite_file_is_kept(seed, revision, orphans):
    with tempfile.TemporaryDirectory() as folder:
        check_whatever(f"sqlite:///{folder}/old.db", seed, revision, orphans=orphans)


@given(st.integers(0, 2**32), st.sampled_from([None, *legacy.REVISIONS]))
@settings(max_examples=4 * EXAMPLES)
def test_whatever_is_on_a_server_is_kept(postgres, seed, revision):
    url = postgres.create_database()
    check_whatever(url, seed, revision, orphans=False)
    postgres.drop_database(url)


def check_whatever(url: str, seed: int, revision: str | None, *, orphans: bool) -> None:
    old = Old(url, revision, foreign_keys=not orphans)
    with old.filling() as filler:
        Dice(filler, seed, orphans=orphans).roll()
    before = old.rows()
    database = Database(url)
    adopt(database)
    check_sound(database)
    check_kept(before, columns_of(old), database)
    assert not adopt(database).adopted
    database.close()


def test_memory_does_not_grow_with_the_number_of_payloads(tmp_path):
    few, many = (peak_of_adopting(f"sqlite:///{tmp_path}/{pages}.db", pages) for pages in (4, 40))
    assert many < 1.2 * few


def peak_of_adopting(url: str, pages: int) -> int:
    """Bytes in use at most while so many pages of 0.5 MiB are taken over."""
    old, noise = Old(url), random.Random(1)
    with old.filling() as filler:
        number = filler.simulation("large", filler.user("alice", "secret", "pbkdf2:sha256:1"))
        filler.estimator(number, "dose", *(legacy.packed(noise.randbytes(2**19).hex()) for _ in range(pages)))
    database = Database(url)
    adopt(database, dry_run=True)  # loads what is loaded once
    tracemalloc.start()
    adopt(database)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    database.close()
    return peak


# Secrets


def test_secrets_are_encrypted_anew_with_the_first_key_once(old, database):
    keys = [secrets.new_key() for _ in range(2)]
    adopt(database, Vault(keys[1:]))
    assert secrets.rotate_secrets(database, Vault(keys)) == (2 if old.is_sqlite else 1,) * 2
    assert secrets.rotate_secrets(database, Vault(keys))[0] == 0
    token = rows(database, 'SELECT private_key FROM "KeycloakUser" WHERE private_key IS NOT NULL')[0][0]
    assert Vault(keys[:1]).decrypt(token) == PRIVATE_KEY
    with pytest.raises(Conflict, match="No key in YAPTIDE_SECRET_KEYS"):
        secrets.rotate_secrets(database, Vault(keys[1:]))


def test_a_key_that_is_none_is_not_told():
    with pytest.raises(InvalidInput, match="YAPTIDE_SECRET_KEYS") as caught:
        Vault(["not-a-key"])
    assert "not-a-key" not in str(caught.value)


def test_our_revisions_are_not_those_of_the_other_backend():
    assert persistence.REVISIONS == legacy.REVISIONS
    assert not set(persistence.REVISIONS) & set(schema.known_revisions())


# Commands


@pytest.fixture
def command(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line on the database."""
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", url)
    monkeypatch.setenv("YAPTIDE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("YAPTIDE_SECRET_KEYS", secrets.new_key())
    return lambda *arguments: CliRunner().invoke(cli.app, arguments)


def test_the_report_is_printed_as_json(old, command):
    tried = json.loads(command("db", "adopt", "--dry-run", "--json").stdout)
    done = json.loads(command("db", "adopt", "--json").stdout)
    assert (tried["dry_run"], tried["adopted"], tried["revision"]) == (True, True, legacy.NEWEST)
    assert done == tried | {"dry_run": False}
    assert done["rows"]["Simulation"] >= 20
    assert done["decisions"][0].keys() == {"where", "whose", "what", "why"}
    again = json.loads(command("db", "adopt", "--json").stdout)
    assert again == {"dry_run": False, "adopted": False, "revision": schema.HEAD, "rows": {}, "decisions": []}


def test_the_report_is_printed_as_a_table(old, command):
    assert "became the log file" in command("db", "adopt").stdout
    again = command("db", "adopt")
    assert again.exit_code == 0
    assert again.stdout == ""


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_file_that_is_not_there_is_not_made(url, command, tmp_path):
    done = command("db", "adopt")
    assert isinstance(done.exception, NotFound)
    assert not (tmp_path / "old.db").exists()


def test_keys_are_made_and_changed(old, command, monkeypatch):
    command("db", "adopt")
    new = command("secrets", "new-key").stdout.strip()
    monkeypatch.setenv("YAPTIDE_SECRET_KEYS", f"{new},{os.environ['YAPTIDE_SECRET_KEYS']}")
    assert command("secrets", "rotate").exit_code == 0
    monkeypatch.setenv("YAPTIDE_SECRET_KEYS", new)
    assert command("secrets", "rotate").exit_code == 0

"""The tables: made by migrating, the same as the models, and guarded by the database itself."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import CheckConstraint, delete, event, func, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from tests.support.api import contents, counts
from yaptide.admin import cli
from yaptide.application import create_app
from yaptide.domain.errors import Conflict
from yaptide.domain.names import make_skeleton
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.persistence.models import Base
from yaptide.persistence.queries import tokens, users as queries
from yaptide.persistence.schema import Condition
from yaptide.services.backend import Backend
from yaptide.settings import Settings

on_disk = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
TABLES = Base.metadata.tables
NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
PAYLOAD = {"compressed_data": b"\x1f\x8b", "content_size": 2, "content_sha256": "0" * 64}


def add(database: Database, table: str, **values: Any) -> int:
    """Insert a row as any client could, and return its number."""
    with database.writing() as connection:
        return connection.execute(insert(TABLES[table]).returning(TABLES[table].c.id), values).scalar_one()


@pytest.fixture
def simulation(database):
    """The number of a simulation with one row of everything that can hang under it."""
    user = add(database, "User", username="alice", auth_provider="YaptideUser")
    add(database, "YaptideUser", id=user, password_hash="x")
    add(database, "Session", id="s", user_id=user, expires=NOW)
    held = {"token_sha256": "0" * 64, "scope": "read", "created": NOW, "expires": NOW}
    add(database, "Token", user_id=user, name="laptop", **held)
    number = add_simulation(database, user)
    submitted = {"content_sha256": "", "simulation_id": number, "job_id": "job", "sim_type": "mcsquare", "time": NOW}
    add(database, "SubmissionKey", user_id=user, key="key", **submitted)
    add(database, "CelerySimulation", id=number)
    add(database, "Input", simulation_id=number, **PAYLOAD)
    task = add_task(database, number)
    add(database, "CeleryTask", id=task)
    estimator = add(database, "Estimator", simulation_id=number, name="dose", file_name="dose_", **PAYLOAD)
    add_page(database, estimator)
    add(database, "Logfiles", simulation_id=number, **PAYLOAD)
    add(database, "StateHistory", simulation_id=number, to_state="PENDING", time=NOW, actor="alice")
    return number


def add_simulation(database: Database, user: int, **changes: Any) -> int:
    values = {"job_id": "job", "user_id": user, "start_time": NOW, "title": "", "platform": "DIRECT"}
    values |= {"input_type": "FILES", "sim_type": "mcsquare", "job_state": "PENDING"}
    return add(database, "Simulation", **values | changes)


def add_task(database: Database, simulation: int, **changes: Any) -> int:
    values = {"simulation_id": simulation, "task_id": 0, "requested_primaries": 10, "platform": "DIRECT"}
    return add(database, "Task", **values | {"task_state": "PENDING"} | changes)


def add_page(database: Database, estimator: int, **changes: Any) -> int:
    values = {"estimator_id": estimator, "page_number": 0, "page_name": "DOSE", "page_dimension": 1, **PAYLOAD}
    return add(database, "Page", **values | changes)


def checks_of_models() -> set[tuple[str, str]]:
    return {
        (table.name, str(constraint.name))
        for table in TABLES.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }


def checks_of_tables(database: Database) -> set[tuple[str, str]]:
    inspector = inspect(database.engine)
    return {(table, str(check["name"])) for table in TABLES for check in inspector.get_check_constraints(table)}


@on_disk
def test_migrated_tables_are_those_of_the_models(database):
    assert schema.schema_differences(database) == []
    assert checks_of_tables(database) == checks_of_models()


@on_disk
def test_the_tables_are_called_as_agreed(database):
    agreed = {
        *("User", "YaptideUser", "KeycloakUser", "Session", "Cluster"),
        *("Simulation", "CelerySimulation", "BatchSimulation", "StateHistory"),
        *("Task", "CeleryTask", "BatchTask", "Input", "Estimator", "Page", "Logfiles"),
        *("Runner", "RunnerSimulator", "SubmissionKey", "Token", "BatchArray"),
    }
    assert set(inspect(database.engine).get_table_names()) == agreed | {"alembic_version"}
    assert set(TABLES) == agreed


def test_a_payload_is_the_last_column_of_its_table(database):
    """SQLite would put it together in memory, if it had to know where the next one begins."""
    payloads = {name: list(table.c.keys()) for name, table in TABLES.items() if "compressed_data" in table.c}
    assert {columns[-1] for columns in payloads.values()} == {"compressed_data"}
    if database.is_sqlite:
        columns = [column["name"] for column in inspect(database.engine).get_columns("Page")]
        assert columns == payloads["Page"]


def test_the_code_works_on_the_newest_revision():
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [schema.HEAD]
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert schema.known_revisions() == revisions[::-1]


@on_disk
def test_upgrading_again_changes_nothing(database, simulation):
    before = contents(database)
    schema.upgrade_tables(database)
    assert contents(database) == before
    assert schema.schema_condition(database) is Condition.CURRENT
    schema.require_current(database)


def test_down_and_up_again(empty):
    assert schema.schema_condition(empty) is Condition.EMPTY
    schema.upgrade_tables(empty)
    assert schema.schema_condition(empty) is Condition.CURRENT
    schema.downgrade_tables(empty, "base")
    assert inspect(empty.engine).get_table_names() == ["alembic_version"]
    assert schema.schema_condition(empty) is Condition.EMPTY
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []


def test_an_empty_database_is_not_used_as_it_is(empty):
    with pytest.raises(Conflict, match="yaptide db upgrade"):
        schema.require_current(empty)


@pytest.mark.parametrize("empty", ["sqlite"], indirect=True)
def test_the_application_makes_the_tables_of_a_file_that_is_its_own(empty, tmp_path):
    serve(empty, tmp_path)
    assert schema.schema_condition(empty) is Condition.CURRENT


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)
def test_the_application_leaves_a_server_to_its_administrator(empty, tmp_path):
    client = serve(empty, tmp_path).test_client()
    response = client.get("/auth/status")
    assert response.status_code == 503
    assert "yaptide db upgrade" in response.json["message"]
    assert schema.schema_condition(empty) is Condition.EMPTY
    schema.upgrade_tables(empty)
    assert client.get("/auth/status").status_code == 401


def serve(database: Database, folder: Path) -> Flask:
    """The application as it starts on a database."""
    return create_app(Settings(_env_file=None, data_dir=folder), Backend(database, folder, b"k" * 32))


def refused_with_nothing_changed(database: Database) -> None:
    def rows() -> dict[str, list[Any]]:
        with database.reading() as connection:
            names = inspect(connection).get_table_names()
            return {name: list(connection.execute(text(f'SELECT * FROM "{name}"'))) for name in names}

    before = rows()
    for operation in (schema.upgrade_tables, schema.require_current):
        with pytest.raises(Conflict, match="Nothing was changed"):
            operation(database)
    assert rows() == before


def test_somebody_elses_database_is_refused(empty):
    with empty.writing() as connection:
        connection.execute(text("CREATE TABLE customers (name TEXT)"))
        connection.execute(text("INSERT INTO customers VALUES ('Bragg')"))
    refused_with_nothing_changed(empty)


def test_tables_of_a_newer_version_are_refused(empty):
    schema.upgrade_tables(empty)
    with empty.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    refused_with_nothing_changed(empty)


def test_a_migration_that_fails_leaves_nothing(empty):
    def fail_at_pages(_connection, _cursor, statement, *_rest):
        if 'CREATE TABLE "Page"' in statement:
            raise RuntimeError("power cut")

    event.listen(empty.engine, "before_cursor_execute", fail_at_pages)
    with pytest.raises(RuntimeError, match="power cut"):
        schema.upgrade_tables(empty)
    event.remove(empty.engine, "before_cursor_execute", fail_at_pages)
    assert inspect(empty.engine).get_table_names() == []
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []


#: Brings a database to the newest revision, and is killed before a statement that contains certain words.
KILLED = """
import os, signal, sys
from sqlalchemy import event
from yaptide.persistence import schema
from yaptide.persistence.engine import Database

def end_before(_connection, _cursor, statement, *_rest):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

database = Database(sys.argv[1])
event.listen(database.engine, "before_cursor_execute", end_before)
schema.upgrade_tables(database)
"""


def kill_upgrade(database: Database, words: str) -> None:
    """Have another process upgrade a database and die before a statement that contains `words`; nothing changes."""
    with database.reading() as connection:
        before = schema.read_revision(connection)
    url = database.engine.url.render_as_string(hide_password=False)
    database.close()  # an upgrade waits for other connections to end
    done = subprocess.run([sys.executable, "-c", KILLED, url, words], check=False)
    assert done.returncode == -signal.SIGKILL
    with database.reading() as connection:
        assert schema.read_revision(connection) == before


def test_an_upgrade_is_refused_while_a_server_is_connected(empty, monkeypatch):
    """A server that began with the old tables would write as they were, also if it is idle just now."""
    monkeypatch.setattr("yaptide.persistence.engine.OTHERS_TIMEOUT", 0.2)
    schema.upgrade_tables(empty, "0010")
    server = Database(empty.engine.url.render_as_string(hide_password=False))
    assert schema.schema_condition(server) is Condition.BEHIND
    with pytest.raises(Conflict, match=r"cannot be upgraded while it is in use: .* Stop all servers"):
        schema.upgrade_tables(empty)
    assert schema.schema_condition(empty) is Condition.BEHIND
    server.close()
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", empty.engine.url.render_as_string(hide_password=False))
    empty.close()
    done = CliRunner().invoke(cli.app, ["db", "upgrade"])
    assert done.exit_code == 0, done.output
    assert ("additional disk space" in done.stderr) is empty.is_sqlite
    assert schema.schema_condition(server) is Condition.CURRENT  # and it is not locked out
    with server.writing() as connection:
        connection.execute(text("""INSERT INTO "Cluster" (cluster_name) VALUES ('ares')"""))
    server.close()


UPGRADE = """
import sys
from yaptide.persistence import schema
from yaptide.persistence.engine import Database

database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
schema.upgrade_tables(database)
print(schema.schema_condition(database).name)
"""


def test_two_upgrades_at_once_both_find_current_tables(empty):
    """Neither keeps the other out for ever."""
    schema.upgrade_tables(empty, "0010")
    command = [sys.executable, "-c", UPGRADE, empty.engine.url.render_as_string(hide_password=False)]
    empty.close()
    with contextlib.ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        both = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(2)]
        assert [each.stdout.readline() for each in both] == ["ready\n"] * 2
        for each in both:
            each.stdin.write("\n")
            each.stdin.flush()
        assert [each.communicate(timeout=60)[0] for each in both] == ["CURRENT\n"] * 2


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)
def test_a_server_that_connects_during_an_upgrade_stops_it(empty, monkeypatch):
    monkeypatch.setattr("yaptide.persistence.engine.OTHERS_TIMEOUT", 0.2)
    schema.upgrade_tables(empty, "0010")
    server = Database(empty.engine.url.render_as_string(hide_password=False))

    def connect(_connection, _cursor, statement, *_rest):
        if "CREATE TABLE" in statement:
            server.engine.connect().close()  # it waits in the pool

    event.listen(empty.engine, "before_cursor_execute", connect)
    with pytest.raises(Conflict, match="other connections of yaptide"):
        schema.upgrade_tables(empty)
    event.remove(empty.engine, "before_cursor_execute", connect)
    server.close()
    assert schema.schema_condition(empty) is Condition.BEHIND


def test_users_who_look_alike_go_on_and_the_oldest_keeps_others_from_the_look(empty):
    """Also if the migration was killed before."""
    schema.upgrade_tables(empty, "0007")
    people = [("alice", "YaptideUser"), ("Alice", "YaptideUser"), ("bob", "YaptideUser"), ("ALICE", "KeycloakUser")]
    with empty.writing() as connection:
        for number, (name, provider) in enumerate(people, start=1):
            values = {"id": number, "name": name, "provider": provider}
            added = 'INSERT INTO "User" (id, username, auth_provider) VALUES (:id, :name, :provider)'
            connection.execute(text(added), values)
            connection.execute(text(f'INSERT INTO "{provider}" (id) VALUES (:id)'), values)
    kill_upgrade(empty, "CREATE UNIQUE INDEX")
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []
    with empty.reading() as connection:
        rows = connection.execute(select(TABLES["YaptideUser"].c.id, TABLES["YaptideUser"].c.name_skeleton))
        assert dict(rows.all()) == {1: make_skeleton("alice"), 2: None, 3: make_skeleton("bob")}
        subjects = connection.execute(select(TABLES["KeycloakUser"].c.issuer, TABLES["KeycloakUser"].c.subject))
        assert subjects.all() == [(None, None)]


#: How revision 0008 read and changed the numbers of simulations of user 1.
READ_NUMBERS = 'SELECT job_state, sum(number) FROM "SimulationCount" WHERE user_id = 1 GROUP BY job_state'
WRITE_NUMBERS = (
    """INSERT INTO "SimulationCount" (user_id, job_state, number) VALUES (1, 'PENDING', 1) RETURNING id""",
    """INSERT INTO "SimulationCount" (user_id, job_state, number)
       SELECT user_id, job_state, -1 FROM "Simulation" WHERE id = 1
       UNION ALL SELECT user_id, 'RUNNING', 1 FROM "Simulation" WHERE id = 1""",
)


def read_numbers(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        return {state: int(number) for state, number in connection.execute(text(READ_NUMBERS))}


def test_processes_of_revision_0008_go_on_after_the_upgrade_of_their_database(empty):
    """Also if the upgrade was killed before."""
    schema.upgrade_tables(empty, "0008")
    user = add(empty, "User", username="alice", auth_provider="YaptideUser")
    for number, state in enumerate(("PENDING", "COMPLETED", "COMPLETED")):
        add_simulation(empty, user, job_id=str(number), job_state=state)
    kill_upgrade(empty, "CREATE VIEW")
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []
    assert read_numbers(empty) == {"PENDING": 1, "COMPLETED": 2}
    with empty.writing() as connection:
        for statement in WRITE_NUMBERS:
            connection.execute(text(statement))
        connection.execute(text("""UPDATE "Simulation" SET job_state = 'RUNNING' WHERE id = 1"""))
    assert read_numbers(empty) == {"RUNNING": 1, "COMPLETED": 2}
    with empty.writing() as connection:
        connection.execute(text('DELETE FROM "User"'))
    assert read_numbers(empty) == {}


def test_processes_of_revision_0009_go_on_after_the_upgrade_of_their_database(empty):
    """Also if the upgrade was killed before."""
    schema.upgrade_tables(empty, "0009")
    insert_user = """INSERT INTO "User" (username, auth_provider) VALUES ('alice', 'YaptideUser') RETURNING id"""
    begin_session = """INSERT INTO "Session" (id, user_id, expires) VALUES (:id, :user, '2030-01-01 00:00:00')"""
    with empty.writing() as connection:
        user = connection.execute(text(insert_user)).scalar()
        connection.execute(text(begin_session), {"id": "before", "user": user})
    for words in ("CREATE TABLE", "CREATE UNIQUE INDEX", "ADD COLUMN address"):
        kill_upgrade(empty, words)
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []
    with empty.writing() as connection:  # what the previous version writes
        connection.execute(text(begin_session), {"id": "after", "user": user})
        listed = queries.list_sessions(connection, user, NOW, 10)
        assert {(row.id, row.started, row.address, row.device) for row in listed} == {
            ("after", None, None, None),
            ("before", None, None, None),
        }
    values = {"name": "laptop", "token_sha256": "ab" * 32, "scope": "read", "created": NOW, "expires": NOW}
    for changes in ({}, {"token_sha256": "cd" * 32}, {"name": "other"}):  # a name, or a token, twice
        with contextlib.suppress(IntegrityError), empty.writing() as connection:
            tokens.add_token(connection, user, values | changes)
    with empty.writing() as connection:
        assert tokens.count_tokens(connection, user) == 1
        connection.execute(text('DELETE FROM "User"'))  # of the previous version, which does not know tokens
        assert tokens.count_tokens(connection, user) == 0


def test_the_way_back_to_revision_0008_counts_the_simulations(empty):
    schema.upgrade_tables(empty)
    user = add(empty, "User", username="alice", auth_provider="YaptideUser")
    for number, state in enumerate(("PENDING", "COMPLETED", "COMPLETED")):
        add_simulation(empty, user, job_id=str(number), job_state=state)
    schema.downgrade_tables(empty, "0008")
    assert "SimulationCount" in inspect(empty.engine).get_table_names()
    assert read_numbers(empty) == {"PENDING": 1, "COMPLETED": 2}
    with empty.writing() as connection:
        for statement in WRITE_NUMBERS:
            connection.execute(text(statement))
    assert read_numbers(empty) == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 2}


def test_processes_of_revision_0010_go_on_after_keys_of_submissions_were_added(empty):
    """Also if the upgrade was killed before. They submit without keys, and remove users with theirs."""
    schema.upgrade_tables(empty, "0010")
    user = add(empty, "User", username="alice", auth_provider="YaptideUser")
    kill_upgrade(empty, 'CREATE INDEX "ix_SubmissionKey')
    schema.upgrade_tables(empty)
    assert schema.schema_differences(empty) == []
    add_simulation(empty, user)
    row = {"content_sha256": "", "simulation_id": 1, "job_id": "job", "sim_type": "mcsquare", "time": NOW}
    add(empty, "SubmissionKey", user_id=user, key="k", **row)
    with empty.writing() as connection:
        connection.execute(text('DELETE FROM "Simulation"'))
    assert counts(empty)["SubmissionKey"] == 1
    with empty.writing() as connection:
        connection.execute(text('DELETE FROM "User"'))
    assert counts(empty)["SubmissionKey"] == 0


Attempt = Callable[[Database, int], Any]


def column(table: str, **values: Any) -> Attempt:
    """An attempt to set columns of all rows of a table."""

    def attempt(database: Database, _simulation: int) -> None:
        with database.writing() as connection:
            # Plain SQL, as any client could send it: the models must not be what refuses.
            changes = ", ".join(f"{name} = :{name}" for name in values)
            connection.execute(text(f'UPDATE "{table}" SET {changes}'), values)

    return attempt


REFUSED: dict[str, Attempt] = {
    "an unknown state of a simulation": column("Simulation", job_state="SLEEPING"),
    "an unknown scope of a token": column("Token", scope="everything"),
    "an unknown state of a task": column("Task", task_state="SLEEPING"),
    "a task that merges": column("Task", task_state="MERGING_RUNNING"),
    "an unknown state in the history": column("StateHistory", to_state="SLEEPING"),
    "an unknown earlier state in the history": column("StateHistory", from_state="pending"),
    "an unknown platform": column("Simulation", platform="CLOUD"),
    "an unknown platform of a task": column("Task", platform="direct"),
    "an unknown kind of input": column("Simulation", input_type="editor"),
    "an unknown way to sign in": column("User", auth_provider="Guest"),
    "a user without a name": column("User", username=""),
    "a negative number of a task": column("Task", task_id=-1),
    "negative requested primaries": column("Task", requested_primaries=-1),
    "negative simulated primaries": column("Task", simulated_primaries=-1),
    "a negative time left": column("Task", estimated_time=-1),
    "negative attempts": column("Task", attempts=-1),
    "a negative page number": column("Page", page_number=-1),
    "a negative dimension": column("Page", page_dimension=-1),
    "an input of no simulation": column("Input", simulation_id=10**6),
    "a task of no simulation": column("Task", simulation_id=10**6),
    "a page of no estimator": column("Page", estimator_id=10**6),
    "log files of no simulation": column("Logfiles", simulation_id=10**6),
    "a history of no simulation": column("StateHistory", simulation_id=10**6),
    "a simulation of nobody": column("Simulation", user_id=10**6),
    "a key of nobody": column("SubmissionKey", user_id=10**6),
    "a session of nobody": column("Session", user_id=10**6),
    "no input data": column("Input", compressed_data=None),
    "no title": column("Simulation", title=None),
    "a second input": lambda db, simulation: add(db, "Input", simulation_id=simulation, **PAYLOAD),
    "two tasks of one number": add_task,
    "two pages of one number": lambda db, _: add_page(db, only(db, "Estimator")),
    "two estimators of one name": lambda db, simulation: add(
        db, "Estimator", simulation_id=simulation, name="dose", file_name="other", **PAYLOAD
    ),
    "the same log files twice": lambda db, simulation: add(db, "Logfiles", simulation_id=simulation, **PAYLOAD),
    "two simulations of one name": lambda db, _: add_simulation(db, only(db, "User")),
    "two users of one name": lambda db, _: add(db, "User", username="alice", auth_provider="YaptideUser"),
    "a simulation that ends before it began": lambda db, _: add_simulation(
        db, only(db, "User"), job_id="other", end_time=NOW - timedelta(seconds=1)
    ),
    "a task that ends before it began": lambda db, simulation: add_task(
        db, simulation, task_id=1, start_time=NOW, end_time=NOW - timedelta(seconds=1)
    ),
    "a cluster at no port": lambda db, _: add(db, "Cluster", cluster_name="ares", port=0),
    "a cluster for no tasks": lambda db, _: add(db, "Cluster", cluster_name="ares", max_tasks=0),
    "a cluster that runs nothing": lambda db, _: add(db, "Cluster", cluster_name="ares", max_running=0),
    "folders kept until yesterday": lambda db, _: add(db, "Cluster", cluster_name="ares", keep_failed_days=-1),
    "a batch simulation on no cluster": lambda db, simulation: add(
        db, "BatchSimulation", id=simulation, cluster_id=10**6
    ),
}


def only(database: Database, table: str) -> int:
    with database.reading() as connection:
        return connection.execute(select(TABLES[table].c.id)).scalar_one()


@on_disk
@pytest.mark.parametrize("what", REFUSED)
def test_the_database_itself_refuses(database, simulation, what):
    before = contents(database)
    with pytest.raises(IntegrityError):
        REFUSED[what](database, simulation)
    assert contents(database) == before


@on_disk
def test_a_user_may_have_the_name_of_one_who_signs_in_otherwise(database, simulation):
    add(database, "User", username="alice", auth_provider="KeycloakUser")


@on_disk
def test_counts_of_primaries_go_past_31_bits(database, simulation):
    add_task(database, simulation, task_id=1, requested_primaries=2**62, simulated_primaries=2**62)
    with database.reading() as connection:
        assert connection.execute(select(func.max(TABLES["Task"].c.simulated_primaries))).scalar_one() == 2**62


@on_disk
def test_deleting_a_simulation_deletes_what_hangs_under_it(database, simulation):
    with database.writing() as connection:
        connection.execute(text('DELETE FROM "Simulation" WHERE id = :id'), {"id": simulation})
    left = {name for name, number in counts(database).items() if number}
    assert left == {"User", "YaptideUser", "Session", "SubmissionKey", "Token"}


@on_disk
def test_deleting_a_user_deletes_all_that_is_theirs(database, simulation):
    with database.writing() as connection:
        connection.execute(text('DELETE FROM "User"'))
    assert not any(counts(database).values())


@on_disk
def test_a_cluster_with_simulations_is_not_deleted(database, simulation):
    cluster = add(database, "Cluster", cluster_name="ares")
    user = only(database, "User")
    batch = add_simulation(database, user, job_id="batch", platform="BATCH")
    add(database, "BatchSimulation", id=batch, cluster_id=cluster)
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(delete(TABLES["Cluster"]))
    with database.writing() as connection:
        connection.execute(delete(TABLES["Simulation"]).where(TABLES["Simulation"].c.id == batch))
        connection.execute(delete(TABLES["Cluster"]))


@on_disk
def test_the_number_of_a_simulation_is_never_given_twice(database, simulation):
    user = only(database, "User")
    with database.writing() as connection:
        connection.execute(delete(TABLES["Simulation"]))
    assert add_simulation(database, user) > simulation


def test_times_come_back_as_they_were_in_utc(database, simulation):
    tasks = TABLES["Task"]
    elsewhere = NOW.astimezone().replace(microsecond=123456)
    with database.writing() as connection:
        connection.execute(update(tasks).values(last_update_time=elsewhere))
        rows = connection.execute(select(tasks.c.last_update_time)).scalar_one()
    assert rows == elsewhere
    assert rows.utcoffset() == timedelta(0)


def test_pages_are_put_in_order_in_the_room_that_they_have(tmp_path):
    path = tmp_path / "yaptide.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade_tables(database, "0002")
    user = add(database, "User", username="alice", auth_provider="YaptideUser")
    estimator = add(
        database, "Estimator", simulation_id=add_simulation(database, user), name="", file_name="", **PAYLOAD
    )
    pages = """SELECT id, estimator_id, page_number, page_name, page_dimension, content_size, content_sha256,
        compressed_data FROM "Page" ORDER BY id"""
    with database.engine.begin() as connection:
        secure = connection.exec_driver_sql("PRAGMA secure_delete").scalar()
        for number in [*range(100), 10**6]:
            values = (number + 7, estimator, number, str(number), number % 4, number, f"{number:064}")
            connection.exec_driver_sql('INSERT INTO "Page" VALUES (?, ?, ?, ?, ?, randomblob(100000), ?, ?)', values)
        before = connection.exec_driver_sql(pages).all()
    database.close()  # all of it is in the file now, and nothing in the log beside it
    size = path.stat().st_size
    schema.upgrade_tables(database)
    with database.engine.begin() as connection:
        assert connection.exec_driver_sql(pages).all() == before
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == secure
    database.close()
    assert path.stat().st_size < 1.5 * size


def test_somebody_elses_view_does_not_stop_an_upgrade(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'yaptide.db'}")
    schema.upgrade_tables(database, "0001")
    with database.engine.begin() as connection:
        connection.exec_driver_sql('CREATE VIEW mine AS SELECT cluster_name FROM "Cluster"')
    schema.upgrade_tables(database)
    with database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT * FROM mine").all() == []
    database.close()

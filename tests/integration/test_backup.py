"""Backups: everything, of one moment, into any database, whole or not at all."""

import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import insert, text
from typer.testing import CliRunner

from tests.conftest import POSTGRESQL, SQLITE
from tests.support import payloads, stores
from tests.support.api import contents, counts
from tests.support.examples import EXAMPLES
from tests.support.invariants import broken_invariants
from yaptide.admin import cli
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.domain.states import EntityState
from yaptide.persistence import container, schema
from yaptide.persistence.engine import Database
from yaptide.persistence.models import Base, ClusterModel, InputModel, SimulationModel, UserModel
from yaptide.services import backups, results_upload, simulations, tasks, users
from yaptide.services.simulations import Submission
from yaptide.services.tasks import Update

ON_DISK = pytest.mark.parametrize("database", [SQLITE, POSTGRESQL], indirect=True)
ON_SQLITE = pytest.mark.parametrize("database", [SQLITE], indirect=True)


def sqlite(path: Path) -> Database:
    return Database(f"sqlite:///{path}")


def in_memory(path: Path) -> Database:
    """A copy of an SQLite file in memory."""
    database = Database("sqlite://")
    with closing(sqlite3.connect(path)) as source, closing(database.engine.raw_connection()) as target:
        source.backup(target.driver_connection)
    return database


def numbers(database: Database) -> list[tuple[str, int]]:
    """What SQLite remembers of the numbers that it gave."""
    with database.reading() as connection:
        return sorted(map(tuple, connection.execute(text("SELECT name, seq FROM sqlite_sequence WHERE seq > 0"))))


@pytest.fixture
def saved(tmp_path, migrated_file) -> Path:
    """A backup of a small store."""
    database = sqlite(shutil.copy(migrated_file, tmp_path / "saved.db"))
    stores.fill(database)
    backups.write_backup(database, tmp_path / "saved.zip")
    database.close()
    return tmp_path / "saved.zip"


@ON_DISK
def test_every_table_and_column_of_the_models_is_in_a_backup(database, tmp_path):
    stores.fill(database)
    report = backups.write_backup(database, tmp_path / "a.zip")
    by_name = {name: set(table.columns) for name, table in report.tables.items()}
    assert by_name == {name: set(table.columns.keys()) for name, table in Base.metadata.tables.items()}
    assert {name: table.rows for name, table in report.tables.items()} == counts(database)
    assert all(table.rows for table in report.tables.values()), "the small store has rows in every table"
    assert backups.verify_backup(tmp_path / "a.zip") == report


def test_from_sqlite_to_postgresql_and_back(postgres, tmp_path, migrated_file):
    first = sqlite(shutil.copy(migrated_file, tmp_path / "first.db"))
    stores.fill(first)
    there = backups.write_backup(first, tmp_path / "there.zip")

    server = Database(postgres.create_database())
    assert backups.restore_backup(server, tmp_path / "there.zip").rows == there.rows
    assert contents(server) == contents(first)
    back = backups.write_backup(server, tmp_path / "back.zip")
    assert [t.sha256 for t in back.tables.values()] == [there.tables[name].sha256 for name in back.tables]

    last = sqlite(tmp_path / "last.db")
    backups.restore_backup(last, tmp_path / "back.zip")
    assert contents(last) == contents(first)
    assert numbers(last) == numbers(first) == [("Simulation", 99)]
    assert not schema.schema_differences(last)
    assert not schema.schema_differences(server)
    for database in (first, server, last):
        database.close()


def test_numbers_go_on_where_they_were(saved, empty):
    backups.restore_backup(empty, saved)
    with empty.writing() as connection:
        user = connection.execute(
            insert(UserModel.__table__).returning(UserModel.id), {"username": "bob", "auth_provider": "YaptideUser"}
        )
        assert user.scalar() == 8
        values = {"job_id": "new", "user_id": 3, "start_time": stores.START, "title": "", "platform": "DIRECT"}
        values |= {"input_type": "FILES", "sim_type": "", "job_state": EntityState.PENDING}
        new = connection.execute(insert(SimulationModel.__table__).returning(SimulationModel.id), values)
        assert new.scalar() == 100


@ON_DISK
def test_a_backup_is_of_one_moment_while_others_write(backend, tmp_path):
    user, done = users.ensure_user(backend, "alice"), threading.Event()

    def work(number: int) -> None:
        while not done.is_set():
            job = simulations.submit_simulation(
                backend, user, Submission("shieldhit", 2, str(number), payloads.shieldhit_files())
            )
            for simulated in (100, 300):
                for task in range(2):
                    message = Update(task_state=EntityState.RUNNING, simulated_primaries=simulated)
                    tasks.report_task(backend, job.simulation_id, task, job.update_key, message)
            items = [payloads.estimator(f"e{n}", *(payloads.page(p) for p in range(3))) for n in range(3)]
            body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "estimators": items}
            results_upload.post_results(backend, orjson.dumps(body))
            if number == 0:
                simulations.delete_simulation(backend, user, job.job_id)

    writers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        rows = []
        for number in range(6):
            path = tmp_path / f"{number}.zip"
            rows.append(backups.write_backup(backend.database, path).rows)
            restored = sqlite(tmp_path / f"{number}.db")
            backups.restore_backup(restored, path)
            assert broken_invariants(restored) == []
            restored.close()
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert len(set(rows)) > 1, "nobody wrote meanwhile"


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
times = st.datetimes(timezones=st.just(UTC))
big = st.integers(0, 2**63 - 1)


@st.composite
def random_rows(draw):
    """Rows of a few tables, with whatever their columns can hold."""
    names = draw(st.lists(words.filter(bool), unique=True, min_size=1, max_size=5))
    user_rows = [
        {"id": n, "username": name, "auth_provider": "YaptideUser", "quota_bytes": draw(st.none() | big)}
        for n, name in enumerate(names, start=draw(st.integers(1, 10**6)))
    ]
    job_rows, inputs = [], []
    for n in range(draw(st.integers(0, 6))):
        row = {"id": n * 7 + 1, "job_id": f"job-{n}", "user_id": user_rows[0]["id"], "start_time": draw(times)}
        row |= {"title": draw(words), "platform": "DIRECT", "input_type": "FILES", "sim_type": draw(words)}
        row |= {
            "job_state": draw(st.sampled_from(EntityState)),
            "stored_bytes": draw(big),
            "owner": draw(st.none() | words),
        }
        job_rows.append(row)
        data = {"compressed_data": draw(st.binary(max_size=300)), "content_size": draw(big), "content_sha256": ""}
        inputs.append({"simulation_id": row["id"], **data})
    return {UserModel: user_rows, SimulationModel: job_rows, InputModel: inputs}


@settings(max_examples=15 * EXAMPLES)
@given(rows=random_rows(), most_rows=st.integers(1, 4), most_bytes=st.sampled_from([1, 200, 10**6]))
def test_whatever_is_in_the_store_comes_back(rows, most_rows, most_bytes, tmp_path, migrated_file):
    first, last = in_memory(migrated_file), Database("sqlite://")
    with first.writing() as connection:
        for model, values in rows.items():
            if values:
                connection.execute(insert(model.__table__), values)
    with pytest.MonkeyPatch.context() as patch:  # also in parts
        patch.setattr("yaptide.persistence.queries.backups._MOST_ROWS", most_rows)
        patch.setattr("yaptide.persistence.queries.backups._MOST_BYTES", most_bytes)
        backups.write_backup(first, tmp_path / "a.zip")
        backups.restore_backup(last, tmp_path / "a.zip")
    assert contents(last) == contents(first)
    first.close()
    last.close()


def test_every_flipped_byte_and_every_cut_is_noticed(saved, tmp_path):
    whole = saved.read_bytes()
    damaged = tmp_path / "damaged.zip"
    for offset in [*range(0, len(whole), 23), *range(len(whole) - 100, len(whole))]:
        for bit in (0x01, 0x20, 0x80):
            damaged.write_bytes(whole[:offset] + bytes([whole[offset] ^ bit]) + whole[offset + 1 :])
            with pytest.raises(InvalidInput):
                backups.verify_backup(damaged)
    for length in [*range(0, len(whole), 31), *range(len(whole) - 90, len(whole))]:
        damaged.write_bytes(whole[:length])
        with pytest.raises(InvalidInput):
            backups.verify_backup(damaged)
    damaged.write_bytes(whole + b"\0")
    with pytest.raises(InvalidInput):
        backups.verify_backup(damaged)


def forge(source: Path, target: Path, change) -> None:
    """Write a backup anew, with a checksum that fits, after `change` was made to its entries and to what it tells."""
    with container.open_container(source, backups.FORMAT) as reader:
        entries = {name: reader.read(name) for name in reader.manifest.entries}
        about = json.loads(bytes(reader.manifest.about))
    change(entries, about)
    with container.write_container(target, backups.FORMAT) as writer:
        for name, data in entries.items():
            writer.add(name, data, deflated=name.endswith("jsonl"))
        writer.about = about


def replaced(name: str, old: bytes, new: bytes):
    def change(entries, about):
        assert old in entries[name]
        entries[name] = entries[name].replace(old, new)

    return change


def told(table: str, **values):
    return lambda _, about: about["tables"][table].update(values)


FORGED = {
    "a value": replaced("User/000000.jsonl", b'"alice"', b'"mallory"'),
    "a payload": replaced("Input/000000.bin", b"\x1f\x8b", b"\x1f\x8c"),
    "bytes that nobody counted": lambda entries, _: entries.update({"Input/000000.bin": b""}),
    "no entry": lambda entries, _: entries.pop("User/000000.jsonl"),
    "no JSON": replaced("User/000000.jsonl", b"{", b"["),
    "another column": replaced("User/000000.jsonl", b'"quota_bytes"', b'"quota"'),
    "a naive time": replaced("Session/000000.jsonl", b"+00:00", b""),
    "no time": replaced("Session/000000.jsonl", b"2026-", b"x"),
    "a text for a number": replaced("User/000000.jsonl", b'"id":3', b'"id":"3"'),
    "a number that nothing holds": replaced("User/000000.jsonl", b'"id":3', b'"id":' + b"9" * 30),
    "a state that there is not": replaced("Simulation/000000.jsonl", b'"RUNNING"', b'"DANCING"'),
    "a parent that there is not": replaced("Session/000000.jsonl", b'"user_id":3', b'"user_id":4'),
    "another count": told("User", rows=1),
    "another digest": told("User", sha256="00" * 32),
    "a key that is no column": told("User", key=["name"]),
    "no key": told("User", key=[]),
    "an unknown kind": told("User", columns={"id": "complex"}),
    "more parts": told("User", parts=2),
    "fewer parts": told("User", parts=0),
    "no table": lambda _, about: about["tables"].pop("Page"),
    "one more table": lambda _, about: about["tables"].update({"x": about["tables"]["User"]}),
    "nothing told": lambda _, about: about.clear(),
}


#: What the database itself refuses, or is noticed only when the rows are read back.
BY_THE_DATABASE = ("a value", "a state that there is not", "a parent that there is not", "fewer parts")


@pytest.mark.parametrize(
    ("empty", "forged"),
    [*((SQLITE, forged) for forged in FORGED), *((POSTGRESQL, forged) for forged in BY_THE_DATABASE)],
    indirect=["empty"],
)
def test_a_forged_backup_changes_nothing(empty, forged, saved, tmp_path):
    forge(saved, tmp_path / "forged.zip", FORGED[forged])
    with pytest.raises(InvalidInput) as refused:
        backups.restore_backup(empty, tmp_path / "forged.zip")
    assert "\n" not in str(refused.value)
    assert schema.schema_condition(empty) is schema.Condition.EMPTY


def test_only_an_empty_database_is_filled(saved, empty):
    backups.restore_backup(empty, saved)
    before = contents(empty)
    with pytest.raises(Conflict, match="not empty"):
        backups.restore_backup(empty, saved)
    assert contents(empty) == before


def test_tables_without_rows_are_no_obstacle(saved, empty):
    schema.upgrade_tables(empty)
    backups.restore_backup(empty, saved)
    assert counts(empty)["Session"] == 9


def test_other_tables_are_left_alone(saved, empty):
    with empty.writing() as connection:
        connection.execute(text("CREATE TABLE theirs (id INTEGER PRIMARY KEY)"))
    with pytest.raises(Conflict, match="not empty"):
        backups.restore_backup(empty, saved)
    assert schema.schema_condition(empty) is schema.Condition.FOREIGN


def test_there_is_nothing_to_back_up(empty, tmp_path):
    with pytest.raises(Conflict, match="Nothing to back up"):
        backups.write_backup(empty, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_newer_backup_is_refused(saved, tmp_path, empty):
    forge(saved, tmp_path / "newer.zip", lambda _, about: about.update(revision="9999"))
    with pytest.raises(Conflict, match="newer version"):
        backups.restore_backup(empty, tmp_path / "newer.zip")
    newer = container.Format(backups.FORMAT.name, 2, "")
    with container.write_container(tmp_path / "format.zip", newer):
        pass
    with pytest.raises(Conflict, match="newer version"):
        backups.verify_backup(tmp_path / "format.zip")
    assert schema.schema_condition(empty) is schema.Condition.EMPTY


def test_an_older_backup_is_brought_up_to_date(saved, tmp_path, empty, monkeypatch):
    migrations = shutil.copytree(schema.MIGRATIONS, tmp_path / "migrations")
    head = schema.HEAD
    (migrations / "versions" / "9000_test.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '9000', {head!r}\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('Cluster') as table:\n"
        "        table.add_column(sa.Column('nodes', sa.Integer(), server_default='7', nullable=False))\n"
    )
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    monkeypatch.setattr(schema, "HEAD", "9000")
    report = backups.restore_backup(empty, saved)
    assert report.revision == head
    with empty.reading() as connection:
        assert schema.read_revision(connection) == "9000"
        assert connection.execute(text('SELECT cluster_name, nodes FROM "Cluster"')).one() == (stores.CLUSTER, 7)
    assert backups.write_backup(empty, tmp_path / "b.zip").tables["Cluster"].columns["nodes"] == "integer"


@ON_SQLITE
def test_what_a_column_should_not_hold_is_named(database, tmp_path):
    with database.writing() as connection:
        connection.execute(insert(ClusterModel.__table__), {"cluster_name": "a"})
        connection.execute(text("UPDATE Cluster SET host = x'00'"))
    with pytest.raises(Conflict, match="Cluster has a value in host"):
        backups.write_backup(database, tmp_path / "a.zip")
    assert not list(tmp_path.glob("*.zip"))


def run(program: str, *arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, whose files have at most `limit` bytes."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)


FULL = """
import sys
from pathlib import Path
from yaptide.domain.errors import StorageFull
from yaptide.persistence.engine import Database
from yaptide.services import backups
try:
    backups.write_backup(Database(sys.argv[1]), Path(sys.argv[2]))
except StorageFull as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 100, 3000, 8000])
@ON_DISK
def test_a_full_disk_leaves_the_old_file_and_no_other(database, tmp_path, limit):
    stores.fill(database)
    with database.writing() as connection:
        values = {"compressed_data": bytes(range(256)) * 100}
        connection.execute(InputModel.__table__.update(), values)
    folder = tmp_path / "backups"
    folder.mkdir()
    target = folder / "a.zip"
    target.write_bytes(b"old")
    url = database.engine.url.render_as_string(hide_password=False)
    done = run(FULL, url, target, limit=limit)
    assert done.stdout == f"No disk space left for {target}; nothing was written\n", done.stderr
    assert [path.name for path in folder.iterdir()] == ["a.zip"]
    assert target.read_bytes() == b"old"


MEMORY = """
import resource, sys
from pathlib import Path
from yaptide.persistence.engine import Database
from yaptide.services import backups
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
source, target, folder = Database(sys.argv[1]), Database(sys.argv[2]), Path(sys.argv[3])
backups.write_backup(Database(sys.argv[4]), folder / "small.zip")
backups.verify_backup(folder / "small.zip")
before = peak()
backups.write_backup(source, folder / "a.zip")
backups.verify_backup(folder / "a.zip")
backups.restore_backup(target, folder / "a.zip")
print(peak() - before)
"""


@ON_DISK
def test_memory_does_not_grow_with_the_database(database, tmp_path, migrated_file, postgres):
    stores.fill(database)
    size, count = 2 * 2**20, 100
    with database.writing() as connection:
        connection.execute(text('DELETE FROM "Input"'))
        for number in range(count):
            values = {
                "job_id": f"big-{number}",
                "user_id": 3,
                "start_time": stores.START,
                "title": "",
                "platform": "DIRECT",
            }
            values |= {"id": 1000 + number, "input_type": "FILES", "sim_type": "", "job_state": EntityState.PENDING}
            connection.execute(insert(SimulationModel.__table__), values)
            data = {"compressed_data": number.to_bytes() * size, "content_size": 1, "content_sha256": ""}
            connection.execute(insert(InputModel.__table__), {"simulation_id": 1000 + number, **data})
    source = database.engine.url.render_as_string(hide_password=False)
    target = f"sqlite:///{tmp_path / 'target.db'}" if database.is_sqlite else postgres.create_database()
    done = run(MEMORY, source, target, tmp_path, f"sqlite:///{migrated_file}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.zip").stat().st_size > size * count
    assert float(done.stdout) < 120, "MiB for 200 MiB"


@ON_SQLITE
def test_the_commands(database, tmp_path, monkeypatch):
    stores.fill(database)
    file, invoke = str(tmp_path / "a.zip"), CliRunner().invoke
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string())
    made = invoke(cli.app, ["db", "backup", file, "--json"])
    assert made.exit_code == 0
    report = json.loads(made.stdout)
    assert report["tables"]["Session"]["rows"] == 9
    assert (tmp_path / "a.zip").stat().st_mode & 0o777 == 0o600
    assert "settings, keys" in made.stderr
    assert json.loads(invoke(cli.app, ["db", "verify", file, "--json"]).stdout) == report
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path / 'new.db'}")
    restored = invoke(cli.app, ["db", "restore", file])
    assert restored.exit_code == 0, restored.output
    assert "Restored and verified" in restored.stderr
    restored = sqlite(tmp_path / "new.db")
    assert contents(restored) == contents(database)
    restored.close()
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path / 'none.db'}")
    assert invoke(cli.app, ["db", "backup", file]).exit_code == 1
    assert not (tmp_path / "none.db").exists()


@ON_SQLITE
def test_names_that_no_file_can_have(database, tmp_path):
    with pytest.raises(InvalidInput, match="No such folder"):
        backups.write_backup(database, tmp_path / "none" / "a.zip")
    with pytest.raises(InvalidInput, match="exists and is not a file"):
        backups.write_backup(database, tmp_path)

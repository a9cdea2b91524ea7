"""Archives of single simulations: they arrive unchanged, once, or not at all."""

import gzip
import hashlib
import json
import shutil
import tracemalloc
import zipfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest
from msgspec import structs
from sqlalchemy import select, update
from typer.testing import CliRunner

from tests.conftest import MEMORY, SQLITE
from tests.support import payloads, stores
from tests.support.api import contents
from tests.support.invariants import broken_invariants
from tests.support.stores import BATCH_JOB, CLUSTER, DIRECT_JOB, END, OPEN_JOB, START
from tests.support.storing import FOREIGN
from yaptide.admin import cli
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.persistence import codec, container
from yaptide.persistence.engine import Database
from yaptide.persistence.models import ClusterModel, PageModel, SimulationModel, TaskModel, UserModel
from yaptide.persistence.models.base import table_of
from yaptide.services import archives, backups, results, results_upload, simulations, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Submission
from yaptide.services.spool import Folder

BOTH = [DIRECT_JOB, BATCH_JOB]
#: What the two installations number for themselves, or keep to themselves.
OWN = {"id", "simulation_id", "estimator_id", "user_id", "cluster_id"}
LEFT_OUT = {"update_key_hash", "owner", "heartbeat_time"}


@pytest.fixture
def home(tmp_path, migrated_file) -> Database:
    """The installation that has the simulations."""
    database = Database(f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'home.db')}")
    stores.fill(database)
    yield database
    database.close()


@pytest.fixture
def archive(home, tmp_path) -> Path:
    """An archive of two simulations."""
    path = tmp_path / "archive.zip"
    archives.export_simulations(at(home, tmp_path), BOTH, path)
    return path


@pytest.fixture
def there(backend) -> Backend:
    """Another installation, with a user and a cluster of the same name."""
    users.ensure_user(backend, "somebody")
    users.ensure_user(backend, "bob")
    with backend.database.writing() as connection:
        connection.execute(table_of(ClusterModel).insert(), {"cluster_name": "other"})
        connection.execute(table_of(ClusterModel).insert(), {"cluster_name": CLUSTER})
    return backend


def at(database: Database, folder: Path) -> Backend:
    return Backend(database, Folder(folder / "spool"), b"a key for tests, 32 bytes or more", foreign_workers=FOREIGN)


def known(database: Database) -> dict[str, list]:
    """All rows that an archive carries, without what an installation numbers for itself."""
    tables = ("Simulation", "Task", "StateHistory", "Input", "Estimator", "Page", "Logfiles")
    result = {}
    with database.reading() as connection:
        for name in tables:
            table = SimulationModel.metadata.tables[name]
            query = select(*(column for column in table.c if column.name not in OWN | LEFT_OUT)).order_by(table.c.id)
            if "simulation_id" in table.c:
                query = query.join(SimulationModel, SimulationModel.id == table.c.simulation_id)
            if name not in ("Page", "Estimator", "Logfiles"):
                query = query.where(SimulationModel.job_id.in_(BOTH))
            result[name] = list(map(tuple, connection.execute(query)))
    return result


def test_a_simulation_moves_to_another_user_elsewhere(home, archive, there):
    before = contents(there.database)
    report = archives.import_simulations(there, archive, "bob")
    assert (report.imported, report.skipped) == (BOTH, [])
    assert known(there.database) == known(home)
    for name, count in (("bob", 2), ("somebody", 0)):
        assert simulations.list_simulations(there, users.ensure_user(there, name), simulations.Page())[0] == count
    with there.database.reading() as connection:
        rows = connection.execute(
            select(UserModel.username, SimulationModel.update_key_hash).join(
                UserModel, UserModel.id == SimulationModel.user_id
            )
        ).all()
        assert {tuple(row) for row in rows} == {("bob", None)}
    after = contents(there.database)
    assert (after["User"], after["Cluster"]) == (before["User"], before["Cluster"])
    assert (len(after["CelerySimulation"]), len(after["BatchSimulation"])) == (1, 1)
    assert (len(after["CeleryTask"]), len(after["BatchTask"])) == (2, 1)


def test_again_adds_nothing(archive, there):
    archives.import_simulations(there, archive, "bob")
    before = contents(there.database)
    for user in ("bob", "somebody"):
        report = archives.import_simulations(there, archive, user)
        assert (report.imported, report.skipped) == ([], BOTH)
        assert contents(there.database) == before


def test_what_was_taken_in_can_be_handed_on(archive, there, tmp_path):
    archives.import_simulations(there, archive, "bob")
    archives.export_simulations(there, BOTH, tmp_path / "again.zip")
    with zipfile.ZipFile(archive) as first, zipfile.ZipFile(tmp_path / "again.zip") as again:
        assert first.namelist() == again.namelist()
        for name in first.namelist():
            if name.endswith(".json.gz"):
                assert first.read(name) == again.read(name)


def test_the_archive_tells_everything_to_standard_tools(archive):
    with zipfile.ZipFile(archive) as result:
        document = json.loads(result.read(f"{DIRECT_JOB}/simulation.json"))
        assert json.loads(gzip.decompress(result.read(document["input"]["entry"]))) == stores.INPUT
        [estimator] = document["estimators"]
        page = estimator["pages"][0]["data"]
        assert json.loads(gzip.decompress(result.read(page["entry"]))) == {"values": [0.1, -0.0]}
        manifest = json.loads(result.read("manifest.json"))
    assert (document["user"], document["simulator_version"], len(document["history"])) == ("alice", "1.1.0", 10)
    assert document["tasks"][0]["seed"] == 2**63 - 1
    assert manifest["about"] == {"simulations": BOTH}
    assert "cd" * 32 not in json.dumps(document), "an update key"
    content = archive.read_bytes()
    assert hashlib.sha256(content[:-64]).hexdigest().encode() == content[-64:]


def test_results_of_an_imported_simulation_read_as_before(home, tmp_path, there):
    origin = at(home, tmp_path)
    user = users.ensure_user(origin, "carol")
    job = simulations.submit_simulation(origin, user, Submission("shieldhit", 2, "t", payloads.shieldhit_files()))
    items = [payloads.estimator("a", payloads.page(0), payloads.page(1)), payloads.estimator("b")]
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "estimators": items}
    results_upload.post_results(origin, orjson.dumps(body))
    archives.export_simulations(origin, [job.job_id], tmp_path / "a.zip")
    archives.import_simulations(there, tmp_path / "a.zip", "bob")
    here = users.ensure_user(there, "bob")
    sent = b"".join(codec.stitch_gzip(results.read_results(origin, user, job.job_id)))
    assert b"".join(codec.stitch_gzip(results.read_results(there, here, job.job_id))) == sent
    assert broken_invariants(there.database) == []


def test_only_what_has_ended_is_exported(home, tmp_path):
    backend, path = at(home, tmp_path), tmp_path / "a.zip"
    with pytest.raises(Conflict, match="RUNNING"):
        archives.export_simulations(backend, [DIRECT_JOB, OPEN_JOB], path)
    with pytest.raises(NotFound, match="nothing-here"):
        archives.export_simulations(backend, [DIRECT_JOB, "nothing-here"], path)
    assert not path.exists()


def test_a_damaged_payload_is_not_exported(home, tmp_path):
    with home.writing() as connection:
        connection.execute(update(PageModel).values(content_sha256="00" * 32))
    with pytest.raises(InvalidInput, match="digest"):
        archives.export_simulations(at(home, tmp_path), [DIRECT_JOB], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (SimulationModel, {"title": "another"}),
        (SimulationModel, {"end_time": END + timedelta(microseconds=1)}),
        (TaskModel, {"simulated_primaries": 7}),
        (PageModel, {"page_name": "another"}),
        (PageModel, stores.ours({"values": []})),
        (SimulationModel, {"job_state": "RUNNING"}),
    ],
)
@pytest.mark.parametrize("database", [MEMORY], indirect=True)
def test_another_simulation_of_the_same_name_is_kept(archive, there, model, values):
    archives.import_simulations(there, archive, "bob")
    with there.database.writing() as connection:
        connection.execute(update(table_of(model)).values(values))
    before = contents(there.database)
    with pytest.raises(Conflict, match="Another simulation has the job_id"):
        archives.import_simulations(there, archive, "bob")
    assert contents(there.database) == before


def test_the_quota_holds(archive, there):
    with zipfile.ZipFile(archive) as result:
        needed = sum(info.file_size for info in result.infolist() if info.filename.endswith(".gz"))
    for quota, fits in ((needed - 1, False), (needed, True)):
        with there.database.writing() as connection:
            connection.execute(update(UserModel).where(UserModel.username == "bob").values(quota_bytes=quota))
        before = contents(there.database)
        if fits:
            assert archives.import_simulations(there, archive, "bob").imported == BOTH
        else:
            with pytest.raises(Conflict, match="delete some of them"):
                archives.import_simulations(there, archive, "bob")
            assert contents(there.database) == before


def test_who_and_where_have_to_be_known(archive, there):
    with pytest.raises(NotFound, match="Unknown user"):
        archives.import_simulations(there, archive, "nobody")
    with there.database.writing() as connection:
        connection.execute(update(ClusterModel).where(ClusterModel.cluster_name == CLUSTER).values(cluster_name="x"))
    before = contents(there.database)
    with pytest.raises(NotFound, match="cluster 'ares'"):
        archives.import_simulations(there, archive, "bob")
    assert contents(there.database) == before


# Hostile archives


def forge(source: Path, target: Path, change, *, all_deflated: bool = False) -> None:
    """Write an archive anew, with a valid checksum, after `change` was made to the first simulation and the entries."""
    with container.open_container(source, archives.FORMAT) as reader:
        entries = {name: reader.read(name) for name in reader.manifest.entries}
    name = f"{DIRECT_JOB}/simulation.json"
    document = json.loads(entries.pop(name))
    change(document, entries)
    entries[f"{document['job_id']}/simulation.json" if isinstance(document.get("job_id"), str) else name] = json.dumps(
        document
    ).encode()
    with container.write_container(target, archives.FORMAT) as writer:
        for entry, data in entries.items():
            writer._write(entry, data, deflated=all_deflated or entry.endswith("simulation.json"))
            writer._entries[entry] = container.Entry(len(data), hashlib.sha256(data).hexdigest())
        writer.about = {"simulations": [document.get("job_id"), BATCH_JOB]}


def setting(**values):
    return lambda document, _: document.update(values)


def first(part: str, **values):
    return lambda document, _: document[part][0].update(values)


def input_of(value: object, **claims):
    """Replace the input, by bytes if they are given."""

    def change(document, entries):
        data = value if isinstance(value, bytes) else codec.encode_payload(value).data
        entries[document["input"]["entry"]] = data
        if not isinstance(value, bytes):
            text = codec.decode_text(data)
            document["input"].update(size=len(text), sha256=hashlib.sha256(text).hexdigest())
        document["input"].update(claims)

    return change


def bomb(document, entries):
    text = b'"' + b" " * (64 * 2**20) + b'"'
    entries[document["input"]["entry"]] = gzip.compress(text)
    document["input"].update(size=10, sha256=hashlib.sha256(b" " * 10).hexdigest())


def unjoinable(document, entries):
    """A payload that says that it can be joined, but is one plain deflate stream behind that header."""
    marked, text = codec.encode_payload({}).data, b'{"a":1234567890}'
    plain = gzip.compress(text)
    entries[document["input"]["entry"]] = marked[: len(codec._MARKED)] + plain[10:]
    document["input"].update(size=len(text), sha256=hashlib.sha256(text).hexdigest())


def unnamed(_, entries):
    entries.update({f"more/{number}.json.gz": b"" for number in range(3000)})


def named_twice(document, _):
    """A payload is stored once in the file, and would be for each page in the database."""
    [page] = document["estimators"][0]["pages"][:1]
    document["estimators"][0]["pages"] += [{**page, "page_number": number} for number in range(1000, 1100)]


def foreign(document, entries):
    """A payload of another writer, of which objects are made whenever it is read."""
    text = b'{"values":[' + b"[]," * (22 * 2**20) + b"null]}"
    entries[document["input"]["entry"]] = gzip.compress(text, 1)
    document["input"].update(size=len(text), sha256=hashlib.sha256(text).hexdigest())


HOSTILE = {
    "entries that nothing names": unnamed,
    "an entry of many pages": named_twice,
    "a large payload of another writer": foreign,
    "a name that leads elsewhere": setting(job_id="../../etc"),
    "an absolute name": setting(job_id="/etc/passwd"),
    "no name": setting(job_id=""),
    "dots": setting(job_id=".."),
    "a name with a line": setting(job_id="a\nb"),
    "an endless name": setting(job_id="a" * 300),
    "an entry elsewhere": lambda _, entries: entries.update({"../x": b""}),
    "an absolute entry": lambda _, entries: entries.update({"/x": b""}),
    "a payload of nobody": lambda document, _: document["input"].update(entry="/etc/passwd"),
    "an unknown state": setting(job_state="DANCING"),
    "a state that has not ended": setting(job_state="RUNNING"),
    "a task that has not ended": first("tasks", task_state="PENDING"),
    "a task that merges": first("tasks", task_state="MERGING_RUNNING"),
    "a history that leads elsewhere": setting(job_state="FAILED"),
    "an impossible history": first("history", from_state="COMPLETED", to_state="RUNNING"),
    "two tasks of one number": first("tasks", task_id=1),
    "a negative number": first("tasks", task_id=-1),
    "a number too large": first("tasks", requested_primaries=2**63),
    "a seed too large": first("tasks", seed=2**64),
    "a naive time": setting(start_time="2026-01-01T00:00:00"),
    "an end before the start": setting(end_time=(START - timedelta(days=1)).isoformat()),
    "a NUL": setting(title="a\0b"),
    "an endless title": setting(title="a" * 10_001),
    "a number for a title": setting(title=1),
    "an unknown platform": setting(platform="CLOUD"),
    "a cluster that it did not run on": setting(cluster_name=CLUSTER),
    "an update key": setting(update_key_hash="00" * 32),
    "half a simulation": lambda document, _: document.pop("tasks"),
    "a payload that is no gzip": input_of(b"x" * 40),
    "a payload that is cut short": input_of(codec.encode_payload(stores.INPUT).data[:-3]),
    "a payload with more behind it": input_of(codec.encode_payload(stores.INPUT).data + b"x"),
    "a payload of another digest": input_of(stores.INPUT, sha256="00" * 32),
    "a payload of another size": input_of(stores.INPUT, size=5),
    "a payload that says it is endless": input_of(stores.INPUT, size=2**62),
    "a payload that is no object": input_of([1]),
    "an input with a file elsewhere": input_of({"input_files": {"../../x": ""}}),
    "an input of no texts": input_of({"input_files": {"x": 1}}),
    "logs of no texts": lambda document, entries: (
        document.update(logfiles=[{**document["logfiles"][0], "entry": "x"}]),
        entries.update({"x": codec.encode_payload({"a.log": 1}).data}),
        document["logfiles"][0].update(size=11, sha256=hashlib.sha256(b'{"a.log":1}').hexdigest()),
    ),
    "a payload that inflates without end": bomb,
    "a payload that cannot be joined": unjoinable,
    "an entry that inflates without end": lambda _, entries: entries.update({"x/simulation.json": b" " * (64 * 2**20)}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_a_hostile_archive_changes_nothing(change, archive, there, tmp_path):
    forge(archive, tmp_path / "hostile.zip", change)
    before = contents(there.database)
    with pytest.raises((InvalidInput, Conflict)) as refused:
        archives.import_simulations(there, tmp_path / "hostile.zip", "bob")
    assert "\n" not in str(refused.value)
    assert contents(there.database) == before


def zeros(count: int):
    """A change of the first page to so many zeros: a thousandth of its text in bytes, as a scorer that nothing hit."""

    def change(document, entries):
        payload = document["estimators"][0]["pages"][0]["data"]
        made = codec.encode_payload({"values": np.zeros(count)})
        entries[payload["entry"]] = made.data
        payload.update(size=made.size, sha256=made.sha256)

    return change


def set_quota(backend: Backend, quota: int) -> None:
    with backend.database.writing() as connection:
        connection.execute(update(UserModel).where(UserModel.username == "bob").values(quota_bytes=quota))


@pytest.mark.parametrize("database", [MEMORY], indirect=True)
def test_a_page_of_zeros_is_taken_in(archive, there, tmp_path):
    forge(archive, tmp_path / "zeros.zip", zeros(10**6))
    set_quota(there, 10**6)
    assert archives.import_simulations(there, tmp_path / "zeros.zip", "bob").imported == BOTH


@pytest.mark.parametrize("database", [MEMORY], indirect=True)
def test_the_quota_counts_what_reading_costs(archive, there, tmp_path, monkeypatch):
    """15 kB that are 15 MB of text; nobody has to read them to find that out."""
    forge(archive, tmp_path / "zeros.zip", zeros(4 * 10**6))
    set_quota(there, 10**6)
    before = contents(there.database)
    monkeypatch.setattr(archives, "_check_payload", None)
    with pytest.raises(Conflict, match="delete some of them"):
        archives.import_simulations(there, tmp_path / "zeros.zip", "bob")
    assert contents(there.database) == before


@pytest.mark.parametrize("database", [MEMORY], indirect=True)
def test_what_is_taken_in_is_not_held_in_memory(archive, there, tmp_path):
    """64 MB of text."""
    forge(archive, tmp_path / "zeros.zip", zeros(16 * 10**6))
    tracemalloc.start()
    try:
        archives.import_simulations(there, tmp_path / "zeros.zip", "bob")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize("database", [MEMORY], indirect=True)
def test_a_payload_is_packed_once(archive, there, tmp_path):
    """Packed twice, 60 bytes may be 60 MB."""
    forge(archive, tmp_path / "twice.zip", zeros(10**6), all_deflated=True)
    before = contents(there.database)
    with pytest.raises(InvalidInput, match="too large"):
        archives.import_simulations(there, tmp_path / "twice.zip", "bob")
    assert contents(there.database) == before


@pytest.mark.parametrize("database", [MEMORY], indirect=True)
def test_an_archive_has_so_many_entries_at_most(home, archive, there, tmp_path, monkeypatch):
    """They are counted before the file is opened, and nobody writes what nobody takes in."""
    monkeypatch.setattr(archives, "FORMAT", structs.replace(archives.FORMAT, most_entries=5))
    with pytest.raises(InvalidInput, match="more than 5 entries"):
        archives.import_simulations(there, archive, "bob")
    with pytest.raises(Conflict, match="may have 5"):
        archives.export_simulations(at(home, tmp_path), BOTH, tmp_path / "many.zip")
    assert not (tmp_path / "many.zip").exists()


def test_a_forged_archive_with_no_change_is_taken(archive, there, tmp_path):
    forge(archive, tmp_path / "same.zip", setting())
    assert archives.import_simulations(there, tmp_path / "same.zip", "bob").imported == BOTH


@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_every_flipped_byte_is_noticed(archive, there, tmp_path):
    whole, damaged = archive.read_bytes(), tmp_path / "damaged.zip"
    before = contents(there.database)
    for offset in range(0, len(whole), 97):
        damaged.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        with pytest.raises(InvalidInput):
            archives.import_simulations(there, damaged, "bob")
        damaged.write_bytes(whole[:offset])
        with pytest.raises(InvalidInput):
            archives.import_simulations(there, damaged, "bob")
    assert contents(there.database) == before


@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_a_backup_is_no_archive(home, there, archive, tmp_path):
    backups.write_backup(home, tmp_path / "backup.zip")
    with pytest.raises(InvalidInput, match="not an archive of simulations"):
        archives.import_simulations(there, tmp_path / "backup.zip", "bob")
    with pytest.raises(InvalidInput, match="not a backup"):
        backups.verify_backup(archive)


@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_the_commands(home, database, tmp_path, monkeypatch):
    file, invoke = str(tmp_path / "a.zip"), CliRunner().invoke
    monkeypatch.setenv("YAPTIDE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", home.engine.url.render_as_string())
    made = invoke(cli.app, ["export", DIRECT_JOB, file, "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["simulations"] == [DIRECT_JOB]
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string())
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    taken = invoke(cli.app, ["import", file, "--json"])
    assert json.loads(taken.stdout) == {"user": "me", "imported": [DIRECT_JOB], "skipped": []}
    again = invoke(cli.app, ["import", file])
    assert "Imported 0 simulations for me; 1 existed already" in again.stderr
    unknown = invoke(cli.app, ["import", file, "--user", "typo"])
    assert isinstance(unknown.exception, NotFound)

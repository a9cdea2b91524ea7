"""Databases as left by the existing YAPTIDE backend, in each of its revisions, with invalid data that it allowed."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from werkzeug.security import generate_password_hash

#: Facts about its tables, as its own migrations made them.
_FACTS = (Path(__file__).parents[1] / "fixtures/older-backend.txt").read_text()

REVISIONS = tuple(re.search("^revisions: (.*)$", _FACTS, re.MULTILINE)[1].split())
NEWEST = REVISIONS[-1]
_NO_REVISION = "none"

NOW = datetime.now(UTC).replace(microsecond=0)
YEARS_AGO = NOW - timedelta(days=1200)
PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90aGluZyBzZWNyZXQ=\n-----END OPENSSH PRIVATE KEY-----\n"

#: As written by Python's json module.
PAGE_WITH_NAN = (
    '{"dimensions": 1, "data": {"name": "NaN Infinity \\" NaN", "unit": "", "values": [NaN, Infinity, -Infinity]}, '
)
PAGE_WITH_NAN += '"axis_dim1": {"name": "Z", "unit": "cm", "values": [0.0, 1.0, 2.0]}, "metadata": {"name": "LET"}}'


def packed(value: Any) -> bytes:
    """Return a payload."""
    return gzip.compress(json.dumps(value).encode(), mtime=0)


def page(number: int = 0, name: str = "DOSE", value: float = 0.1) -> dict[str, Any]:
    """Return a page with one axis."""
    return {
        "dimensions": 1,
        "data": {"name": name, "unit": "MeV/g", "values": [value, value * 2]},
        "axis_dim1": {"name": "Z", "unit": "cm", "values": [0.5, 1.5]},
        "metadata": {"page_number": str(number), "name": name},
    }


_TYPES = {"int": sa.Integer, "text": sa.String, "time": sa.DateTime(timezone=True), "bytes": sa.LargeBinary}
_UNIQUE = {
    "User": [("_username_provider_uc", "username", "auth_provider")],
    "Task": [("_simulation_id_task_id_uc", "simulation_id", "task_id")],
}
_TABLE = re.compile(r"^(?P<table>[A-Z]\w+)(?: \[(?P<revisions>.*)\])?: (?P<columns>.*)$", re.MULTILINE)
_COLUMN = re.compile(
    r"(?:id|key|(?P<name>\w+) (?P<type>\w+))(?P<required>!)?(?P<unique> unique)?(?:=(?P<default>\S+))?"
    r"(?:>(?P<parent>\w+)(?P<deletes>[+~])?)?"
)


def tables(revision: str | None) -> sa.MetaData:
    """Return the tables of a revision; without one, those that the application created itself."""
    metadata, wanted = sa.MetaData(), revision or _NO_REVISION
    for line in _TABLE.finditer(_FACTS):
        if line["revisions"] is None or wanted in line["revisions"].split():
            columns: list[sa.SchemaItem] = [_column(text, wanted) for text in line["columns"].split(", ")]
            for name, *unique in _UNIQUE.get(line["table"], ()):
                columns.append(sa.UniqueConstraint(*unique, name=name))
            sa.Table(line["table"], metadata, *columns)
    return metadata


def _column(text: str, revision: str) -> sa.Column[Any]:
    fact = _COLUMN.fullmatch(text)
    assert fact is not None, text
    references = []
    if fact["parent"]:
        deletes = fact["deletes"] == "+" or (fact["deletes"] == "~" and revision != REVISIONS[0])
        references.append(sa.ForeignKey(f"{fact['parent']}.id", ondelete="CASCADE" if deletes else None))
    if fact["name"] is None:
        return sa.Column("id", sa.Integer, *references, primary_key=True)
    default = None if fact["default"] is None else sa.text(fact["default"])
    options = {"nullable": not fact["required"], "unique": bool(fact["unique"]) or None, "server_default": default}
    return sa.Column(fact["name"], _TYPES[fact["type"]], *references, **options)


_ALEMBIC = "CREATE TABLE alembic_version (version_num VARCHAR(32) CONSTRAINT alembic_version_pkc PRIMARY KEY NOT NULL)"


class Old:
    """An old database to fill with rows."""

    def __init__(self, url: str, revision: str | None = NEWEST, *, foreign_keys: bool = True) -> None:
        self.url = url
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        if self.engine.dialect.name == "sqlite" and foreign_keys:
            sa.event.listen(self.engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
        self.tables = tables(revision)
        self.tables.create_all(self.engine)
        if revision is not None:
            with self.engine.begin() as connection:
                connection.exec_driver_sql(_ALEMBIC)
                connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")

    @property
    def is_sqlite(self) -> bool:
        """Whether it may contain orphans."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def filling(self) -> Iterator["Filler"]:
        """Open a transaction to add rows; sequences are adjusted afterwards."""
        with self.engine.begin() as connection:
            yield Filler(connection, self.tables.tables)
            if not self.is_sqlite:
                for name in self.tables.tables:
                    if connection.scalar(sa.text(f"SELECT pg_get_serial_sequence('\"{name}\"', 'id')")):
                        sequence = f"pg_get_serial_sequence('\"{name}\"', 'id')"
                        connection.execute(sa.text(f'SELECT setval({sequence}, max(id)) FROM "{name}"'))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table, and all definitions."""
        with self.engine.connect() as connection:
            names = sa.inspect(connection).get_table_names()
            rows = {
                name: sorted(map(tuple, connection.exec_driver_sql(f'SELECT * FROM "{name}"')), key=repr)
                for name in sorted(names)
            }
            return rows | {"definitions": definitions(connection)}


def definitions(connection: sa.Connection) -> list[tuple[Any, ...]]:
    """Return all definitions of tables, constraints, indexes and sequences."""
    if connection.dialect.name == "sqlite":
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"
    else:
        query = """
            SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod) || attnotnull::text
                || attstorage::text || coalesce(pg_get_expr(adbin, adrelid), '')
            FROM pg_attribute a
            JOIN pg_class c ON c.oid = attrelid AND relnamespace = 'public'::regnamespace AND relkind = 'r'
            LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
            WHERE attnum > 0 AND NOT attisdropped
            UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
            UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT 'sequence', '', sequencename, data_type::text
            FROM pg_sequences WHERE schemaname = 'public'
        """
    return sorted(map(tuple, connection.exec_driver_sql(query)), key=repr)


_hashed = cache(generate_password_hash)  # deliberately slow


class Filler:
    """Adds rows to an old database."""

    def __init__(self, connection: sa.Connection, tables: Mapping[str, sa.Table]) -> None:
        self.connection = connection
        self.tables = tables

    def add(self, name: str, /, **values: Any) -> int:
        """Add a row without columns that the revision does not have; return its id."""
        table = self.tables[name]
        known = {column: value for column, value in values.items() if column in table.c}
        done = self.connection.execute(sa.insert(table).values(known))
        return int(done.inserted_primary_key[0])

    def user(self, username: str, password: str = "", method: str = "scrypt:32768:8:1") -> int:
        """Add a user with a password."""
        number = self.add("User", username=username, auth_provider="YaptideUser")
        self.add("YaptideUser", id=number, password_hash=_hashed(password, method))
        return number

    def simulation(self, job_id: str, user_id: int | None, state: str = "COMPLETED", **values: Any) -> int:
        """Add a simulation on the platform DIRECT, without dependent rows."""
        start = values.setdefault("start_time", YEARS_AGO)
        values.setdefault("end_time", start and start + timedelta(hours=1))
        usual = {"title": f"Title of {job_id}", "input_type": "EDITOR", "sim_type": "shieldhit", "platform": "DIRECT"}
        number = self.add("Simulation", job_id=job_id, user_id=user_id, job_state=state, **(usual | values))
        if values.get("platform", "DIRECT") == "DIRECT":
            self.add("CelerySimulation", id=number, merge_id=f"merge-{job_id}")
        return number

    def task(self, simulation_id: int | None, task_id: int = 0, state: str = "COMPLETED", **values: Any) -> int:
        """Add a task."""
        usual = {"requested_primaries": 500, "simulated_primaries": 500, "platform": "DIRECT", "estimated_time": 0}
        usual |= {"start_time": YEARS_AGO, "end_time": YEARS_AGO + timedelta(minutes=50), "last_update_time": YEARS_AGO}
        values = usual | values
        number = self.add("Task", simulation_id=simulation_id, task_id=task_id, task_state=state, **values)
        if values["platform"] == "DIRECT":
            self.add("CeleryTask", id=number, celery_id=f"celery-{number}")
        else:
            self.add("BatchTask", id=number)
        return number

    def input(self, simulation_id: int | None, title: str = "first") -> int:
        """Add an input."""
        project = {
            "input_type": "editor",
            "number_of_all_primaries": 1000,
            "input_files": {},
            "input_json": {"t": title},
        }
        return self.add("Input", simulation_id=simulation_id, compressed_data=packed(project))

    def estimator(self, simulation_id: int, name: str = "dose", *pages: Any) -> int:
        """Add an estimator with pages, given as values, or as stored bytes."""
        metadata = packed({"name": f"{name}_", "number_of_primaries": "1000"})
        usual = {"name": name, "file_name": f"{name}_", "compressed_data": metadata}
        number = self.add("Estimator", simulation_id=simulation_id, **usual)
        for position, value in enumerate(pages):
            self.page(number, position, value)
        return number

    def page(self, estimator_id: int, number: int, value: Any) -> int:
        """Add a page."""
        stored = packed(value) if isinstance(value, dict) else value
        name = value["metadata"]["name"] if isinstance(value, dict) else "LET"
        usual = {"page_name": name, "page_dimension": 1, "compressed_data": stored}
        return self.add("Page", estimator_id=estimator_id, page_number=number, **usual)

    def logfiles(self, simulation_id: int, **texts: str) -> int:
        """Add log files."""
        return self.add("Logfiles", simulation_id=simulation_id, compressed_data=packed(texts))


def fill(filler: Filler) -> None:
    """Add everything that can occur in a database of either kind."""
    alice = filler.user("alice", PASSWORDS["alice"])
    bob = filler.user("bob", PASSWORDS["bob"], "pbkdf2:sha256:1000")
    carol = filler.add("User", username="carol", auth_provider="KeycloakUser")
    filler.add("KeycloakUser", id=carol, cert="ssh-cert", private_key=PRIVATE_KEY)
    filler.add("User", username="dave", auth_provider="YaptideUser")  # without credentials

    clusters = [filler.add("Cluster", cluster_name=name) for name in ("ares", "ares", "helios")]
    _whole(filler, alice)
    _odd_states(filler, alice)
    _met_posts(filler, bob)
    _odd_payloads(filler, alice)
    _odd_numbers(filler, bob)
    for position, cluster in enumerate(clusters):
        number = filler.simulation(f"batch-{position}", carol, platform="BATCH")
        values = {"job_dir": f"scratch/{position}", "array_id": 100 + position, "collect_id": 200 + position}
        filler.add("BatchSimulation", id=number, cluster_id=cluster, **values)
        filler.task(number, 1, platform="BATCH")
        filler.input(number)
    nobody = filler.simulation("nobodys", None)
    filler.input(nobody)
    filler.task(None, 0)
    filler.task(None, 0, "RUNNING")
    filler.input(None, "of no simulation")


def _whole(filler: Filler, user: int) -> None:
    number = filler.simulation("whole", user)
    filler.task(number, 0)
    filler.task(number, 1, "RUNNING", simulated_primaries=400, end_time=None)
    filler.input(number)
    filler.estimator(number, "dose", page(0), page(1, "LET"))
    filler.estimator(number, "fluence", page(0, "FLUENCE"))
    filler.logfiles(number, **{"run.log": "all is well"})


def _odd_states(filler: Filler, user: int) -> None:
    recently = NOW - timedelta(hours=1)
    for job_id, state, start in (
        ("years", "RUNNING", YEARS_AGO),
        ("queued", "PENDING", YEARS_AGO),
        ("merging", "MERGING_RUNNING", YEARS_AGO),
        ("hour", "RUNNING", recently),
        ("no-state", "SUBMITTED", YEARS_AGO),
        ("no-state-results", "CANCELLED", YEARS_AGO),
        ("lower", "completed", YEARS_AGO),
        ("failed", "FAILED", YEARS_AGO),
        ("canceled", "CANCELED", YEARS_AGO),
    ):
        final = state in ("FAILED", "CANCELED", "completed", "CANCELLED")
        number = filler.simulation(job_id, user, state, start_time=start, **({} if final else {"end_time": None}))
        filler.input(number)
        filler.task(number, 0, "RUNNING", start_time=start, end_time=None, last_update_time=start)
        filler.task(number, 1, "MERGING_RUNNING", start_time=start, end_time=None, last_update_time=start)
        filler.task(number, 2, "HUNG", simulated_primaries=3, start_time=None, end_time=None, last_update_time=None)
        if job_id.endswith("results"):
            filler.estimator(number, "dose", page(0))


def _met_posts(filler: Filler, user: int) -> None:
    number = filler.simulation("met", user)
    for title in ("older", "older", "newest"):
        filler.input(number, title)
    for value in (0.1, 0.2):
        filler.estimator(number, "dose", page(0, value=value), page(1, value=value))
    twice = filler.estimator(number, "twice", page(0))
    for value in (0.3, 0.3):
        filler.page(twice, 0, page(0, value=value))
    filler.page(twice, -1, page(0, value=0.4))
    filler.estimator(number, "no pages")
    for text in ("first", "first", "second"):
        filler.logfiles(number, **{f"{text}.log": text})


def _odd_payloads(filler: Filler, user: int) -> None:
    number = filler.simulation("odd-payloads", user)
    filler.add("Input", simulation_id=number, compressed_data=None)
    filler.estimator(number, "nan", gzip.compress(PAGE_WITH_NAN.encode(), mtime=0), None, b"")
    filler.add("Estimator", simulation_id=number, name="", file_name="", compressed_data=None)
    filler.add("Logfiles", simulation_id=number, compressed_data=b"")
    filler.add("Logfiles", simulation_id=number, compressed_data=packed(["a", "list"]))
    filler.add("Logfiles", simulation_id=number, compressed_data=b"no gzip")
    filler.add("Logfiles", simulation_id=number, compressed_data=packed({"value.log": float("nan")}))
    damaged = filler.simulation("damaged", user)
    filler.input(damaged)
    filler.estimator(damaged, "dose", packed(page(0))[:-9])


def _odd_numbers(filler: Filler, user: int) -> None:
    number = filler.simulation("odd-numbers", user, end_time=YEARS_AGO - timedelta(days=1), title="t" * 5000)
    filler.task(number, 0, simulated_primaries=-5)
    filler.task(number, 1, simulated_primaries=900)
    filler.task(number, 2, end_time=YEARS_AGO - timedelta(days=2), estimated_time=-1)
    filler.task(number, -3, requested_primaries=-1, platform="SLURM")
    filler.simulation("odd-words", user, platform="NOWHERE", input_type="JSON", start_time=None, end_time=None)


def fill_orphans(filler: Filler) -> None:
    """Add orphans of every kind, which SQLite keeps without foreign keys."""
    filler.simulation("gone-user", 987)
    filler.add("YaptideUser", id=901, password_hash="scrypt:1:1:1$a$b")
    filler.add("KeycloakUser", id=902, cert=None, private_key=PRIVATE_KEY)
    filler.add("KeycloakUser", id=903)
    filler.add("CelerySimulation", id=911)
    filler.add("CelerySimulation", id=912, merge_id="merge")
    filler.add("BatchSimulation", id=913, cluster_id=921, job_dir="scratch/913")
    filler.add("BatchTask", id=931)
    filler.add("CeleryTask", id=932, celery_id="celery-932")
    filler.task(941, 7)
    filler.input(942, "orphan")
    filler.add("Input", simulation_id=943, compressed_data=None)
    filler.logfiles(944, **{"orphan.log": "text"})
    filler.estimator(945, "orphan", page(0, value=0.7))
    filler.page(951, 0, page(0, value=0.8))
    filler.page(951, 0, page(0, value=0.9))

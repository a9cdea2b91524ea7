"""What surrounds the old tables on a PostgreSQL server survives: views, privileges, owners; or nothing is changed."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.legacy import Old
from tests.support.postgres import Postgres
from yaptide.domain.errors import Conflict
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import adoption, secrets
from yaptide.services.adoption import Report
from yaptide.services.secrets import Vault

VAULT = Vault([secrets.new_key()])

ROLES = ("legacy_owner", "legacy_reader", "legacy_writer", "Legacy Viewer")


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """The address of an empty database, and roles that exist only during the test."""
    created = postgres.create_database()
    with postgres.connect() as connection:
        for role in ROLES:
            connection.execute(f'CREATE ROLE "{role}" LOGIN')
    yield created
    postgres.drop_database(created)
    with postgres.connect() as connection:
        for role in ROLES:
            connection.execute(f'DROP ROLE "{role}"')


@pytest.fixture
def old(url: str) -> Old:
    """An old database with a simulation."""
    return small(url)


def small(url: str) -> Old:
    old = Old(url)
    with old.filling() as filler:
        number = filler.simulation("whole", filler.user("alice", "secret", "pbkdf2:sha256:1"))
        filler.task(number)
        filler.input(number)
    return old


def run(old: Old, *statements: str) -> None:
    with old.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def as_role(url: str, role: str) -> str:
    return sa.make_url(url).set(username=role).render_as_string(hide_password=False)


def adopt(url: str, *, dry_run: bool = False) -> Report:
    database = Database(url)
    try:
        options: Any = {"stale_after": timedelta(days=7), "progress": lambda *_: None}
        return adoption.adopt_database(database, VAULT, dry_run=dry_run, **options)
    finally:
        database.close()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    database = Database(url)
    try:
        with database.reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]
    finally:
        database.close()


def refused(old: Old, url: str, *words: str) -> None:
    """Check that nothing is changed, and that one line says why."""
    before = old.rows()
    with pytest.raises(Conflict) as caught:
        adopt(url)
    for word in (*words, "othing was changed"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert old.rows() == before


def test_privileges_are_granted_again_and_named(old, url):
    run(
        old,
        'GRANT SELECT ON "Simulation", "Task" TO legacy_reader',
        'GRANT SELECT (id, username) ON "User" TO legacy_reader WITH GRANT OPTION',
        'GRANT SELECT, INSERT, UPDATE ON "Task" TO legacy_writer',
        'GRANT USAGE ON SEQUENCE "Task_id_seq" TO legacy_writer',
        'GRANT SELECT ON "Cluster" TO PUBLIC',
        "GRANT SELECT ON alembic_version TO legacy_reader",
    )
    report = adopt(url)
    reader, writer = as_role(url, "legacy_reader"), as_role(url, "legacy_writer")
    assert rows(reader, 'SELECT job_id FROM "Simulation"') == [("whole",)]
    assert rows(reader, 'SELECT username FROM "User"') == [("alice",)]
    assert rows(reader, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]
    assert rows(writer, "SELECT has_sequence_privilege('\"Task_id_seq\"', 'USAGE')") == [(True,)]
    assert rows(writer, "SELECT has_table_privilege('\"Task\"', 'INSERT')") == [(True,)]
    assert rows(writer, "SELECT has_table_privilege('\"Cluster\"', 'SELECT')") == [(True,)]
    assert rows(reader, "SELECT has_table_privilege('\"KeycloakUser\"', 'SELECT')") == [(False,)]
    granted = {(entry.where, entry.whose): entry.what for entry in report.decisions if "Privileges" in entry.where}
    assert granted["Privileges Task", "legacy_writer"] == "granted again: INSERT, SELECT, UPDATE"
    options = "SELECT (id) WITH GRANT OPTION, SELECT (username) WITH GRANT OPTION"
    assert granted["Privileges User", "legacy_reader"] == f"granted again: {options}"
    assert granted["Privileges Cluster", "PUBLIC"] == "granted again: SELECT"


def test_views_are_created_again_as_they_were(old, url):
    run(
        old,
        "CREATE SCHEMA reports",
        "GRANT USAGE ON SCHEMA reports TO legacy_reader",
        'GRANT USAGE, CREATE ON SCHEMA reports, public TO "Legacy Viewer"',
        'GRANT SELECT ON "Simulation", "Task" TO "Legacy Viewer"',
        'SET ROLE "Legacy Viewer"',
        "CREATE VIEW reports.jobs WITH (security_barrier=true) AS SELECT * FROM \"Simulation\" WHERE title LIKE '%%'",
        "COMMENT ON VIEW reports.jobs IS 'what 100%% of us read'",
        'CREATE VIEW public."All" AS SELECT job_id, t.task_id + 1 AS n FROM reports.jobs j, "Task" t '
        "WHERE t.simulation_id = j.id",
        "GRANT SELECT ON reports.jobs TO legacy_reader",
        'GRANT SELECT (job_id) ON public."All" TO legacy_reader',
    )
    query = """SELECT c.oid::regclass::text, relowner::regrole::text, reloptions, obj_description(c.oid, 'pg_class'),
        pg_get_viewdef(c.oid) FROM pg_class c WHERE relkind = 'v' AND relnamespace::regnamespace::text
        IN ('public', 'reports') AND relname <> 'SimulationCount' ORDER BY 1"""
    before = rows(url, query)
    assert len(before) == 2
    tried = adopt(url, dry_run=True)
    assert rows(url, query) == before
    report = adopt(url)
    assert tried.decisions == report.decisions
    assert rows(url, query) == before
    reader = as_role(url, "legacy_reader")
    assert rows(reader, "SELECT job_id FROM reports.jobs") == [("whole",)]
    assert rows(reader, 'SELECT job_id FROM "All"') == [("whole",)]
    created = [entry.where for entry in report.decisions if entry.what == "created again"]
    assert created == ["View reports.jobs", 'View public."All"']


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (['CREATE MATERIALIZED VIEW kept AS SELECT id FROM "Task"'], ["public.kept is a materialized view"]),
        (
            ['CREATE SCHEMA other; CREATE TABLE other.notes (task int REFERENCES "Task")'],
            ["notes_task_fkey", "pg_dump"],
        ),
        (
            [
                "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
                'CREATE TRIGGER noting AFTER INSERT ON "Task" FOR EACH ROW EXECUTE FUNCTION noted()',
            ],
            ["trigger noting"],
        ),
        (['CREATE INDEX faster ON "Task" (task_state)'], ["index faster"]),
        (['ALTER TABLE "Task" ENABLE ROW LEVEL SECURITY'], ["row security of table Task"]),
        (['CREATE POLICY own ON "Task" USING (true)'], ["policy own"]),
        (["CREATE FUNCTION tasks() RETURNS SETOF \"Task\" LANGUAGE plpgsql AS 'BEGIN END'"], ["function tasks()"]),
        (['ALTER TABLE "Task" ADD CONSTRAINT positive CHECK (id > 0)'], ["constraint positive"]),
        (['CREATE RULE quiet AS ON DELETE TO "Task" DO INSTEAD NOTHING'], ["rule quiet"]),
        (['CREATE PUBLICATION copies FOR TABLE "Task"'], ["publication copies"]),
        (['ALTER TABLE "Task" OWNER TO legacy_owner'], ["legacy_owner, postgres"]),
    ],
)
def test_what_would_be_lost_is_refused_before_the_work(statements, words, old, url):
    run(old, *statements)
    refused(old, url, *words)


def test_triggers_and_indexes_in_a_file_are_refused_before_the_work(tmp_path: Path):
    """They would disappear with the old tables; those of views stay, as do the views."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    old = small(url)
    run(
        old,
        'CREATE INDEX faster ON "Task" (task_state)',
        'CREATE TRIGGER noting AFTER INSERT ON "Task" BEGIN SELECT 1; END',
        'CREATE VIEW jobs AS SELECT job_id FROM "Simulation"',
        "CREATE TRIGGER quiet INSTEAD OF INSERT ON jobs BEGIN SELECT 1; END",
    )
    refused(old, url, "lost with its old tables: index faster of table Task; trigger noting of table Task", ".schema")
    run(old, "DROP INDEX faster", "DROP TRIGGER noting")
    assert adopt(url).adopted
    assert rows(url, "SELECT job_id FROM jobs") == [("whole",)]
    assert rows(url, "SELECT name FROM sqlite_master WHERE tbl_name = 'jobs' ORDER BY 1") == [("jobs",), ("quiet",)]


def give_to_owner(old: Old) -> None:
    tables = [*old.tables.tables, "alembic_version"]
    run(old, "GRANT ALL ON SCHEMA public TO legacy_owner")
    run(old, *(f'ALTER TABLE "{table}" OWNER TO legacy_owner' for table in tables))


def test_the_new_tables_belong_to_the_owner_of_the_old_ones(old, url):
    give_to_owner(old)
    adopt(url)  # as a superuser
    query = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert rows(url, query) == [("legacy_owner",)]
    assert rows(as_role(url, "legacy_owner"), 'SELECT job_id FROM "Simulation"') == [("whole",)]


def test_another_role_than_the_owner_is_refused(old, url):
    give_to_owner(old)
    run(old, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO legacy_writer")
    refused(old, as_role(url, "legacy_writer"), "its tables belong to the role legacy_owner")


def test_an_owner_who_cannot_create_tables_is_refused(old, url):
    give_to_owner(old)
    run(old, "REVOKE ALL ON SCHEMA public FROM legacy_owner", "GRANT USAGE ON SCHEMA public TO legacy_owner")
    refused(old, as_role(url, "legacy_owner"), "GRANT CREATE ON SCHEMA public TO legacy_owner")


def in_schema(url: str) -> str:
    return sa.make_url(url).update_query_dict({"options": "-csearch_path=legacy"}).render_as_string(False)


def test_a_schema_other_than_public(old, url):
    run(old, "ALTER SCHEMA public RENAME TO legacy", "CREATE SCHEMA public")
    run(old, "CREATE TABLE public.orders (id int)", 'CREATE VIEW legacy.ids AS SELECT id FROM legacy."Task"')
    with pytest.raises(Conflict, match="SET search_path = legacy"):
        adopt(url)
    adopt(in_schema(url))
    database = Database(in_schema(url))
    assert schema.schema_condition(database) is schema.Condition.CURRENT
    assert schema.schema_differences(database) == []
    database.close()
    assert rows(url, "SELECT id FROM legacy.ids") == [(1,)]
    assert rows(url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [("orders",)]


def test_the_revision_of_another_application_is_not_taken_for_ours(url):
    old = Old(url, None)
    run(old, "ALTER SCHEMA public RENAME TO legacy", "CREATE SCHEMA public")
    run(old, "CREATE TABLE public.alembic_version (version_num text)")
    both = sa.make_url(url).update_query_dict({"options": "-csearch_path=legacy,public"}).render_as_string(False)
    with pytest.raises(Conflict, match="alembic_version of another application"):
        adopt(both)
    assert rows(url, "SELECT count(*) FROM public.alembic_version") == [(0,)]


def test_the_second_of_two_at_once_changes_nothing_and_says_so(old, url, monkeypatch):
    """It is refused while the first one works, and finds its work done afterwards."""
    second: list[BaseException] = []

    def try_second(*_: object) -> None:
        if not second:
            with pytest.raises(Conflict) as caught:
                adopt(url)
            second.append(caught.value)

    database = Database(url)
    options: Any = {"stale_after": timedelta(days=7), "progress": try_second}
    assert adoption.adopt_database(database, VAULT, dry_run=False, **options).adopted
    database.close()
    assert "Another yaptide db adopt or db upgrade is changing this database; this one has changed" in str(second[0])
    assert not adopt(url).adopted


def test_a_backend_that_still_runs_is_named(old, url, monkeypatch):
    monkeypatch.setattr("yaptide.persistence.adoption.server._PATIENCE", 1)
    with old.engine.connect() as running:
        running.exec_driver_sql('SELECT * FROM "Simulation"')
        refused(old, url, "another program has used its tables for 1 s", "Stop the old backend")


def test_two_at_once_on_a_file(tmp_path: Path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    small(url)
    monkeypatch.setattr("yaptide.persistence.engine.BUSY_TIMEOUT", 0.1)
    second: list[str] = []

    def try_second(*_: object) -> None:
        if not second:
            thread = threading.Thread(target=lambda: second.append(failure(url)))
            thread.start()
            thread.join()

    database = Database(url)
    options: Any = {"stale_after": timedelta(days=7), "progress": try_second}
    assert adoption.adopt_database(database, VAULT, dry_run=False, **options).adopted
    database.close()
    assert "Another program is writing to the database; this one has changed nothing" in second[0]
    assert not adopt(url).adopted


def failure(url: str) -> str:
    with pytest.raises(Conflict) as caught:
        adopt(url)
    return str(caught.value)

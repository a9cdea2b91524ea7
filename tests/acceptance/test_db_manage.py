"""`yaptide/admin/db_manage.py` as it is used: from a checkout, on machines where little is installed."""

import json
import os
import site
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.api import counts, submit
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.persistence.queries import users
from yaptide.services import administration, passwords
from yaptide.services.passwords import Match

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "yaptide/admin/db_manage.py"

#: SQLAlchemy, a driver and typer, with what they bring.
ALLOWED = {
    *("sqlalchemy", "greenlet", "typing_extensions", "psycopg", "psycopg_binary", "psycopg_c"),
    *("typer", "rich", "pygments", "markdown_it", "mdurl", "shellingham", "annotated_doc"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),  # typer checks arguments with it
}
#: Refuses all other libraries. -S leaves out what pip has installed, and with it yaptide itself: only the script's own
#: place can lead to it.
BARE = f"""
import runpy, sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages_distributions().keys() - ALLOWED - {"yaptide", "yaptide_client"}!r}:
            raise ModuleNotFoundError("not installed here: " + name, name=name)
sys.meta_path.insert(0, Bare())
sys.path.append({site.getsitepackages()[0]!r})
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

on_both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
#: Where the database is another one, which the test names.
elsewhere = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def environment(database: Database, tmp_path):
    return {
        "FLASK_SQLALCHEMY_DATABASE_URI": database.engine.url.render_as_string(hide_password=False),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }


@pytest.fixture
def manage(environment, tmp_path):
    """Runs the script where nothing but `ALLOWED` can be imported."""

    def run(*words, answers=""):
        command = [sys.executable, "-S", "-c", BARE, str(SCRIPT), *map(str, words)]
        return subprocess.run(
            command, env=environment, input=answers, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def printed(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@on_both
def test_every_command_works_where_little_is_installed(manage, job, backend, database):
    job.bring_to("COMPLETED")
    assert manage("add-user", "bob", "--password-file", "-", answers="long secret\n").stderr == "Added user bob\n"
    with database.reading() as connection:
        stored = users.local_user(connection, "bob").password_hash
    assert stored.startswith("scrypt:")
    assert passwords.verify_password(stored, "long secret") is Match.OUTDATED
    assert manage("update-user", "bob", "--quota", "1MB", "--new-name", "rob").returncode == 0
    listed = printed(manage("list-users", "--json"))["users"]
    assert [(user["username"], user["simulations"]) for user in listed] == [("alice", 1), ("rob", 0)]
    assert printed(manage("list-simulations", "--json"))["simulations"][0]["job_id"] == job.job_id
    assert printed(manage("list-tasks", job.job_id, "--json"))["tasks_count"] == 2
    assert manage("remove-task", job.job_id, 0, "--yes").returncode == 0
    assert manage("remove-simulation", job.job_id, "--yes").returncode == 0
    assert manage("remove-user", "rob", answers="y\n").returncode == 0
    assert manage("add-cluster", "ares", "--host", "login.example.org").returncode == 0
    assert printed(manage("list-clusters", "--json"))["clusters"][0]["host"] == "login.example.org"
    kept = {"User": 1, "YaptideUser": 1, "Session": 1, "Cluster": 1, "Runner": 2, "RunnerSimulator": 1}
    assert {name: count for name, count in counts(database).items() if count} == kept


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_command_lines_of_the_older_backend_work_with_a_warning(manage, job, other_job, database):
    for each in (job, other_job):
        each.bring_to("COMPLETED")
    with database.reading() as connection:
        ids = dict(connection.exec_driver_sql('SELECT job_id, id FROM "Simulation"').all())
    warning = "Warning: this is a command line of an older version; today: db_manage.py "

    def run(*words):
        done = manage(*words)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(warning)
        return done

    assert run("add-user", "bob", "--password", "long secret", "-v").stderr.endswith("Added user bob\n")
    assert "another secret" not in run("update-user", "bob", "--password=another secret", "-vv").stderr
    with database.reading() as connection:
        stored = users.local_user(connection, "bob").password_hash
    assert passwords.verify_password(stored, "another secret") is Match.OUTDATED
    run("list-users", "-v")
    assert printed(run("list-tasks", "--sim_id", ids[job.job_id], "--json"))["tasks_count"] == 2
    assert printed(manage("list-tasks", "--user", "alice", "--json"))["tasks_count"] == 4
    assert printed(manage("list-tasks", "--user", "bob", "--json"))["tasks_count"] == 0
    assert printed(run("list-simulations", "--auth-provider", "YaptideUser", "--json"))["simulations_count"] == 2
    assert printed(run("list-simulations", "--auth-provider", "KeycloakUser", "--json"))["simulations_count"] == 0
    run("remove-task", ids[job.job_id], 1)  # exactly one, without a question
    assert printed(manage("list-tasks", job.job_id, "--json"))["tasks_count"] == 1
    assert printed(manage("list-tasks", other_job.job_id, "--json"))["tasks_count"] == 2
    run("remove-simulation", ids[other_job.job_id], "-v")
    assert [row["job_id"] for row in printed(manage("list-simulations", "--json"))["simulations"]] == [job.job_id]
    run("remove-user", "bob", "YaptideUser")
    assert counts(database)["User"] == 1
    refused(manage("remove-simulation", 2**40), "does not exist")
    assert manage("remove-simulation", job.job_id).returncode == 1  # today's form still asks


@pytest.fixture
def other_job(signed_in):
    """A second simulation of the same user."""
    return submit(signed_in)


@on_both
@pytest.mark.parametrize("start", [[], [sys.executable]], ids=["by itself", "by Python"])
def test_it_can_be_started_from_a_checkout(start, environment, tmp_path):
    name = SCRIPT.relative_to(ROOT)
    command = [*start, f"./{name}" if not start else str(name), "list-users"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "provider" in done.stdout


@on_both
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "was not created by this version of yaptide"),
        ("DROP TABLE alembic_version", "was not created by this version of yaptide"),
    ],
)
def test_a_database_that_is_not_ours_is_left_alone(manage, empty_copy, environment, damage, message):
    environment["FLASK_SQLALCHEMY_DATABASE_URI"] = empty_copy(damage)
    refused(manage("add-user", "bob", "--password-on-command-line", "x"), message)


def refused(done, message):
    assert done.returncode == 1
    line = done.stderr.removeprefix("Warning: ").splitlines()[-1]
    assert line.startswith("Error: ")
    assert message in line
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.fixture
def empty_copy(request, tmp_path, database):
    """Makes a database of the same kind with our tables, and damages it; its URL."""
    made = []

    def make(damage):
        if database.is_sqlite:
            url = f"sqlite:///{tmp_path / 'other.db'}"
        else:
            url = request.getfixturevalue("postgres").create_database()
        other = Database(url)
        schema.upgrade_tables(other)
        with other.writing() as connection:
            connection.exec_driver_sql(damage)
        made.append(other)
        return url

    yield make
    for other in made:
        other.close()
        if not other.is_sqlite:
            request.getfixturevalue("postgres").drop_database(other.engine.url.render_as_string(hide_password=False))


@elsewhere
def test_a_file_that_is_not_ours_stays_as_it_is(manage, environment, tmp_path):
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
        connection.commit()
    before = file.read_bytes()
    environment["FLASK_SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{file}"
    refused(manage("list-users"), "was not created by this version of yaptide")
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.glob("other*")} == {"other.db"}


@elsewhere
def test_wrong_urls_are_one_line(manage, environment, tmp_path):
    for url, message in (
        ("", "Set FLASK_SQLALCHEMY_DATABASE_URI"),
        ("nonsense", "Invalid database URL"),
        ("mysql://localhost/yaptide", "Unsupported database"),
        (f"sqlite:///{tmp_path}/missing.db", "No such database file"),
        ("postgresql://127.0.0.1:1/yaptide", "The database is not available"),
        (f"sqlite:///{SCRIPT}", "file is not a database"),
    ):
        environment["FLASK_SQLALCHEMY_DATABASE_URI"] = url
        refused(manage("list-users"), message)
    assert not (tmp_path / "missing.db").exists()


@on_both
def test_a_name_of_both_providers_is_one_line(manage, database):
    administration.add_user(database, "alice", None)
    with database.writing() as connection:
        connection.exec_driver_sql("""INSERT INTO "User" (username, auth_provider) VALUES ('alice', 'KeycloakUser')""")
    refused(manage("remove-user", "alice", "--yes"), "There are two users 'alice'")
    assert counts(database)["User"] == 2

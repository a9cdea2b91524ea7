"""Administration: what is listed, what goes with what is removed, and that nothing else goes."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import insert, text
from typer.testing import CliRunner

from tests.support import payloads
from tests.support.api import PASSWORD, contents, counts, submit
from yaptide.admin import arguments, cli
from yaptide.domain.ages import parse_age
from yaptide.domain.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, YaptideError
from yaptide.domain.states import EntityState
from yaptide.persistence.models import KeycloakUserModel, UserModel
from yaptide.persistence.models.base import table_of
from yaptide.services import administration, simulations, users as user_services
from yaptide.services.access import ADMINISTRATOR

FILE = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def namesake(database):
    """A user of Keycloak who is called alice too."""
    with database.writing() as connection:
        values = {"username": "alice", "auth_provider": "KeycloakUser"}
        user_id = connection.execute(insert(table_of(UserModel)).returning(table_of(UserModel).c.id), values).scalar()
        connection.execute(insert(table_of(KeycloakUserModel)), {"id": user_id})
    return administration.find_user(database, "alice", "KeycloakUser")


@pytest.fixture
def yaptide(database, monkeypatch):
    """Runs a command of `yaptide` on the database; errors that `yaptide` would print are raised."""
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words, answers=""):
        done = CliRunner().invoke(cli.app, [str(word) for word in words], input=answers)
        if isinstance(done.exception, YaptideError):
            raise done.exception
        return done

    return run


def printed(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_users_are_listed_with_what_they_store(job, database):
    job.bring_to("COMPLETED")
    administration.add_user(database, "bob", None, quota=10)
    alice, bob = administration.list_users(database)
    assert alice[1:] == ("alice", "YaptideUser", 1, sum_of_payloads(database), None, None, None)
    assert bob[1:] == ("bob", "YaptideUser", 0, 0, 10, None, None)


def sum_of_payloads(database):
    tables = ("Input", "Estimator", "Page", "Logfiles")
    with database.reading() as connection:
        return sum(
            connection.execute(text(f'SELECT COALESCE(SUM(LENGTH(compressed_data)), 0) FROM "{table}"')).scalar_one()
            for table in tables
        )


def test_removing_a_user_takes_what_was_seen_and_nothing_else(job, stranger, database):
    other = submit(stranger)
    alice = administration.find_user(database, "alice")
    kept = {name: [row for row in rows if other.job_id in row] for name, rows in contents(database).items()}
    seen = administration.count_holdings(database, alice)
    assert (seen.simulations, seen.open) == (1, 1)
    administration.remove_user(database, alice, seen)
    assert {name: [row for row in rows if other.job_id in row] for name, rows in contents(database).items()} == kept
    assert counts(database)["Simulation"] == 1
    assert counts(database)["Task"] == 2
    assert other.state == "PENDING"


def test_a_user_who_has_more_than_was_seen_stays(job, signed_in, database):
    alice = administration.find_user(database, "alice")
    seen = administration.count_holdings(database, alice)
    submit(signed_in)
    before = contents(database)
    with pytest.raises(Conflict, match="nothing was removed"):
        administration.remove_user(database, alice, seen)
    assert contents(database) == before


def test_a_name_that_two_providers_have_is_refused(job, namesake, database):
    with pytest.raises(Conflict, match="--provider KeycloakUser or YaptideUser"):
        administration.find_user(database, "alice")
    assert administration.find_user(database, "alice", "YaptideUser").id != namesake.id
    with pytest.raises(NotFound):
        administration.find_user(database, "bob", "YaptideUser")
    with pytest.raises(Conflict, match="Keycloak"):
        administration.set_password(database, namesake, "secret")
    administration.remove_user(database, namesake, administration.count_holdings(database, namesake))
    assert job.state == "PENDING"


def test_names_that_no_database_takes_are_not_found(database):
    for name in ("\udcff", "a\0", "a\nb"):
        with pytest.raises(NotFound):
            administration.find_user(database, name)
        with pytest.raises(NotFound):
            administration.count_contents(database, name)
        with pytest.raises(InvalidInput):
            administration.add_user(database, name, None)


def test_a_user_is_changed(signed_in, stranger, app, backend, database):
    alice = administration.find_user(database, "alice")
    administration.set_password(database, alice, "another one")
    with pytest.raises(NotAuthenticated):
        user_services.check_password(backend, "alice", PASSWORD)
    assert user_services.check_password(backend, "alice", "another one") == alice
    assert signed_in.get("/user/simulations").status_code == 403  # all sessions have ended
    with pytest.raises(Conflict, match="'mallory' already"):
        administration.rename_user(database, alice, "mallory")
    administration.rename_user(database, alice, "alicia")
    assert user_services.check_password(backend, "alicia", "another one").id == alice.id


def test_a_quota_refuses_a_submission_and_nothing_else(job, signed_in, database):
    alice = administration.find_user(database, "alice")
    used = administration.count_holdings(database, alice).stored_bytes
    administration.set_quota(database, alice, used)
    before = contents(database)
    refused = signed_in.post("/jobs/direct", json=payloads.submission())
    assert refused.status_code == 409
    assert refused.json == {"message": f"Your simulations use {used} of {used} bytes: delete some of them first"}
    assert contents(database) == before
    job.bring_to("COMPLETED")  # results are taken in any case
    administration.set_quota(database, alice, 10 * used)
    submit(signed_in)
    administration.set_quota(database, alice, None)
    submit(signed_in)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "MERGING_QUEUED", "COMPLETED", "FAILED", "CANCELED"])
def test_a_simulation_is_removed_whole_unless_it_may_run(job, signed_in, database, state):
    other = submit(signed_in)
    before = counts(database)
    job.bring_to(state)
    seen = administration.count_contents(database, job.job_id)
    assert (seen.job_state, seen.tasks, seen.pages) == (state, 2, int(state == "COMPLETED"))
    if state in ("PENDING", "RUNNING"):
        with pytest.raises(Conflict, match=f"It is {state}: cancel it first"):
            administration.remove_simulation(database, job.job_id, seen)
        administration.remove_simulation(database, job.job_id, seen, force=True)
    else:
        administration.remove_simulation(database, job.job_id, seen)
    after = counts(database)
    assert after == before | {
        "Simulation": 1,
        "CelerySimulation": 1,
        "Input": 1,
        "Task": 2,
        "CeleryTask": 2,
        "StateHistory": 3,
    }
    assert other.state == "PENDING"
    with pytest.raises(NotFound):
        administration.count_contents(database, job.job_id)


def test_a_simulation_that_went_on_stays(job, database):
    seen = administration.count_contents(database, job.job_id)
    job.bring_to("COMPLETED")
    with pytest.raises(Conflict, match="nothing was removed"):
        administration.remove_simulation(database, job.job_id, seen)
    assert job.state == "COMPLETED"


def remove_task(database, job, task_id):
    administration.remove_task(database, job.job_id, task_id, administration.find_task(database, job.job_id, task_id))


def test_a_task_is_removed_from_its_own_simulation(job, signed_in, database):
    other = submit(signed_in).bring_to("COMPLETED")
    job.bring_to("COMPLETED")
    results = job.get("/results").json
    remove_task(database, job, 0)
    assert [task["task_id"] for task in job.status["job_tasks_status"]] == [1]
    assert [task["task_id"] for task in other.status["job_tasks_status"]] == [0, 1]
    assert job.get("/results").json == results
    history = job.get("/jobs/history").json["history"]
    assert {row["task_id"] for row in history} == {None, 1}
    assert (history[-1]["actor"], history[-1]["reason"]) == ("operator", "task 0 was removed")
    assert history[-1]["from_state"] == history[-1]["to_state"] == "COMPLETED"


def test_a_task_that_may_run_or_is_counted_on_stays(job, database):
    with pytest.raises(Conflict, match="Task 1 is PENDING"):
        remove_task(database, job, 1)
    job.report_task(0, task_state="FAILED")
    job.report_task(1, task_state="RUNNING")
    seen = administration.find_task(database, job.job_id, 1)
    with pytest.raises(Conflict, match="Task 1 is RUNNING"):
        administration.remove_task(database, job.job_id, 1, seen)
    remove_task(database, job, 0)  # it has ended, and will not be missed
    job.report_task(1, task_state="COMPLETED")
    with pytest.raises(Conflict, match="nothing was removed"):
        administration.remove_task(database, job.job_id, 1, seen)
    assert job.state == "MERGING_QUEUED"
    with pytest.raises(Conflict, match="cannot be removed until"):
        remove_task(database, job, 1)
    job.post_results()
    with pytest.raises(Conflict, match="the only task"):
        remove_task(database, job, 1)
    with pytest.raises(NotFound, match="no task 7"):
        remove_task(database, job, 7)
    assert job.state == "COMPLETED"


def test_a_remark_is_no_reason_for_a_failure(job, database, backend):
    job.report_task(0, task_state="FAILED")
    job.report_task(1, task_state="FAILED")
    remove_task(database, job, 0)
    assert job.state == "FAILED"
    assert simulations.read_failures(backend, ADMINISTRATOR, job.job_id)[None] == "2 of 2 tasks failed"


@FILE
def test_the_lists_of_the_command_line(yaptide, job, stranger):
    other = submit(stranger).bring_to("CANCELED")
    assert [user["username"] for user in printed(yaptide("users", "list", "--json"))["users"]] == ["alice", "mallory"]
    result = printed(yaptide("simulations", "list", "--json"))
    assert [entry["job_id"] for entry in result["simulations"]] == [other.job_id, job.job_id]
    result = printed(yaptide("simulations", "list", "--user", "alice", "--limit", "1", "--json"))
    assert (result["simulations_count"], result["simulations"][0]["job_id"]) == (1, job.job_id)
    result = printed(yaptide("simulations", "list", "--states", "canceled", "--json"))
    assert [entry["username"] for entry in result["simulations"]] == ["mallory"]
    assert printed(yaptide("tasks", "list", "--json"))["tasks_count"] == 4
    result = printed(yaptide("tasks", "list", job.job_id, "--states", "PENDING", "--json"))
    assert [(task["job_id"], task["task_id"]) for task in result["tasks"]] == [(job.job_id, 0), (job.job_id, 1)]
    for group in ("users", "simulations", "tasks", "clusters"):
        assert yaptide(group, "list").exit_code == 0


@FILE
@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_removed_without_a_yes(yaptide, job, database, answer):
    job.bring_to("COMPLETED")
    before = contents(database)
    commands = (("users", "remove", "alice"), ("simulations", "remove", job.job_id), ("tasks", "remove", job.job_id, 0))
    for command in commands:
        done = yaptide(*command, answers=answer)
        assert done.exit_code == 1
        assert "Remove " in done.stderr
    assert contents(database) == before


@FILE
def test_a_yes_removes_what_was_shown(yaptide, job):
    job.bring_to("COMPLETED")
    done = yaptide("tasks", "remove", job.job_id, 0, answers="y\n")
    assert done.exit_code == 0
    assert f"Remove task 0 (COMPLETED, 500 of 500 primaries) with 2 rows of history of {job.job_id}?" in done.stderr
    done = yaptide("simulations", "remove", job.job_id, answers="y\n")
    assert f"Remove {job.job_id} (COMPLETED) with 1 task, 1 estimator, 1 page, 0 logs (" in done.stderr
    done = yaptide("users", "remove", "alice", "--yes")
    assert done.stderr == "Removed user alice with 0 simulations (0 B)\n"
    assert printed(yaptide("users", "list", "--json")) == {"users": []}


@FILE
def test_passwords_are_asked_for_or_read(yaptide, backend, tmp_path):
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    assert yaptide("users", "add", "a", answers="typed by hand\ntyped by hand\n").exit_code == 0
    assert yaptide("users", "add", "b", "--password-file", file).exit_code == 0
    assert yaptide("users", "add", "c", "--password-file", "-", answers="from a pipe\n").exit_code == 0
    given = yaptide("users", "add", "d", "--password-on-command-line", "seen by all")
    assert given.stderr.startswith("Warning: other users can read")
    for name, password in (("a", "typed by hand"), ("b", "from a file"), ("c", "from a pipe"), ("d", "seen by all")):
        user_services.check_password(backend, name, password)
    assert yaptide("users", "passwd", "a", "--password-file", file).exit_code == 0
    differ = "x\ny\nanother one\nanother one\n"
    assert yaptide("users", "update", "b", answers=differ).exit_code == 0
    user_services.check_password(backend, "a", "from a file")
    user_services.check_password(backend, "b", "another one")
    assert yaptide("users", "add", "e").exit_code == 1  # no terminal for the prompt
    with pytest.raises(InvalidInput):
        yaptide("users", "add", "e", "--password-file", "-", answers="\n")


@FILE
def test_an_update_changes_what_it_is_told(yaptide, database, namesake):
    yaptide("users", "add", "bob", "--quota", "5GB", "--password-on-command-line", PASSWORD)
    yaptide("users", "update", "bob", "--quota", "1.5 MiB", "--new-name", "bobby")
    yaptide("users", "quota", "alice", "none", "--provider", "KeycloakUser")
    rows = [(row.username, row.quota_bytes) for row in administration.list_users(database)]
    assert rows == [("alice", None), ("bobby", 1572864)]
    with pytest.raises(NotFound):
        yaptide("users", "passwd", "alice", "--password-on-command-line", "x")
    assert yaptide("users", "remove", "alice", "--provider", "Google").exit_code == 2


@pytest.mark.parametrize(
    ("message", "size"),
    [("0", 0), ("5GB", 5 * 10**9), ("5 gb", 5 * 10**9), ("5G", 5 * 10**9), ("2KiB", 2048), ("1.5kB", 1500), ("7b", 7)],
)
def test_sizes(message, size):
    assert arguments.parse_size(message) == size


@pytest.mark.parametrize("message", ["", "GB", "-1", "1e3", "5XB", "9999999TB", "1.GB", "5\u0664"])
def test_no_sizes(message):
    with pytest.raises(InvalidInput, match="Invalid size"):
        arguments.parse_size(message)


def test_ages_and_states():
    assert parse_age("90d") == timedelta(days=90)
    assert parse_age("12h") == timedelta(hours=12)
    for message in ("", "d", "90", "-1d", "1.5d", "9999999d", "90 d"):
        with pytest.raises(InvalidInput, match="Invalid age"):
            parse_age(message)
    assert arguments.parse_states("failed, CANCELED") == (EntityState.FAILED, EntityState.CANCELED)
    assert arguments.parse_states("") == ()
    with pytest.raises(InvalidInput, match="Unknown state 'NEW'"):
        arguments.parse_states("NEW")

"""The check of an input by the API, the Python client and the command line: with the same words, and nothing stored."""

import orjson
import pytest
from typer.testing import CliRunner

from tests.support import projects
from tests.support.api import contents
from yaptide.admin import cli
from yaptide.services import administration, checks
from yaptide.services.users import find_user
from yaptide.simulators.mcsquare.sample import water_sample

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

FILES = water_sample(50_000, 100.0, seed=1)
WRONG = FILES | {"plan.txt": FILES["plan.txt"].replace("###GantryAngle\n", "###GantryAngle\n<b>north</b> ")}


def check(client, files=None, **changes):
    body = {"input_type": "files", "sim_type": "common", "input_files": files or FILES}
    answer = client.post("/check", json=body | changes)
    assert answer.status_code == 200, answer.json
    return answer.json


@pytest.fixture
def before(database, signed_in):
    """Everything stored; it is the same afterwards."""
    stored = contents(database)
    yield
    assert contents(database) == stored


@pytest.mark.usefixtures("before")
def test_a_valid_input_gets_a_number_of_tasks(signed_in):
    answer = check(signed_in)
    assert answer.pop("message") == "Input checked"
    assert answer.pop("ntasks") > 0
    assert answer.pop("reason")
    assert 50_000 <= answer.pop("primaries") < 50_100
    assert answer == {
        "is_valid": True,
        "problems": [],
        "sim_type": "mcsquare",
        "left_out": [],
        "waiting": None,
    }
    asked = check(signed_in, ntasks=7)
    assert (asked["ntasks"], asked["reason"]) == (7, None)


@pytest.mark.usefixtures("before")
def test_a_problem_has_its_file_and_line(signed_in):
    answer = check(signed_in, WRONG)
    (problem,) = answer["problems"]
    lines = WRONG["plan.txt"].splitlines()
    assert answer["is_valid"] is False
    assert "GantryAngle in degrees must be a number" in problem["message"]
    assert (problem["file"], lines[problem["line"] - 1]) == ("plan.txt", problem["text"])
    assert "<b>north</b>" in problem["text"]
    refused = signed_in.post(
        "/jobs/direct", json={"input_type": "files", "sim_type": "common", "input_files": WRONG, "ntasks": 1}
    )
    assert (refused.status_code, refused.json["message"]) == (400, problem["message"])


@pytest.mark.usefixtures("before")
def test_problems_without_a_line(signed_in):
    unknown = check(signed_in, {"readme.txt": "hello"})["problems"]
    assert [problem["file"] for problem in unknown] == [None]
    many = check(signed_in, ntasks=10**6)["problems"]
    assert "number of tasks must be between" in many[0]["message"]


@pytest.mark.usefixtures("before")
def test_a_project_is_converted(signed_in):
    body = {"input_type": "editor", "sim_type": "common", "input_json": projects.water_phantom()}
    answer = signed_in.post("/check", json=body).json
    assert (answer["is_valid"], answer["sim_type"]) == (True, "mcsquare")
    assert answer["left_out"]


@pytest.mark.parametrize(
    "changes",
    [{"input_files": None}, {"ntasks": 0}, {"ntasks": "4"}, {"input_type": "x"}, {"sim_type": 3}, {"input_files": [1]}],
)
def test_a_body_that_is_no_submission_is_refused(signed_in, changes):
    body = {"input_type": "files", "sim_type": "common", "input_files": FILES}
    assert signed_in.post("/check", json=body | changes).status_code == 400


def test_a_full_quota_is_refused_as_a_submission_is(signed_in, database):
    administration.set_quota(database, administration.find_user(database, "alice"), 1)
    body = {"input_type": "files", "sim_type": "common", "input_files": FILES, "ntasks": 1}
    submitted, checked = (signed_in.post(path, json=body) for path in ("/jobs/direct", "/check"))
    assert (checked.status_code, checked.json["message"]) == (409, submitted.json["message"])


def test_the_command_says_the_same(signed_in, tmp_path, monkeypatch):
    monkeypatch.setenv("YAPTIDE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("YAPTIDE_FOREIGN_WORKERS", "mcsquare")
    for name, files in {"right": FILES, "wrong": WRONG}.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        done = CliRunner().invoke(cli.app, ["check", str(folder), "--json"])
        answer = check(signed_in, files)
        assert orjson.loads(done.stdout) == {key: answer.get(key) for key in orjson.loads(done.stdout)}
        assert done.exit_code == (0 if answer["is_valid"] else 1)
    shown = CliRunner().invoke(cli.app, ["check", str(tmp_path / "wrong")])
    assert "This input cannot be run: plan.txt, line" in shown.output
    assert "50,0" in CliRunner().invoke(cli.app, ["check", str(tmp_path / "right")]).output
    assert "<b>north</b>" in shown.output


def test_a_user_has_one_input_checked_at_a_time(signed_in, backend):
    body = {"input_type": "files", "sim_type": "common", "input_files": FILES}
    with checks.reserve_check(find_user(backend, "alice")):
        refused = signed_in.post("/check", json=body)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert signed_in.post("/check", json=body).status_code == 200

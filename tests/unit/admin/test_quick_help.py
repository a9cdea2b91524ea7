"""Help, version and completion: what they say, and that they load little for it."""

import json
import os
import subprocess
import sys

import pytest

from yaptide import __version__
from yaptide.admin import quick_help

#: Libraries, and parts of ours, that take long to load. (pydantic is typer's own.)
HEAVY = {"sqlalchemy", "numpy", "httpx", "rich", "flask", "alembic", "yaptide.application", "yaptide.services"}
DESCRIBED = json.loads(quick_help.FILE.read_text())

#: Runs `yaptide` and names what of HEAVY is loaded at its end, on standard error.
PROGRAM = f"""
import atexit, sys
sys.argv[0] = "yaptide"
from yaptide.__main__ import main
atexit.register(lambda: print(*sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr, end=""))
main()
"""


def yaptide(*words: str, **variables: str) -> tuple[str, set[str]]:
    """What `yaptide` prints, and what it has loaded."""
    command = [sys.executable, "-c", PROGRAM, *words]
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.split())


def completed(line: str) -> tuple[list[str], set[str]]:
    """How a line could go on, as bash asks."""
    variables = {quick_help.COMPLETE: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    printed, loaded = yaptide(**variables)
    return printed.split(), loaded


@pytest.mark.parametrize("words", [["--help"], ["users", "-h"], ["run", "--tasks", "4", "--help"], ["--version"]])
def test_help_and_version_load_little(words):
    assert yaptide(*words)[1] == set()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("yaptide us", ["users"]),
        ("yaptide users ", list(DESCRIBED["commands"]["users"]["commands"])),
        ("yaptide run folder --tasks 4 --t", ["--title"]),
        ("yaptide up --no", ["--no-executor"]),
    ],
)
def test_names_of_commands_and_options_are_completed_and_little_is_loaded(line, expected):
    assert completed(line) == (expected, set())


def test_values_are_completed_by_the_commands_themselves():
    names, loaded = completed("yaptide db diagram --format ")
    assert set(names) == {"mermaid", "svg", "png"}
    assert loaded


def test_the_version_is_the_packages():
    assert yaptide("--version")[0] == f"yaptide {__version__}\n"


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (["--help"], DESCRIBED),
        (["db", "-h"], DESCRIBED["commands"]["db"]),
        (["run", "folder", "--help"], DESCRIBED["commands"]["run"]),
        (["db", "check", "--help"], DESCRIBED["commands"]["db"]["commands"]["check"]),
    ],
)
def test_help_is_that_of_the_command(words, described, capsys):
    assert quick_help.answer_quickly(words, {})
    assert capsys.readouterr().out == f"{described['help']}\n"


@pytest.mark.parametrize(
    "words", [[], ["run"], ["nonsense", "--help"], ["db", "nonsense", "-h"], ["run", "--", "--help"]]
)
def test_everything_else_is_left_to_the_commands(words, capsys):
    assert not quick_help.answer_quickly(words, {})
    assert capsys.readouterr().out == ""

"""The repository itself: nothing of one machine in it, scripts that parse, commands that explain themselves."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Paths of a single machine, and servers that the user chooses.
#: The patterns are written so that they don't find themselves.
PRIVATE = {
    "a home or work folder": re.compile(rb"(?<![\w.})])/(?:home|root|Users|work)/[\w.]"),
    "a package index": re.compile(
        rb"pypi\.(?:org|python)|python[h]osted\.|index[-_]url|deb\.debian\.|npmjs\.(?:org|com)"
    ),
}


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in done.stdout.split("\0") if name)
    # A file may be removed in the work tree and not yet in git.
    return [path for path in paths if path.is_file()]


def scripts() -> list[Path]:
    return [path for path in tracked() if re.match(rb"#!.*\b(?:ba)?sh\b", path.read_bytes())]


@pytest.mark.parametrize("what", PRIVATE)
def test_no_file_holds(what):
    match = [
        f"{path.relative_to(ROOT)}:{number}: {line.decode(errors='replace').strip()}"
        for path in tracked()
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if PRIVATE[what].search(line)
    ]
    assert not match, "\n" + "\n".join(match)


def test_shell_scripts_parse_and_can_be_run():
    assert {path.relative_to(ROOT).as_posix() for path in scripts()} >= {"scripts/setup", ".ci/run"}
    for path in scripts():
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert os.access(path, os.X_OK), f"{path} is not executable"


def test_every_make_target_explains_itself():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][\w-]*):[^=\n]*?##  ?\w", makefile, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert targets == explained == phony
    # As typed by hand, also where `make test` runs this.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "help"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listed.splitlines()} == targets

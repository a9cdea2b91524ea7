"""A user id that the system knows nothing of, as containers have them: no name, no home."""

import subprocess
import sys
from pathlib import Path

import pytest

YAPTIDE = Path(sys.executable).with_name("yaptide")
NUMBER = "54321"
#: Needs user namespaces: a process can have another user id there.
BECOME = ("unshare", "--user", f"--map-user={NUMBER}", f"--map-group={NUMBER}", "env", "-i")


@pytest.fixture
def run(tmp_path):
    """Run a command as a user id without a name, with only these variables set."""

    def run(*words, **variables):
        given = [f"{name}={value}" for name, value in {"PATH": "/usr/bin:/bin", **variables}.items()]
        command = [*BECOME, *given, str(YAPTIDE), *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    return run


def test_nobody_has_that_number(tmp_path):
    ask = "import os, pwd; print(os.getuid()); pwd.getpwuid(os.getuid())"
    done = subprocess.run([*BECOME, sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{NUMBER}\n", 1)
    assert "KeyError" in done.stderr


@pytest.mark.parametrize("variables", [{}, {"HOME": "/"}], ids=["no home", "a container's home"])
def test_without_a_home_the_data_folder_has_to_be_named(run, variables):
    done = run("list", **variables)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: User ID {NUMBER} has no home folder: set YAPTIDE_DATA_DIR to a folder for its data\n"
    )


def test_with_a_data_folder_they_have_their_number_for_a_name(run, tmp_path):
    data = {"YAPTIDE_DATA_DIR": str(tmp_path / "data")}
    assert run("db", "upgrade", **data).returncode == 0
    listed = run("list", **data)
    assert (listed.returncode, listed.stderr.splitlines()[0].split(";")[0]) == (
        0,
        f"0 of 0 simulations of uid-{NUMBER}",
    )
    assert run("users", "list", **data).returncode == 0

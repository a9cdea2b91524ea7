"""A code from another package: installed into a fresh environment, pointed to, run; not a line is changed here."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "fixtures" / "toy-code"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment that sees yaptide, with the toy package installed by pip, without a network."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    ours = sysconfig.get_path("purelib")
    (site / "yaptide-of-tests.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    source = shutil.copytree(TOY, home.parent / "toy-code")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(source)]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture
def yaptide(environment, tmp_path):
    """Run a command of yaptide in the fresh environment; what it printed, or all it said where it failed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("YAPTIDE_", "FLASK_"))}
    variables = kept | {
        "YAPTIDE_DATA_DIR": str(tmp_path / "data"),
        "YAPTIDE_SIMULATORS_DIR": str(tmp_path / "simulators"),
        "LOGNAME": "alice",
    }

    def run(*arguments: object, fails: bool = False) -> str:
        command = [environment, "-m", "yaptide", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=240
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture
def program(tmp_path):
    """A copy of the program, which a test may change."""
    return Path(shutil.copy(TOY / "toy-program", tmp_path / "toy-program"))


@pytest.fixture
def source(tmp_path):
    """A folder of input files."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "toy.json").write_text('{"primaries": 20000}')
    return folder


def test_a_simulation_runs_with_a_code_of_another_package(yaptide, program, source):
    assert "Toy is not installed: an administrator can point to the program" in yaptide("run", source, fails=True)
    assert json.loads(yaptide("list", "--json"))["simulations_count"] == 0
    yaptide("simulators", "add", "toy", "--program", program)
    shown = json.loads(yaptide("simulators", "show", "toy", "--json"))
    assert (shown["version"], shown["program"], shown["quantities"]) == ("2.1", str(program), ["Stopped"])
    done = json.loads(yaptide("run", source, "--tasks", 3, "--json"))
    assert (done["job_state"], done["sim_type"], done["simulator_version"]) == ("COMPLETED", "toy", "2.1")
    assert done["simulator_digest"] == shown["digest"]
    assert [task["simulated_primaries"] for task in done["tasks"]] == [6667, 6667, 6666]
    document = json.loads(yaptide("results", done["job_id"], "--json"))
    (page,) = document["estimators"][0]["pages"]
    mean = np.average(page["axis_dim1"]["values"], weights=page["data"]["values"])
    assert mean == pytest.approx(5.0, abs=0.2)
    assert sum(page["data"]["values"]) == pytest.approx(1.0)
    assert len(page["data"]["errors"]) == len(page["data"]["values"])


def test_a_program_has_to_prove_itself(yaptide, program, source):
    text = program.read_text()
    program.write_text(text.replace("1 / 5.0", "1 / 9.0"))
    assert "particles stop after" in yaptide("simulators", "add", "toy", "--program", program, fails=True)
    program.write_text(text.replace("toy 2.1", "nothing"))
    assert "is not the toy code" in yaptide("simulators", "add", "toy", "--program", program, fails=True)
    program.write_text(text.replace('print("done")', "raise SystemExit(3)").replace("stopped.json", "lost.json"))
    refused = yaptide("simulators", "add", "toy", "--program", program, fails=True)
    assert "the sample failed: it has left no result that can be read (exit code 3)" in " ".join(refused.split())
    program.chmod(0o644)
    assert "is not an executable file" in yaptide("simulators", "add", "toy", "--program", program, fails=True)
    assert "is not installed" in yaptide("run", source, fails=True)


def test_a_program_that_was_changed_is_not_used(yaptide, program, source):
    yaptide("simulators", "add", "toy", "--program", program)
    program.write_text(program.read_text() + "# another\n")
    note = json.loads(yaptide("simulators", "show", "toy", "--json"))["note"]
    assert "has changed since it was added" in note
    assert "is not installed" in yaptide("run", source, fails=True)
    yaptide("simulators", "add", "toy", "--program", program)
    assert json.loads(yaptide("run", source, "--json"))["job_state"] == "COMPLETED"

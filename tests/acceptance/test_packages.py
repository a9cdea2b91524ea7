"""Our packages, installed in an empty environment: complete, and each works without the other."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.packages import Environment, build, files_of_git, needed
from yaptide import __version__


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def wheels(built):
    """The wheel of the client, and the other."""
    whole, client = (path for path in built if path.suffix == ".whl")
    return client, whole


@pytest.fixture
def alone(tmp_path, wheels):
    """The client in an environment with what it needs, and nothing else."""
    environment = Environment(tmp_path, needed("yaptide-client"))
    environment.install(wheels[0])
    return environment


def cache_of_pip() -> str:
    """Where pip keeps what it has fetched, so that it is fetched once."""
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_an_index_would_take_them(built):
    names = {path.name for path in built}
    assert len(names) == 4
    assert all(name.startswith((f"yaptide-{__version__}", f"yaptide_client-{__version__}")) for name in names)
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_wheels_are_complete(wheels):
    for wheel, folder in zip(wheels, ("client/yaptide_client", "yaptide"), strict=True):
        with ZipFile(wheel) as archive:
            names = set(archive.namelist())
        expected = {path.as_posix().removeprefix("client/") for path in files_of_git(Path(folder))}
        assert {name for name in names if ".dist-info/" not in name} == expected
        assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_demo_works_in_an_empty_environment_and_folder(tmp_path, wheels):
    libraries = needed("yaptide", "yaptide-client")
    environment = Environment(tmp_path, libraries, {"PIP_CACHE_DIR": cache_of_pip()})
    environment.install(*wheels)
    assert environment.run("python", "-c", "import pip").returncode, "there is no pip"
    assert environment.run("yaptide", "--version").stdout == f"yaptide {__version__}\n"
    done = environment.run("yaptide", "demo")
    assert done.returncode == 0, done.stderr
    assert "4 COMPLETED" in done.stdout
    assert "R80" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("No plot: Drawing needs matplotlib")
    assert "pip install 'yaptide[plots]'" in done.stderr
    assert (environment.run("yaptide", "example").returncode, [path.name for path in environment.empty.iterdir()]) == (
        0,
        ["proton-150MeV-water"],
    )
    again = environment.run("yaptide", "example")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)


PROGRAM = """
import importlib.util
import pickle
from yaptide_client import Client, Job, Results
assert not [name for name in ("flask", "sqlalchemy", "celery", "typer") if importlib.util.find_spec(name)]
with Client("http://127.0.0.1:1") as client:
    print(repr(pickle.loads(pickle.dumps(client))), repr(client.job("a job")), repr(Results(())))
"""


def test_the_client_works_alone(alone):
    done = alone.run("python", "-c", PROGRAM)
    assert (done.stdout, done.stderr) == ("<Client of http://127.0.0.1:1> <Job a job> <Results: none>\n", "")
    missing = alone.run("python", "-c", "from yaptide_client import plots")
    assert "pip install 'yaptide-client[plots]'" in missing.stderr


def test_the_client_stays_when_the_rest_goes(alone, wheels):
    alone.install(wheels[1])
    same = "import yaptide.client, yaptide_client; assert yaptide.client.Client is yaptide_client.Client"
    assert alone.run("python", "-c", same).returncode == 0
    alone.pip("uninstall", "--quiet", "--yes", "yaptide")
    assert alone.run("python", "-c", "import yaptide").returncode
    assert alone.run("python", "-c", PROGRAM).returncode == 0

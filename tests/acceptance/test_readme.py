"""README.md and docs/tutorial.md: their commands and scripts are run here, against a real server."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.ports import free_port
from tests.support.processes import installation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
EXAMPLE = "proton-150MeV-water"
SERVER = "http://127.0.0.1:5000"
PASSWORD = "a long password"


def snippet(heading: str, language: str) -> str:
    """The block of this language below a heading."""
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ [A-Z]|\Z)", README, re.MULTILINE | re.DOTALL)[1]
    (result,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return result


@pytest.fixture(scope="module", autouse=True)
def _mcsquare():
    installation()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the example as `yaptide example` writes it, with a fifth of its primaries."""
    folder = tmp_path_factory.mktemp("readme")
    subprocess.run([Path(sys.prefix) / "bin/yaptide", "example", EXAMPLE], cwd=folder, check=True)
    config = folder / EXAMPLE / "config.txt"
    text = config.read_text()
    assert "1e5" in text
    config.write_text(text.replace("1e5", "2e4"))
    return folder


@pytest.fixture(scope="module")
def environment(folder):
    """As after `. .venv/bin/activate`, with a data folder of its own and no settings of the user's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("YAPTIDE_", "FLASK_"))}
    path = os.pathsep.join((str(Path(sys.prefix) / "bin"), ours["PATH"]))
    return {**ours, "PATH": path, "VIRTUAL_ENV": sys.prefix, "YAPTIDE_DATA_DIR": str(folder / "data")}


@pytest.fixture(scope="module")
def type_in(folder, environment):
    """Run a program in the folder; returns what it printed."""

    def run(*program: str, text: str = "") -> str:
        done = subprocess.run(
            program, cwd=folder, env=environment, input=text, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def server(folder, environment, type_in):
    """`yaptide up` with the user alice; its URL."""
    type_in("yaptide", "users", "add", "alice", "--password-file", "-", text=f"{PASSWORD}\n")
    port = free_port()
    running = subprocess.Popen(["yaptide", "up", "--port", str(port)], cwd=folder, env=environment)
    try:
        yield _answering(f"http://127.0.0.1:{port}", running)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=120) == 0


def _answering(url: str, running: "subprocess.Popen[bytes]") -> str:
    until = time.monotonic() + 120
    while True:
        try:
            assert httpx.get(url).json() == {"message": "yaptide is running"}
        except httpx.TransportError:
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return url


def test_run_something(type_in, folder):
    commands = snippet("Run something", "sh").replace(". .venv/bin/activate\n", "")
    assert f"yaptide run {EXAMPLE} " in commands
    commands = commands.replace(f"yaptide example {EXAMPLE}\n", "")  # the fixture has
    assert "COMPLETED" in type_in("bash", "-euc", commands)
    assert (folder / "dose.png").read_bytes().startswith(b"\x89PNG")


def test_submit_from_python(type_in, server):
    text = snippet("Submit from Python", "python")
    assert (text.count(SERVER), text.count(PASSWORD)) == (1, 1)
    printed = type_in("python", "-", text=text.replace(SERVER, server))
    assert printed.startswith("COMPLETED\n[")
    peak, r80 = re.search(r"Bragg peak at ([\d.]+) mm, R80 = ([\d.]+) mm \(bins of 1 mm\)\n$", printed).groups()
    assert float(peak) == pytest.approx(155.5, abs=1.5)
    assert float(r80) == pytest.approx(157.7, abs=1.0)


def test_submit_from_a_shell(type_in, server, folder):
    text = snippet("Submit from a shell", "sh")
    assert (text.count(SERVER), text.count(PASSWORD)) == (1, 1)
    printed = type_in("bash", "-euo", "pipefail", "-c", text.replace(SERVER, server))
    assert '"job_state":"COMPLETED"' in printed
    document = httpx.Response(200, content=(folder / "results.json").read_bytes()).json()
    names = [quantity + part for quantity in ("Dose", "Energy", "LET") for part in ("", " slice", " grid")]
    assert [estimator["name"] for estimator in document["estimators"]] == names
    assert np.argmax(document["estimators"][0]["pages"][0]["data"]["values"]) == pytest.approx(155, abs=2)
    assert not [path for path in folder.iterdir() if "cookie" in path.name]


def test_use_postgresql(type_in, environment, postgres):
    text = snippet("Use PostgreSQL", "sh")
    url = re.search(r"postgresql\S+", text)[0]
    assert text.endswith("\nyaptide up\n")
    database = postgres.create_database()
    message = text.removesuffix("yaptide up\n").replace(url, database)
    type_in("bash", "-euc", f"{message}\nyaptide db check\nyaptide list")
    postgres.drop_database(database)


def test_the_tutorial(type_in, server, folder):
    """Its blocks in order, with a tenth of the primaries; the fixtures install, add alice and serve."""
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)
    install, *commands, serve = (text for language, text in blocks if language == "sh")
    assert install == "make demo\n. .venv/bin/activate\n"
    assert re.findall("^yaptide .*?(?=  )", serve, re.MULTILINE) == ["yaptide users add alice", "yaptide up"]
    text = "".join(commands)
    assert text.count(" 1e5\n") == 1
    printed = type_in("bash", "-euo", "pipefail", "-c", text.replace(" 1e5\n", " 1e4\n"))
    assert "R80 " in printed
    assert "Simulation started" in printed  # the output of MCsquare
    assert (folder / "first-plan.png").read_bytes().startswith(b"\x89PNG")

    submit, analyse = (text.replace(SERVER, server) for language, text in blocks if language == "python")
    assert PASSWORD in submit
    printed = type_in("python", "-", text=submit)
    assert re.search(r"^COMPLETED 10080 of 10080 primaries\n\S+DIRECT COMPLETED$", printed, re.MULTILINE)
    printed = type_in("python", "-", text=analyse)
    assert float(re.search(r"R80 = ([\d.]+) mm", printed)[1]) == pytest.approx(100.1, abs=0.7)
    assert "dose cube (50, 150, 50)\n" in printed
    assert (folder / "first-plan.csv").read_text().startswith("estimator,page,quantity,unit,axis1_name")

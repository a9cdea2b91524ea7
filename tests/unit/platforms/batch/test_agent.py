"""The agent on the nodes: old Pythons, only the standard library, also without the server."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.processes import alive, until
from yaptide.platforms.batch import agent, packing
from yaptide.platforms.batch.schedulers.base import RUN_VARIABLE, TASK_VARIABLE
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare import MCsquare, output
from yaptide.simulators.mcsquare.sample import water_sample

#: Of the standard library of Python 3.6, what may be used.
MODULES = {
    *("contextlib", "ctypes", "glob", "hashlib", "http.client", "json", "os", "random", "re", "shutil"),
    *(
        "signal",
        "subprocess",
        "sys",
        "time",
        "types",
        "typing",
        "urllib.error",
        "urllib.parse",
        "urllib.request",
        "zipfile",
    ),
}
SHARES = [(1, 320, 7), (2, 160, 8)]
TOO_LONG = "ask for more time"


def test_python_3_6_can_read_it_and_has_all_it_imports():
    tree = ast.parse(packing.AGENT.read_text(), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} <= MODULES
    newer = (ast.NamedExpr, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    assert "removeprefix" not in packing.AGENT.read_text()


class Cluster:
    """A job's folder, and what the scheduler would start in it."""

    def __init__(self, folder, script, url=None):
        self.folder = folder
        program = folder / "MCsquare"
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(0o755)
        bundle = packing.Bundle(MCsquare(), str(program), water_sample(480), SHARES)
        packing.pack_inputs(bundle, folder / "inputs.zip")
        (folder / "manifest.json").write_bytes(packing.make_manifest(bundle, 5, url, TOO_LONG))
        (folder / "key").write_text("secret key")
        (folder / "agent.py").write_bytes(packing.AGENT.read_bytes())

    def start(self, what="run", task=1):
        environment = {"PATH": os.environ["PATH"], TASK_VARIABLE: str(task), RUN_VARIABLE: f"slurm-12_{task}-0"}
        words = [sys.executable, *packing.RUN[1:3], what]
        return subprocess.Popen(
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, what="run", task=1):
        with self.start(what, task) as process:
            out, _ = process.communicate(timeout=60)
        assert out == b""
        return process.returncode

    def report(self, task=1):
        try:
            return json.loads((self.folder / f"task-{task}" / "report.json").read_text())
        except FileNotFoundError:
            return {"state": None}


@pytest.fixture
def cluster(tmp_path):
    def make(script, url=None):
        return Cluster(tmp_path, script, url)

    return make


@pytest.mark.parametrize("task", [1, 2])
def test_what_could_not_be_sent_is_left(cluster, tmp_path, task):
    there = cluster("mkdir Outputs; echo dose >Outputs/Dose.raw; echo ' 50.0 % '; cat config.txt")
    assert there.run(task=task) == 0
    report = there.report(task)
    assert (report["task"], report["worker"], report["state"]) == (task, f"slurm-12_{task}-0", "ended")
    assert (report["exit_code"], report["simulated"]) == (0, SHARES[task - 1][1] // 2)
    with ZipFile(tmp_path / f"task-{task}" / "result.zip") as archive:
        assert sorted(archive.namelist()) == ["Outputs/Dose.raw", OUTPUT_LOG]
        said = archive.read(OUTPUT_LOG).decode()
    assert f"Num_Primaries {SHARES[task - 1][1]}" in said
    assert f"RNG_Seed {SHARES[task - 1][2]}" in said


def test_what_is_linked_to_is_read_by_a_short_path_and_not_packed(cluster, tmp_path):
    (tmp_path / "Materials").mkdir()
    (tmp_path / "Materials" / "list.dat").write_text("water")
    there = cluster('cat "$MCsquare_Materials_Dir/list.dat"; echo " ${#MCsquare_Materials_Dir}"')
    assert there.run() == 0
    with ZipFile(tmp_path / "task-1" / "result.zip") as archive:
        assert archive.namelist() == [OUTPUT_LOG]
        assert archive.read(OUTPUT_LOG) == b"water 9\n"


def test_input_is_what_the_simulator_prepares(cluster, tmp_path):
    cluster("true")
    for number, primaries, seed in SHARES:
        here, there = tmp_path / f"here-{number}", tmp_path / f"there-{number}"
        here.mkdir()
        there.mkdir()
        MCsquare().prepare(water_sample(480), primaries, seed, here)
        subprocess.run(
            [sys.executable, "-c", f"import agent; print(agent.unpack_inputs({number}, {str(there)!r}))"],
            cwd=tmp_path,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        assert {file.name: file.read_bytes() for file in there.iterdir()} == {
            file.name: file.read_bytes() for file in here.iterdir()
        }


def test_the_key_is_neither_in_an_argument_nor_in_the_environment(cluster):
    there = cluster(
        'tr "\\0" " " </proc/$$/environ; tr "\\0" " " </proc/$PPID/cmdline; tr "\\0" " " </proc/$PPID/environ'
    )
    assert there.run() == 0
    said = (there.folder / "task-1" / "run" / OUTPUT_LOG).read_text()
    assert TASK_VARIABLE in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("number", "state", "code"), [(signal.SIGTERM, "stopped", 128 + signal.SIGTERM), (signal.SIGUSR1, "failed", 1)]
)
def test_nothing_of_a_run_is_left_when_a_signal_ends_it(cluster, number, state, code):
    there = cluster("sleep 600 & echo $$ $!; wait")
    log = there.folder / "task-1" / "run" / OUTPUT_LOG
    with there.start() as process:
        pids = until(lambda: log.exists() and log.read_text().split(), "it runs")
        process.send_signal(number)
        assert process.wait(60) == code
    until(lambda: not any(alive(int(pid)) for pid in pids), "nothing is left")
    assert there.report()["state"] == state
    if number == signal.SIGUSR1:
        assert there.report()["reason"] == TOO_LONG


def test_a_simulator_dies_with_an_agent_that_is_killed(cluster):
    there = cluster("echo $$; sleep 600")
    log = there.folder / "task-1" / "run" / OUTPUT_LOG
    with there.start() as process:
        (pid,) = until(lambda: log.exists() and log.read_text().split(), "it runs")
        process.kill()
    until(lambda: not alive(int(pid)), "the simulator is gone")


@pytest.mark.parametrize(
    "log",
    [
        "",
        " 10.0 % \n",
        " 10.0 % \n 37.5 % \n",
        "x\nNbr primaries simulated: 77 \n",
        " 110 % \n",
        "9 %" * 3000,
        f"{'9' * 400} %\n",
    ],
)
def test_progress_is_read_as_on_the_server(tmp_path, log):
    (tmp_path / OUTPUT_LOG).write_text(log)
    rule = output.PROGRESS
    assert agent.count_primaries(asdict(rule), str(tmp_path), 80) == rule.primaries(tmp_path, 80)


class Answering:
    """A server that answers what a test wants, and keeps what it was asked."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path.partition("?")[0], self.headers["Authorization"], body))
                status, document, headers = outer.answers.get(self.path.partition("?")[0].split("/")[-1], (404, {}, {}))
                data = json.dumps(document).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_GET = do_POST  # noqa: N815 - the names are those of http.server

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def paths(self):
        return [path for path, _, _ in self.asked]


@pytest.fixture
def server():
    answering = Answering()
    thread = threading.Thread(target=answering.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield answering
    answering.server.shutdown()
    thread.join()
    answering.server.server_close()


CLAIMED = (200, {"owner": "p/slurm-12_1-0", "attempt": 1}, {})
WANTED = (200, {"wanted": True}, {})


def test_what_was_left_is_sent_after_all_tasks(cluster, server):
    there = cluster("echo done", server.url)
    server.answers = {"claim": (503, {"message": "busy"}, {})}
    manifest = json.loads((there.folder / "manifest.json").read_text())
    (there.folder / "manifest.json").write_text(json.dumps({**manifest, "url": None}))
    assert there.run() == 0
    assert there.run("collect") == 0
    assert there.report()["state"] == "ended"
    (there.folder / "manifest.json").write_text(json.dumps(manifest))
    server.answers = {"claim": CLAIMED, "files": WANTED}
    assert there.run("collect") == 0
    assert there.report()["state"] == "delivered"
    assert [path.split("/")[2:] for path in server.paths()] == [
        ["5", "tasks", "1", what] for what in ("claim", "files")
    ]
    assert {key for _, key, _ in server.asked} == {"Bearer secret key"}
    assert server.asked[1][2][:2] == b"PK"
    assert not (there.folder / "task-1" / "result.zip").exists()


def test_a_task_that_is_not_to_be_run_is_not_run(cluster, server):
    server.answers = {"claim": (409, {"message": "not wanted"}, {})}
    there = cluster("echo ran", server.url)
    assert there.run() == 0
    assert not (there.folder / "task-1" / "run" / OUTPUT_LOG).exists()
    assert there.report()["reason"] == "not wanted"


def test_a_task_that_is_canceled_ends_at_its_next_report(cluster, server):
    server.answers = {"claim": CLAIMED, "progress": (200, {"wanted": False}, {}), "canceled": WANTED}
    there = cluster("echo so far; sleep 600", server.url)
    assert there.run() == 0
    assert there.report()["state"] == "canceled"
    assert b"so far" in server.asked[-1][2]


def test_results_that_the_server_does_not_take_are_a_failure(cluster, server):
    server.answers = {"claim": CLAIMED, "files": (400, {"message": "too odd"}, {}), "failure": WANTED}
    there = cluster("true", server.url)
    assert there.run() == 1
    assert there.report()["reason"] == "the server rejected the results: too odd"
    assert server.paths()[-1].endswith("/failure")


def test_the_key_is_not_taken_elsewhere(cluster, server):
    server.answers = {"claim": (307, {}, {"Location": f"{server.url}/elsewhere"}), "elsewhere": CLAIMED}
    there = cluster("sleep 3", server.url)
    with there.start() as process:
        until(lambda: there.report()["state"] == "running" and there.report()["time"] and server.asked, "it has asked")
        process.terminate()
        process.communicate(timeout=60)
    assert not [path for path in server.paths() if "elsewhere" in path]


def test_a_task_that_cannot_be_run_says_so(cluster):
    there = cluster("true")
    (there.folder / "MCsquare").unlink()
    with there.start() as process:  # the server cannot be reached: the agent does not wait for it
        until(lambda: there.report()["state"] == "failed", "it has said so")
        process.terminate()
        process.communicate(timeout=60)
    assert "could not be run" in there.report()["reason"]
    assert Path(there.report()["reason"].split("'")[1]).name == "MCsquare"


def test_a_folder_that_cannot_be_written_is_reported_to_the_server(cluster, server):
    server.answers = {"claim": CLAIMED, "failure": WANTED}
    there = cluster("true", server.url)
    (there.folder / "task-1").write_text("in the way")
    assert there.run() == 1
    assert server.paths()[-1].endswith("/failure")
    assert b"the task could not be run" in server.asked[-1][2]

"""Running one task, with a shell script for a simulator."""

import errno
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import until
from yaptide.disk import MIN_FREE, TOO_LITTLE_FREE
from yaptide.domain.errors import SimulationFailed, StorageFull, Unavailable
from yaptide.domain.estimators import TaskOutput
from yaptide.platforms.direct.running import Job, _time_left, run_task
from yaptide.simulators.base import OUTPUT_LOG, Command, Installation


class Script:
    """A simulator that is one line of shell; it has failed if it exits with anything but 0."""

    def __init__(self, line: str) -> None:
        self.line = line

    def prepare(self, files: Mapping[str, str], primaries: int, seed: int, folder: Path) -> None:
        pass

    def command(self, installation: Installation, folder: Path) -> Command:
        return Command(("/bin/sh", "-c", self.line), {}, {"beside": str(installation.program.parent)})

    def progress(self, folder: Path, primaries: int) -> int:
        return 0

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        if exit_code:
            raise SimulationFailed(f"exit code {exit_code}: {(folder / OUTPUT_LOG).read_text()}")
        return TaskOutput(1, ())


@dataclass
class Told:
    """A reporter that remembers."""

    wanted: bool = True
    told: list[str] = field(default_factory=list)

    def report_progress(self, simulated: int, estimated: int | None) -> bool:
        return self.wanted

    def complete_task(self, output: TaskOutput) -> None:
        self.told.append("completed")

    def fail_task(self, reason: str, logs: Mapping[str, str]) -> None:
        self.told.append(f"failed: {reason}; {logs}")

    def report_canceled(self, logs: Mapping[str, str]) -> None:
        self.told.append(f"canceled: {logs}")

    def return_task(self, reason: str) -> None:
        self.told.append(f"given back: {reason}")


@pytest.fixture
def run(tmp_path):
    """Run a line of shell as a task; returns what was reported."""

    def run(line, *, stopped=False, wanted=True, time_limit=60.0):
        stop, look, message = threading.Event(), threading.Event(), Told(wanted)
        look.set()
        if stopped:
            stop.set()
        folder = tmp_path / "task"
        job = Job(Script(line), Installation(Path("/bin/sh"), "1", ""), {}, 1, 1, folder, time_limit)
        run_task(job, message, stop, look)
        assert not folder.exists()
        return message.told

    return run


def test_what_a_command_links_to_is_in_the_folder_and_stays_when_that_goes(run):
    assert run("test -x beside/sh") == ["completed"]
    assert Path("/bin/sh").exists()


@pytest.mark.parametrize("signal", ["INT", "TERM", "HUP"])
def test_a_simulator_does_not_hear_of_a_signal_to_all_processes(run, signal):
    """Ctrl-C and the end of a service also reach the simulator: its task must not fail."""
    assert run(f"kill -{signal} $$; exit 0") == ["completed"]


def test_this_process_hears_of_signals_all_the_same(run):
    run("exit 0")
    assert not signals_blocked()


def signals_blocked() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigBlk")]
    return int(line.split()[1], 16)


def test_a_simulator_that_fails(run):
    assert run("echo no; exit 3") == ["failed: exit code 3: no\n; {'output.log': 'no\\n'}"]


@pytest.mark.parametrize("end", ["kill -INT $$", "kill -TERM $$", "exit 130", "exit 143"])
def test_a_simulator_that_was_interrupted_has_not_failed(run, end):
    """Such as by Ctrl-C, if it has unblocked what we have blocked."""
    line = f"exec env --default-signal=INT,TERM sh -c '{end}'" if "kill" in end else end
    assert run(line) == ["given back: its simulator was interrupted"]


def test_what_a_simulator_has_started_is_killed_with_it(run, tmp_path):
    assert run(f"sleep 600 & echo $! > '{tmp_path}/pid'; exit 0") == ["completed"]
    pid = int((tmp_path / "pid").read_text())
    until(lambda: is_gone(pid), "it is gone")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"stopped": True}, ["given back: its executor was stopped"]),
        ({"wanted": False}, ["canceled: {'output.log': ''}"]),
        ({"time_limit": 0.0}, ["failed: it ran for more than 0 hours and was stopped; {'output.log': ''}"]),
    ],
    ids=["stopped", "canceled", "too long"],
)
def test_a_simulator_is_ended_when_it_has_to(run, tmp_path, how, message):
    started = time.monotonic()
    assert run("sleep 600", **how) == message
    assert time.monotonic() - started < 60


def test_a_simulator_is_told_no_secret(run, tmp_path, monkeypatch):
    for name in ("FLASK_SECRET_KEY", "YAPTIDE_SECRET_KEYS", "FLASK_SQLALCHEMY_DATABASE_URI", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("LANG", "C")
    assert run(f"env > {tmp_path}/env") == ["completed"]
    message = (tmp_path / "env").read_text()
    assert "LANG=C\n" in message
    assert "secret" not in message


def test_a_report_that_nobody_hears_is_no_failure(run, monkeypatch):
    def complete(*_):
        raise Unavailable("the database is away")

    monkeypatch.setattr(Told, "complete_task", complete)
    with pytest.raises(Unavailable):
        run("exit 0")


@pytest.fixture
def full_disk(monkeypatch):
    """The disk where tasks run is full."""
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, MIN_FREE - 1))


def test_a_simulator_that_fails_where_there_is_no_room_has_not_failed(run, full_disk):
    assert run("exit 1") == [f"given back: no disk space is left where it ran: {TOO_LITTLE_FREE}"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_input_that_cannot_be_written_for_want_of_room_is_given_back(run, monkeypatch, number):
    def prepare(*_):
        raise OSError(number, "no room")

    monkeypatch.setattr(Script, "prepare", prepare)
    assert run("exit 0") == [f"given back: no disk space is left where it ran: {TOO_LITTLE_FREE}"]


def test_a_folder_that_cannot_be_made_for_another_reason_is_a_failure(run, monkeypatch):
    def prepare(*_):
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(Script, "prepare", prepare)
    assert run("exit 0") == ["failed: the task could not be run: [Errno 1] not permitted; {}"]


def test_scores_that_nobody_has_room_for_are_given_back(run, monkeypatch):
    def complete(*_):
        raise StorageFull("No disk space left for the output of tasks")

    monkeypatch.setattr(Told, "complete_task", complete)
    assert run("exit 0") == ["given back: No disk space left for the output of tasks"]


def test_the_time_left_fits_into_its_column():
    assert _time_left(86_400.0, 10, 10**15) == 2**31 - 1
    assert _time_left(86_400.0, 0, 10**15) is None
    assert _time_left(10.0, 25, 100) == 30


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one whose parent has not asked about it yet is a zombie ("Z")."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True

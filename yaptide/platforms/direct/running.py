"""Runs one task: `run_task` is used by the embedded executor and by workers.

It depends on a simulator and a `Reporter`, but not on a database or a web server.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from yaptide.disk import TOO_LITTLE_FREE, has_free_space, is_full
from yaptide.domain.errors import SimulationFailed, StorageFull, Unavailable, YaptideError
from yaptide.domain.estimators import TaskOutput
from yaptide.simulators.base import OUTPUT_LOG, Command, InputFiles, Installation, Simulator, read_logs

REPORT_EVERY = 1.0
"""Seconds between two progress reports."""
HEARTBEAT = 5.0
"""Seconds between two heartbeats while there is no progress to report."""
_POLL_EVERY = 0.1
_GRACE = 2.0
_LONGEST = 2**31 - 1
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Reporter(Protocol):
    """Receives the reports of a running task."""

    def report_progress(self, simulated: int, estimated: int | None) -> bool:
        """Report primaries simulated so far and seconds left; returns False if the task was canceled or deleted."""

    def complete_task(self, output: TaskOutput) -> None:
        """Complete the task with these results."""

    def fail_task(self, reason: str, logs: Mapping[str, str]) -> None:
        """Fail the task; `logs` has the simulator's log files, name to text."""

    def report_canceled(self, logs: Mapping[str, str]) -> None:
        """Report that a canceled task was stopped, with the simulator's log files."""

    def return_task(self, reason: str) -> None:
        """Return a task that was stopped for an external reason, so that it runs again."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: simulator, input, primaries, seed, a folder to create and remove, and a time limit (s)."""

    simulator: Simulator
    installation: Installation
    files: InputFiles
    primaries: int
    seed: int
    folder: Path
    time_limit: float


#: Exit codes of a simulator that was interrupted from outside and did not fail: this process uses only SIGKILL. Both
#: signals are blocked in a simulator, but it can unblock them.
_INTERRUPTED = frozenset(code for number in (signal.SIGINT, signal.SIGTERM) for code in (-number, 128 + number))


def run_task(job: Job, reporter: Reporter, stop: threading.Event, check: threading.Event) -> None:
    """Run one task and report its end in all cases.

    The simulator runs in its own process group, which is killed at the end. `stop` ends it at once and returns the
    task, as does a full disk. `check` triggers the next progress report, which tells whether the task was canceled.
    Raises Unavailable if the final report cannot be delivered.
    """
    try:
        job.folder.mkdir(parents=True)
        job.simulator.prepare(job.files, job.primaries, job.seed, job.folder)
        exit_code = _run_simulator(job, reporter, stop, check)
        if exit_code in _INTERRUPTED:
            reporter.return_task("its simulator was interrupted")
        elif exit_code is not None:
            with heartbeat_thread(lambda: reporter.report_progress(job.primaries, 0)):  # both may take minutes
                output = job.simulator.read(job.folder, exit_code)
                reporter.complete_task(replace(output, logs=read_logs(job.simulator, job.folder)))
    except Unavailable:
        raise  # the task has not failed: it will run again
    except (YaptideError, OSError) as error:
        _report_failure(job, reporter, error)
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)


def _report_failure(job: Job, reporter: Reporter, error: Exception) -> None:
    """Fail the task, or return it if the disk is full: a simulator reports that in its own way."""
    full = isinstance(error, OSError) and is_full(error)
    if isinstance(error, StorageFull):
        reporter.return_task(str(error))
    elif full or not has_free_space(job.folder):
        reporter.return_task(f"no disk space is left where it ran: {TOO_LITTLE_FREE}")
    else:
        reason = str(error) if isinstance(error, YaptideError) else f"the task could not be run: {error}"
        reporter.fail_task(reason, read_logs(job.simulator, job.folder))


def _run_simulator(job: Job, reporter: Reporter, stop: threading.Event, check: threading.Event) -> int | None:
    """Run the simulator and report progress; its exit code, or None if the task was canceled or returned."""
    begun = reported = time.monotonic()
    process = _start_simulator(job.simulator.command(job.installation, job.folder), job.folder)
    try:
        while (exit_code := _poll(process)) is None:
            if stop.is_set():
                reporter.return_task("its executor was stopped")
                return None
            now = time.monotonic()
            if now - begun > job.time_limit:
                raise SimulationFailed(f"it ran for more than {job.time_limit / 3600:g} hours and was stopped")
            if now - reported >= REPORT_EVERY or check.is_set():
                check.clear()
                reported = now
                simulated = job.simulator.progress(job.folder, job.primaries)
                if not reporter.report_progress(simulated, _time_left(now - begun, simulated, job.primaries)):
                    _kill_group(process)
                    reporter.report_canceled(read_logs(job.simulator, job.folder))
                    return None
        return exit_code
    finally:
        _kill_group(process)


def _time_left(elapsed: float, simulated: int, primaries: int) -> int | None:
    return min(round(elapsed * (primaries - simulated) / simulated), _LONGEST) if simulated else None


def _start_simulator(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    # If this process is killed, the kernel kills the simulator too (setpriv is part of util-linux).
    setpriv = shutil.which("setpriv")
    with_death_signal = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
    command.make_links(folder)
    with (folder / OUTPUT_LOG).open("wb") as log, _signals_blocked():
        return subprocess.Popen(
            [*with_death_signal, *command.arguments],
            cwd=folder,
            env=command.whole_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def heartbeat_thread(beat: Callable[[], object]) -> Iterator[None]:
    """Call `beat` every few seconds in a thread."""
    over = threading.Event()

    def keep_beating() -> None:
        while not over.wait(HEARTBEAT):
            with suppress(YaptideError):
                beat()

    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals of Ctrl-C and of a stopping service in programs that are started here.

    These signals reach whole groups of processes, and a simulator that they ended would look as if it had failed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)  # a child inherits the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _poll(process: subprocess.Popen[bytes]) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_POLL_EVERY)
    return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the simulator and its child processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)

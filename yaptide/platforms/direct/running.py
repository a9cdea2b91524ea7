"""Running one task: the same function for every executor and worker.

It knows a simulator and a `Reporter`, and neither a database nor a web server.
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
from yaptide.simulators.base import OUTPUT_LOG, Command, InputFiles, Installation, Simulator, read_log

REPORT_EVERY = 1.0
"""Seconds between two reports of progress."""
HEARTBEAT = 5.0
"""Seconds between two signs of life, where there is no progress to report."""
_LOOK_EVERY = 0.1
_GRACE = 2.0
_LONGEST = 2**31 - 1
_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Reporter(Protocol):
    """Where a running task tells what becomes of it."""

    def progress(self, simulated: int, estimated: int | None) -> bool:
        """Primaries simulated so far and seconds left; False if the task is to be stopped (canceled, deleted)."""

    def complete(self, output: TaskOutput) -> None:
        """The task has finished with these scores."""

    def fail(self, reason: str, logs: Mapping[str, str]) -> None:
        """The task has failed; `logs` is what the simulator wrote, file name to text."""

    def canceled(self, logs: Mapping[str, str]) -> None:
        """The task was stopped since it is not wanted any more; what the simulator wrote until then."""

    def give_back(self, reason: str) -> None:
        """The task was stopped through no fault of its own; somebody else should run it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: the code, its input, share of primaries and seed, a folder to make and remove, a time limit (s)."""

    simulator: Simulator
    installation: Installation
    files: InputFiles
    primaries: int
    seed: int
    folder: Path
    time_limit: float


#: Exit codes of a simulator that was interrupted from outside, and did not fail: we end one by SIGKILL alone. Both
#: signals are blocked in what we start, but one can unblock them.
_INTERRUPTED = frozenset(code for number in (signal.SIGINT, signal.SIGTERM) for code in (-number, 128 + number))


def run_task(job: Job, reporter: Reporter, stop: threading.Event, look: threading.Event) -> None:
    """Run one task to its end and report it, whatever happens.

    The simulator runs in a process group of its own, which is killed as a whole at the end. `stop` ends it at once and
    gives the task back; `look` makes it ask now, and not after the next second, whether it is still wanted.
    So does a disk without room. Raises Unavailable if nobody hears the last report.
    """
    try:
        job.folder.mkdir(parents=True)
        job.simulator.prepare(job.files, job.primaries, job.seed, job.folder)
        exit_code = _follow(job, reporter, stop, look)
        if exit_code in _INTERRUPTED:
            reporter.give_back("its simulator was interrupted")
        elif exit_code is not None:
            with heartbeat_thread(lambda: reporter.progress(job.primaries, 0)):  # both may take long
                output = job.simulator.read(job.folder, exit_code)
                reporter.complete(replace(output, logs=read_log(job.folder)))
    except Unavailable:
        raise  # nobody heard the last report: that is no failure of the task, which somebody will run again
    except (YaptideError, OSError) as error:
        _report_failure(job, reporter, error)
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)


def _report_failure(job: Job, reporter: Reporter, error: Exception) -> None:
    """A simulator that had no room to write fails with whatever it says then; the task is good."""
    full = isinstance(error, OSError) and is_full(error)
    if isinstance(error, StorageFull):
        reporter.give_back(str(error))
    elif full or not has_free_space(job.folder):
        reporter.give_back(f"no room is left where it ran: {TOO_LITTLE_FREE}")
    else:
        reason = str(error) if isinstance(error, YaptideError) else f"the task could not be run: {error}"
        reporter.fail(reason, read_log(job.folder))


def _follow(job: Job, reporter: Reporter, stop: threading.Event, look: threading.Event) -> int | None:
    """Run the simulator and report its progress; the exit code, or None if the task is no longer ours to run."""
    begun = reported = time.monotonic()
    process = _start(job.simulator.command(job.installation, job.folder), job.folder)
    try:
        while (exit_code := _wait(process)) is None:
            if stop.is_set():
                reporter.give_back("its executor was stopped")
                return None
            now = time.monotonic()
            if now - begun > job.time_limit:
                raise SimulationFailed(f"it ran for more than {job.time_limit / 3600:g} hours and was stopped")
            if now - reported >= REPORT_EVERY or look.is_set():
                look.clear()
                reported = now
                simulated = job.simulator.progress(job.folder, job.primaries)
                if not reporter.progress(simulated, _time_left(now - begun, simulated, job.primaries)):
                    _kill_group(process)
                    reporter.canceled(read_log(job.folder))
                    return None
        return exit_code
    finally:
        _kill_group(process)


def _time_left(elapsed: float, simulated: int, primaries: int) -> int | None:
    return min(round(elapsed * (primaries - simulated) / simulated), _LONGEST) if simulated else None


def _start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    # If this process is killed, the kernel kills the simulator with it (setpriv is part of util-linux).
    setpriv = shutil.which("setpriv")
    leash = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
    command.make_links(folder)
    with (folder / OUTPUT_LOG).open("wb") as log, _uninterrupted():
        return subprocess.Popen(
            [*leash, *command.arguments],
            cwd=folder,
            env=command.whole_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def heartbeat_thread(beat: Callable[[], object]) -> Iterator[None]:
    """Give a sign of life every few seconds."""
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
def _uninterrupted() -> Iterator[None]:
    """Have a program that is started here not hear of Ctrl-C or of a service being stopped; only we end it, by SIGKILL.

    Both reach whole groups of processes. A simulator that died of it would seem to have failed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _POLITE)  # a child inherits what is blocked
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_LOOK_EVERY)
    return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the simulator, children of its own included."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)

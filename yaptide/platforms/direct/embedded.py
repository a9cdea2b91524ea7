"""The embedded executor: threads of this process run tasks as subprocesses and merge their results.

The database is its queue, so nothing is lost when it dies. Only one executor uses a data folder at a time: it holds a
lock that the kernel releases when the process dies, so the next holder knows that the previous tasks have stopped.
"""

import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from yaptide.disk import has_free_space
from yaptide.domain.errors import StorageFull, Unavailable, YaptideError
from yaptide.domain.estimators import TaskOutput
from yaptide.platforms import lock
from yaptide.platforms.direct.running import Job, run_task
from yaptide.platforms.loops import Loops, try_step
from yaptide.services import merging, recovery, runners, tasks
from yaptide.services.backend import Backend, utc_now
from yaptide.services.runners import Announcement, program_of
from yaptide.services.tasks import Claim
from yaptide.simulators import get_simulator, list_installed
from yaptide.simulators.base import Installation, logs_of_task

log = logging.getLogger(__name__)

_POLL = 0.5
_HEARTBEAT = runners.HEARTBEAT
_RETRY_FOR = 600.0


@dataclass(frozen=True, slots=True)
class Folders:
    """The data folder, whose lock the executor holds, the folder of simulators, and the folder in which tasks run."""

    data: Path
    simulators: Path
    work: Path


class EmbeddedExecutor:
    """Runs the tasks of the platform DIRECT in this process; also its `Dispatcher`."""

    def __init__(self, backend: Backend, folders: Folders, workers: int, time_limit: float) -> None:
        self._backend = backend
        self._folders = folders
        self._workers = workers or os.cpu_count() or 1
        self._time_limit = time_limit
        self.owner = ""
        self._loops = Loops()
        self._running: dict[Claim, threading.Event] = {}
        self._merging: set[int] = set()
        self._lock: lock.Lock | None = None
        self._monitor = recovery.StallMonitor(backend)
        name = f"executor-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._announcement = Announcement(backend, name, runners.DIRECT)

    def announce(self) -> None:
        """Announce the installed simulators: at each heartbeat, and before a submission from the command line."""
        programs = {name: program_of(installation) for name, installation in self._installed().items()}
        self._announcement.tell(programs)

    def withdraw(self) -> None:
        """Announce that this process no longer runs tasks."""
        with suppress(Unavailable, StorageFull):  # the announcement expires
            self._announcement.withdraw()

    def start(self) -> bool:
        """Start the threads; returns False if another process holds the lock of the data folder."""
        self._lock = lock.acquire_lock(self._folders.data, self._backend.database.address)
        if self._lock is None:
            return False
        prefix = f"{self._backend.spool.place}{self._lock.name}-"  # other servers may share the spool
        self.owner = f"{prefix}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        shutil.rmtree(self._folders.work, ignore_errors=True)  # files of killed executors
        recovery.requeue_stalled(self._backend, utc_now() - self._backend.limits.silence, prefix)
        self._monitor.begin()
        try_step(self.announce)
        self._loops.start("heart", self._beat, _HEARTBEAT)
        self._loops.start("announcing", self.announce, _HEARTBEAT)
        # In its own thread: it may take longer than the time between two heartbeats.
        self._loops.start("housekeeping", partial(recovery.clean_up, self._backend), _HEARTBEAT)
        for n in range(self._workers):
            self._loops.start(f"worker-{n}", self._work_once, _POLL, wakes=True)
        return True

    def stop(self) -> None:
        """Stop the threads; running tasks are killed and returned."""
        self._loops.stop()
        if self._lock is not None:
            self._lock.close()

    def dispatch(self, simulation_id: int) -> None:
        """Look for work now; the tasks are in the database."""
        self._loops.wake()

    def revoke(self, simulation_id: int) -> None:
        """Let the running tasks of a simulation check at once whether they were canceled."""
        for claim, check in list(self._running.items()):
            if claim.simulation_id == simulation_id:
                check.set()

    def _work_once(self) -> bool:
        if merging.merge_next(self._backend, self.owner, self._merging):
            return True
        installed = self._installed() if has_free_space(self._folders.work) else {}
        claim = tasks.claim_task(self._backend, self.owner, list(installed)) if installed else None
        if claim is None:
            return False
        check = self._running[claim] = threading.Event()
        try:
            self._run(claim, installed[claim.sim_type], check)
        finally:
            del self._running[claim]
        return True

    def _run(self, claim: Claim, installation: Installation, check: threading.Event) -> None:
        reporter = _Reporter(self._backend, claim, self._loops.stopping)
        try:
            files = tasks.input_files(self._backend, claim)
            tasks.note_begin(self._backend, claim, installation.version, installation.digest)
            folder = self._folders.work / f"{claim.job_id}-{claim.task_id}-{claim.attempt}-{secrets.token_hex(4)}"
            code = get_simulator(claim.sim_type)
            job = Job(code, installation, files, claim.primaries, claim.seed, folder, self._time_limit)
            run_task(job, reporter, self._loops.stopping, check)
        except YaptideError as error:
            reporter.return_task(str(error))
        except Exception:
            log.exception("unexpected error in task %s of %s", claim.task_id, claim.job_id)
            reporter.fail_task("an internal error, see the server's log", {})

    def _installed(self) -> dict[str, Installation]:
        return list_installed(self._folders.simulators)

    def _beat(self) -> None:
        # Only for tasks in a thread: a task that was dropped because the database was full must run again.
        tasks.beat_leases(self._backend, self.owner, list(self._running), list(self._merging))
        self._monitor.requeue()


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Passes the reports of a task in this process to the services."""

    backend: Backend
    claim: Claim
    stop: threading.Event

    def report_progress(self, simulated: int, estimated: int | None) -> bool:
        try:
            return tasks.report_progress(self.backend, self.claim, simulated, estimated)
        except (Unavailable, StorageFull):
            return True  # the simulator continues; the next report includes this one

    def complete_task(self, output: TaskOutput) -> None:
        self._retry(lambda: tasks.complete_task(self.backend, self.claim, output))

    def fail_task(self, reason: str, logs: Mapping[str, str]) -> None:
        self._retry(lambda: tasks.fail_task(self.backend, self.claim, reason, logs_of_task(self.claim.task_id, logs)))

    def report_canceled(self, logs: Mapping[str, str]) -> None:
        with suppress(Unavailable, StorageFull):
            tasks.explain_cancel(self.backend, self.claim, logs_of_task(self.claim.task_id, logs))

    def return_task(self, reason: str) -> None:
        self._retry(lambda: tasks.give_back(self.backend, self.claim, reason))

    def _retry(self, report: Callable[[], bool]) -> None:
        """Retry a final report while the database is unavailable or full: the results must not be lost."""
        deadline = time.monotonic() + _RETRY_FOR
        wait = 0.5
        while True:
            try:
                report()
            except (Unavailable, StorageFull):
                if time.monotonic() > deadline or self.stop.wait(wait):
                    raise
                wait = min(2 * wait, 30.0)
            else:
                return

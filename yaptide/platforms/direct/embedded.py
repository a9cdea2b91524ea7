"""The embedded executor: threads of this process run tasks as subprocesses and merge their scores.

The database is its queue, so nothing is lost when it dies. One executor works on a data folder at a time: it holds a
lock that the kernel takes away from a dead process, so that whoever gets it next knows that the former one's tasks have
stopped.
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
    """Where the executor finds the simulators, where tasks run, and whose lock it holds."""

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
        self._watch = recovery.StallMonitor(backend)
        name = f"executor-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._announcement = Announcement(backend, name, runners.DIRECT)

    def announce(self) -> None:
        """Tell which simulators there are here: at each heartbeat, and before what they are for is submitted."""
        self._announcement.tell({name: program_of(found) for name, found in self._installed().items()})

    def withdraw(self) -> None:
        """Tell that this process will run nothing any more."""
        with suppress(Unavailable, StorageFull):  # then it is forgotten when its time is over
            self._announcement.withdraw()

    def start(self) -> bool:
        """Begin to work; False if another process already does for this data folder."""
        self._lock = lock.acquire_lock(self._folders.data, self._backend.database.address)
        if self._lock is None:
            return False
        ours = f"{self._backend.spool.place}{self._lock.name}-"  # others may share the spool
        self.owner = f"{ours}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        shutil.rmtree(self._folders.work, ignore_errors=True)  # what killed executors were at
        recovery.requeue_stalled(self._backend, utc_now() - self._backend.limits.silence, ours)
        self._watch.begin()
        try_step(self.announce)
        self._loops.start("heart", self._beat, _HEARTBEAT)
        self._loops.start("announcing", self.announce, _HEARTBEAT)
        # On its own, since merging what was canceled may take longer than a heart may stand still.
        self._loops.start("housekeeping", partial(recovery.keep_house, self._backend), _HEARTBEAT)
        for n in range(self._workers):
            self._loops.start(f"worker-{n}", self._work_once, _POLL, wakes=True)
        return True

    def stop(self) -> None:
        """Stop: running tasks are killed and given back. Waits for the threads."""
        self._loops.stop()
        if self._lock is not None:
            self._lock.close()

    def dispatch(self, simulation_id: int) -> None:
        """Look for work now; the tasks are found in the database."""
        self._loops.wake()

    def revoke(self, simulation_id: int) -> None:
        """Have the running tasks of a simulation ask at once whether they are still wanted."""
        for claim, look in list(self._running.items()):
            if claim.simulation_id == simulation_id:
                look.set()

    def _work_once(self) -> bool:
        if merging.merge_next(self._backend, self.owner, self._merging):
            return True
        here = self._installed() if has_free_space(self._folders.work) else {}
        claim = tasks.claim_task(self._backend, self.owner, list(here)) if here else None
        if claim is None:
            return False
        look = self._running[claim] = threading.Event()
        try:
            self._run(claim, here[claim.sim_type], look)
        finally:
            del self._running[claim]
        return True

    def _run(self, claim: Claim, installation: Installation, look: threading.Event) -> None:
        reporter = _Reporter(self._backend, claim, self._loops.stopping)
        try:
            files = tasks.input_files(self._backend, claim)
            tasks.note_begin(self._backend, claim, installation.version, installation.digest)
            folder = self._folders.work / f"{claim.job_id}-{claim.task_id}-{claim.attempt}-{secrets.token_hex(4)}"
            code = get_simulator(claim.sim_type)
            job = Job(code, installation, files, claim.primaries, claim.seed, folder, self._time_limit)
            run_task(job, reporter, self._loops.stopping, look)
        except YaptideError as error:
            reporter.give_back(str(error))
        except Exception:
            log.exception("task %s of %s failed in an unexpected way", claim.task_id, claim.job_id)
            reporter.fail("an internal error, see the server's log", {})

    def _installed(self) -> dict[str, Installation]:
        return list_installed(self._folders.simulators)

    def _beat(self) -> None:
        # Only for what a thread really works on: what it had to drop, with the database full, is taken up again.
        tasks.beat_leases(self._backend, self.owner, list(self._running), list(self._merging))
        self._watch.requeue()


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Reports of a task that runs in this process go straight to the services."""

    backend: Backend
    claim: Claim
    stop: threading.Event

    def progress(self, simulated: int, estimated: int | None) -> bool:
        try:
            return tasks.report_progress(self.backend, self.claim, simulated, estimated)
        except (Unavailable, StorageFull):
            return True  # the simulator goes on; the next report tells the same

    def complete(self, output: TaskOutput) -> None:
        self._insist(lambda: tasks.complete_task(self.backend, self.claim, output))

    def fail(self, reason: str, logs: Mapping[str, str]) -> None:
        self._insist(lambda: tasks.fail_task(self.backend, self.claim, reason, logs_of_task(self.claim.task_id, logs)))

    def canceled(self, logs: Mapping[str, str]) -> None:
        with suppress(Unavailable, StorageFull):
            tasks.explain_cancel(self.backend, self.claim, logs_of_task(self.claim.task_id, logs))

    def give_back(self, reason: str) -> None:
        self._insist(lambda: tasks.give_back(self.backend, self.claim, reason))

    def _insist(self, report: Callable[[], bool]) -> None:
        """Repeat a final report while the database is away, or has no room: what was simulated must not be lost."""
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

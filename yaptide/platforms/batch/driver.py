"""The driver: runs simulations on clusters over SSH, follows them, and cleans up.

It finds its work in the database and processes the jobs of each user on each cluster every few seconds, with one query
to the cluster for all of them. Every step can be repeated: before a job is submitted, it is searched for by its name,
and each result is stored at once.
"""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from yaptide.domain.errors import YaptideError
from yaptide.platforms.batch.session import ClusterSession
from yaptide.platforms.batch.ssh import Connections
from yaptide.services import batch, merging, runners, tasks
from yaptide.services.backend import Backend
from yaptide.services.batch import BATCH, Job
from yaptide.services.runners import Announcement

log = logging.getLogger(__name__)

_POLL = 0.5
_HEARTBEAT = runners.HEARTBEAT
_MOST_THREADS = 8
_LONGEST_PAUSE = 300.0

Key = tuple[int, str]


@dataclass(slots=True)
class _Schedule:
    """When to process a session again: `due` is a time of `time.monotonic`, `seen` the work that was known then."""

    session: ClusterSession
    due: float = 0.0
    pause: float = 0.0
    seen: frozenset[object] = frozenset()
    running: "Future[None] | None" = None
    jobs: dict[int, Job] = field(default_factory=dict)


class Driver:
    """Runs the simulations of the platform BATCH: one per data folder, in the process that holds its lock."""

    def __init__(self, backend: Backend, url: str, interval: float) -> None:
        """`url` is the URL of the server for nodes, `interval` the seconds between two queries to a cluster."""
        self._backend = backend
        self._url = url
        self._interval = interval
        self._connections = Connections()
        self._stop = threading.Event()
        self._schedules: dict[Key, _Schedule] = {}
        self._merging: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="cluster")
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._announcement = Announcement(backend, f"driver-{self._name}", BATCH)
        self.owner = ""

    def start(self) -> None:
        """Start the threads."""
        self.owner = f"{self._backend.spool.place}{self._name}"
        steps: tuple[tuple[str, Callable[[], bool], float], ...] = (
            ("clusters", self._process_clusters, _POLL),
            ("merging", self._merge_next, _POLL),
            ("merging-heart", self._send_heartbeat, _HEARTBEAT),
            ("announcing", self._announce, _HEARTBEAT),
        )
        for name, step, pause in steps:
            thread = threading.Thread(target=self._repeat, args=(step, pause), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop the threads and close all connections; jobs on clusters continue."""
        self._stop.set()
        self._connections.close()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(cancel_futures=True)
        self._connections.close()  # a thread may have opened another one

    def _repeat(self, step: Callable[[], bool], pause: float) -> None:
        """Repeat a step, without a pause while it returns True; errors are logged."""
        while not self._stop.is_set():
            try:
                busy = step()
            except YaptideError as error:
                log.warning("%s", error)
                busy = False
            except Exception:
                log.exception("unexpected error; continuing")
                busy = False
            if not busy:
                self._stop.wait(pause)

    def _process_clusters(self) -> bool:
        """Process sessions that are due, or have new work."""
        jobs: dict[Key, dict[int, Job]] = {}
        for job in batch.list_unfinished(self._backend):
            jobs.setdefault((job.user_id, job.cluster_name), {})[job.id] = job
        for key in jobs.keys() - self._schedules.keys():
            session = ClusterSession(self._backend, self._connections, self._stop, *key, self._url, self._interval)
            self._schedules[key] = _Schedule(session)
        for key, schedule in list(self._schedules.items()):
            self._start_if_due(key, schedule, jobs.get(key, {}))
        return False

    def _start_if_due(self, key: Key, schedule: _Schedule, jobs: dict[int, Job]) -> None:
        if schedule.running is not None and not schedule.running.done():
            return
        # A job leaves the list when its simulation is deleted, or when the session has removed its folder.
        gone = [job for number, job in schedule.jobs.items() if number not in jobs]
        schedule.session.forget_jobs(gone)
        schedule.jobs = jobs
        if not jobs and not schedule.session.has_orphans:
            del self._schedules[key]
            return
        to_do = frozenset((job.id, job.has_ended) for job in jobs.values()) | {job.id for job in gone}
        if time.monotonic() < schedule.due and to_do <= schedule.seen:
            return
        schedule.seen = to_do
        schedule.running = self._pool.submit(self._process_jobs, schedule, list(jobs.values()))

    def _process_jobs(self, schedule: _Schedule, jobs: list[Job]) -> None:
        try:
            succeeded = schedule.session.process_jobs(jobs)
        except YaptideError as error:
            log.warning("%s", error)
            succeeded = False
        except Exception:
            log.exception("unexpected error; continuing")
            succeeded = False
        longer = min(max(2 * schedule.pause, self._interval), _LONGEST_PAUSE)
        schedule.pause = self._interval if succeeded else longer
        schedule.due = time.monotonic() + schedule.pause

    def _merge_next(self) -> bool:
        simulation = merging.claim_merge(self._backend, self.owner, BATCH)
        if simulation is None:
            return False
        self._merging.add(simulation.id)
        try:
            merging.merge_simulation(self._backend, simulation, self.owner)
        finally:
            self._merging.discard(simulation.id)
        return True

    def _announce(self) -> bool:
        """Announce that simulations on clusters can run; the simulators of a cluster are stored with the cluster."""
        self._announcement.tell({})
        return False

    def _send_heartbeat(self) -> bool:
        tasks.beat_leases(self._backend, self.owner, [], list(self._merging))
        return False

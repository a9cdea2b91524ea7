"""The driver: runs simulations on clusters over SSH, follows them, and cleans up.

It finds its work in the database and processes the jobs of each user on each cluster every few seconds, with one query
to the cluster for all of them. Every step can be repeated: before a job is submitted, it is searched for by its name,
and each result is stored at once.
"""

import secrets
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from yaptide.platforms.batch.session import ClusterSession
from yaptide.platforms.batch.ssh import Connections
from yaptide.platforms.loops import Loops, try_step
from yaptide.services import batch, merging, runners, tasks
from yaptide.services.backend import Backend
from yaptide.services.batch import BATCH, Job
from yaptide.services.runners import Announcement

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
        self._loops = Loops()
        self._schedules: dict[Key, _Schedule] = {}
        self._merging: set[int] = set()
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="cluster")
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._announcement = Announcement(backend, f"driver-{self._name}", BATCH)
        self.owner = ""

    def start(self) -> None:
        """Start the threads."""
        self.owner = f"{self._backend.spool.place}{self._name}"
        self._loops.start("clusters", self._process_clusters, _POLL)
        self._loops.start("merging", self._merge_next, _POLL)
        self._loops.start("merging-heart", self._send_heartbeat, _HEARTBEAT)
        self._loops.start("announcing", self._announce, _HEARTBEAT)

    def stop(self) -> None:
        """Stop the threads and close all connections; jobs on clusters continue."""
        self._loops.stopping.set()
        self._connections.close()
        self._loops.stop()
        self._pool.shutdown(cancel_futures=True)
        self._connections.close()  # a thread may have opened another one

    def _process_clusters(self) -> None:
        """Process sessions that are due, or have new work."""
        jobs: dict[Key, dict[int, Job]] = {}
        for job in batch.list_unfinished(self._backend):
            jobs.setdefault((job.user_id, job.cluster_name), {})[job.id] = job
        for key in jobs.keys() - self._schedules.keys():
            stopping = self._loops.stopping
            session = ClusterSession(self._backend, self._connections, stopping, *key, self._url, self._interval)
            self._schedules[key] = _Schedule(session)
        for key, schedule in list(self._schedules.items()):
            self._start_if_due(key, schedule, jobs.get(key, {}))

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
        succeeded = try_step(lambda: schedule.session.process_jobs(jobs))
        longer = min(max(2 * schedule.pause, self._interval), _LONGEST_PAUSE)
        schedule.pause = self._interval if succeeded else longer
        schedule.due = time.monotonic() + schedule.pause

    def _merge_next(self) -> bool:
        return merging.merge_next(self._backend, self.owner, self._merging, BATCH)

    def _announce(self) -> None:
        """Announce that simulations on clusters can run; the simulators of a cluster are stored with the cluster."""
        self._announcement.tell({})

    def _send_heartbeat(self) -> None:
        tasks.beat_leases(self._backend, self.owner, [], list(self._merging))

"""The driver: has simulations run on clusters, follows them there, and clears up after them.

It finds its work in the database, as everybody who runs something does, and looks at each user on each cluster (a site)
every few seconds: one query to SLURM, however many jobs there are. Whatever it does can be done again: a job is looked
for by its name before it is submitted, and what was found out is stored at once.
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
_AT_ONCE = 8
_LONGEST_PAUSE = 300.0

Key = tuple[int, str]


@dataclass(slots=True)
class _Schedule:
    """When a site is to be visited: `due` is by the clock of `time.monotonic`, `seen` what there was to do then."""

    site: ClusterSession
    due: float = 0.0
    pause: float = 0.0
    seen: frozenset[object] = frozenset()
    visit: "Future[None] | None" = None
    jobs: dict[int, Job] = field(default_factory=dict)


class Driver:
    """Has the simulations of the platform BATCH run; one for each data folder, in the process that has its lock."""

    def __init__(self, backend: Backend, url: str, interval: float) -> None:
        """`url` is where nodes reach the server, `interval` the seconds between two looks at a cluster."""
        self._backend = backend
        self._url = url
        self._interval = interval
        self._connections = Connections()
        self._loops = Loops()
        self._sites: dict[Key, _Schedule] = {}
        self._merging: set[int] = set()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="site")
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._announcement = Announcement(backend, f"driver-{self._name}", BATCH)
        self.owner = ""

    def start(self) -> None:
        """Begin to work."""
        self.owner = f"{self._backend.spool.place}{self._name}"
        self._loops.start("clusters", self._look, _POLL)
        self._loops.start("merging", self._merge, _POLL)
        self._loops.start("merging-heart", self._beat, _HEARTBEAT)
        self._loops.start("announcing", self._announce, _HEARTBEAT)

    def stop(self) -> None:
        """Stop; what runs on clusters goes on. Waits for what is being said to one."""
        self._loops.stopping.set()
        self._connections.close()
        self._loops.stop()
        self._pool.shutdown(cancel_futures=True)
        self._connections.close()  # a visit may have made another one

    def _look(self) -> None:
        """Have the sites visited that are due, or where there is something new to do."""
        jobs: dict[Key, dict[int, Job]] = {}
        for job in batch.list_unfinished(self._backend):
            jobs.setdefault((job.user_id, job.cluster_name), {})[job.id] = job
        for key in jobs.keys() - self._sites.keys():
            site = ClusterSession(
                self._backend, self._connections, self._loops.stopping, *key, self._url, self._interval
            )
            self._sites[key] = _Schedule(site)
        for key, schedule in list(self._sites.items()):
            self._see_to(key, schedule, jobs.get(key, {}))

    def _see_to(self, key: Key, schedule: _Schedule, jobs: dict[int, Job]) -> None:
        if schedule.visit is not None and not schedule.visit.done():
            return
        # What is not in the list any more was deleted, or its folder is gone, which the site knows itself.
        gone = [job for number, job in schedule.jobs.items() if number not in jobs]
        schedule.site.forget(gone)
        schedule.jobs = jobs
        if not jobs and not schedule.site.has_left:
            del self._sites[key]
            return
        to_do = frozenset((job.id, job.has_ended) for job in jobs.values()) | {job.id for job in gone}
        if time.monotonic() < schedule.due and to_do <= schedule.seen:
            return
        schedule.seen = to_do
        schedule.visit = self._pool.submit(self._visit, schedule, list(jobs.values()))

    def _visit(self, schedule: _Schedule, jobs: list[Job]) -> None:
        fine = try_step(lambda: schedule.site.visit(jobs))
        schedule.pause = self._interval if fine else min(max(2 * schedule.pause, self._interval), _LONGEST_PAUSE)
        schedule.due = time.monotonic() + schedule.pause

    def _merge(self) -> bool:
        return merging.merge_next(self._backend, self.owner, self._merging, BATCH)

    def _announce(self) -> None:
        """Tell that there is somebody who submits to clusters; what these have is kept with them."""
        self._announcement.tell({})

    def _beat(self) -> None:
        tasks.beat_leases(self._backend, self.owner, [], list(self._merging))

"""The courier: tells Celery's workers through the broker what waits in the database, and looks after what they do.

It is the production counterpart of the embedded executor, and like that finds its work in the database: a request never
waits for the broker, and a broker that is away, restarted or emptied only delays.

Which messages were lost nobody can know. But when a queue is empty, every message that was sent to it has reached a
worker; what still waits in the database some seconds later has lost its message, and is sent again. One that was not
lost after all arrives twice, which does no harm.

Workers have no way to the database: the courier asks them through the broker what they have, and announces it for them.
"""

import logging
from functools import partial
from pathlib import Path

from yaptide.domain.errors import Unavailable
from yaptide.platforms import lock
from yaptide.platforms.direct.broker import MERGE, MERGE_QUEUE, SIMULATE, Broker, queue_of
from yaptide.platforms.loops import Loops
from yaptide.services import outbox, recovery, runners
from yaptide.services.backend import Backend
from yaptide.services.runners import Announcement, Program

log = logging.getLogger(__name__)

_POLL = 0.5
_LOOK = 5.0
_MOST = 50


class OutboxPublisher:
    """Has the tasks of the platform DIRECT run by Celery's workers; also its `Dispatcher`."""

    def __init__(self, backend: Backend, broker: Broker, data: Path) -> None:
        self._backend = backend
        self._broker = broker
        self._data = data
        self._loops = Loops()
        self._lock: lock.Lock | None = None
        self._suspects: set[str] = set()
        self._watch = recovery.StallMonitor(backend)
        self._announcements: dict[str, Announcement] = {}

    def announce(self) -> None:
        """Nothing: what there is to announce is found out by asking, while the courier works."""

    def withdraw(self) -> None:
        """Nothing: workers stay when this process ends."""

    def start(self) -> bool:
        """Begin to work; False if another process already does for this data folder."""
        self._lock = lock.acquire_lock(self._data, self._backend.database.address)
        if self._lock is None:
            return False
        self._watch.begin()
        look = min(_LOOK, self._backend.limits.silence.total_seconds() / 4)
        self._loops.start("courier", lambda: self.send() > 0, _POLL, wakes=True)
        self._loops.start("recovery", self._watch.requeue, look)
        self._loops.start("lost messages", self.find_lost, look)
        self._loops.start("spool", partial(recovery.keep_house, self._backend), _LOOK)
        self._loops.start("announcing", self._announce, runners.HEARTBEAT)
        return True

    def stop(self) -> None:
        """Stop; what runs on workers goes on."""
        self._loops.stop()
        if self._lock is not None:
            self._lock.close()

    def dispatch(self, simulation_id: int) -> None:
        """Look for work now."""
        self._loops.wake()

    def revoke(self, simulation_id: int) -> None:
        """Nothing: workers learn from their next report, within a second, that a task is not wanted any more."""

    def send(self) -> int:
        """Send a message for each task and merge that waits and has none yet; returns how many."""
        sent = 0
        for letter in outbox.list_unsent(self._backend, _MOST):
            number, key = letter.simulation_id, letter.update_key
            tasks = [(name, [number, task_id, letter.sim_type, key]) for task_id, name in letter.tasks]
            merges = [(letter.merge, [number, key])] if letter.merge else []
            unsent = self._broker.send(SIMULATE, queue_of(letter.sim_type), tasks)
            unsent += self._broker.send(MERGE, MERGE_QUEUE, merges)
            if unsent:
                outbox.forget_sent(self._backend, unsent)
                break
            sent += len(letter.names)
        return sent

    def find_lost(self) -> int:
        """Have what has lost its message sent again; returns how many. Raises Unavailable if the broker is away."""
        tasks, merges = outbox.list_sent(self._backend)
        waiting = {queue_of(sim_type): names for sim_type, names in tasks.items()} | {MERGE_QUEUE: merges}
        empty = [name for name, depth in self._broker.depths(filter(waiting.get, waiting)).items() if depth == 0]
        suspects = {message for name in empty for message in waiting[name]}
        lost = suspects & self._suspects
        self._suspects = suspects - lost
        if lost:
            log.warning("%d messages were lost by the broker; they are sent again", len(lost))
            outbox.forget_sent(self._backend, sorted(lost))
        return len(lost)

    def announce_workers(self) -> int:
        """Announce what those workers have that answer; returns how many did.

        While the broker is away nobody can answer: the workers that were there before are taken to be there still.
        """
        try:
            workers = self._broker.workers()
        except Unavailable:
            for name in self._announcements:
                runners.keep_runner(self._backend, name)
            raise
        for name in self._announcements.keys() - workers.keys():
            del self._announcements[name]  # it may be back soon: until its time is over, it counts as being there
        for name, worker in workers.items():
            announced = self._announcements.setdefault(name, Announcement(self._backend, name, runners.DIRECT))
            announced.tell({code: Program(*program) for code, program in worker.simulators.items()})
        return len(workers)

    def _announce(self) -> bool:
        """Announce the workers; True to ask again at once, after a short pause, while there are none."""
        return not self.announce_workers() and not self._loops.stopping.wait(_POLL)

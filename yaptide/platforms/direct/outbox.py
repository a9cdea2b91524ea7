"""The outbox publisher: sends messages about waiting tasks and merges to Celery workers, and requeues stalled tasks.

It replaces the embedded executor in production, and also finds its work in the database: requests never wait for the
broker, and a broker that is down, restarted or emptied only delays tasks.

The broker does not report lost messages. But if a queue is empty, all its messages have reached a worker: a task that
still waits a few seconds later has lost its message, which is sent again. A message that arrives twice does no harm.

Workers have no access to the database: the outbox publisher queries them through the broker and announces them.
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
_CHECK_EVERY = 5.0
_MOST = 50


class OutboxPublisher:
    """Runs the tasks of the platform DIRECT on Celery workers; also its `Dispatcher`."""

    def __init__(self, backend: Backend, broker: Broker, data: Path) -> None:
        self._backend = backend
        self._broker = broker
        self._data = data
        self._loops = Loops()
        self._lock: lock.Lock | None = None
        self._suspects: set[str] = set()
        self._monitor = recovery.StallMonitor(backend)
        self._announcements: dict[str, Announcement] = {}

    def announce(self) -> None:
        """Do nothing: workers are announced while the outbox publisher runs."""

    def withdraw(self) -> None:
        """Do nothing: workers continue when this process ends."""

    def start(self) -> bool:
        """Start the threads; returns False if another process holds the lock of the data folder."""
        self._lock = lock.acquire_lock(self._data, self._backend.database.address)
        if self._lock is None:
            return False
        self._monitor.begin()
        pause = min(_CHECK_EVERY, self._backend.limits.silence.total_seconds() / 4)
        self._loops.start("outbox", lambda: self.send_messages() > 0, _POLL, wakes=True)
        self._loops.start("recovery", self._monitor.requeue, pause)
        self._loops.start("lost messages", self.resend_lost, pause)
        self._loops.start("housekeeping", partial(recovery.clean_up, self._backend), _CHECK_EVERY)
        self._loops.start("announcing", self._announce, runners.HEARTBEAT)
        return True

    def stop(self) -> None:
        """Stop the threads; tasks on workers continue."""
        self._loops.stop()
        if self._lock is not None:
            self._lock.close()

    def dispatch(self, simulation_id: int) -> None:
        """Send messages now."""
        self._loops.wake()

    def revoke(self, simulation_id: int) -> None:
        """Do nothing: the next progress report tells a worker, within a second, that its task was canceled."""

    def send_messages(self) -> int:
        """Send a message for each waiting task and merge that has none yet; returns their number."""
        sent = 0
        for message in outbox.list_unsent(self._backend, _MOST):
            number, key = message.simulation_id, message.update_key
            tasks = [(name, [number, task_id, message.sim_type, key]) for task_id, name in message.tasks]
            merges = [(message.merge, [number, key])] if message.merge else []
            unsent = self._broker.send_messages(SIMULATE, queue_of(message.sim_type), tasks)
            unsent += self._broker.send_messages(MERGE, MERGE_QUEUE, merges)
            if unsent:
                outbox.forget_sent(self._backend, unsent)
                break
            sent += len(message.names)
        return sent

    def resend_lost(self) -> int:
        """Mark lost messages as not sent; returns their number. Raises Unavailable without a broker."""
        tasks, merges = outbox.list_sent(self._backend)
        waiting = {queue_of(sim_type): names for sim_type, names in tasks.items()} | {MERGE_QUEUE: merges}
        empty = [
            name for name, depth in self._broker.count_messages(filter(waiting.get, waiting)).items() if depth == 0
        ]
        suspects = {entry for name in empty for entry in waiting[name]}
        lost = suspects & self._suspects
        self._suspects = suspects - lost
        if lost:
            log.warning("the broker lost %d messages; sending them again", len(lost))
            outbox.forget_sent(self._backend, sorted(lost))
        return len(lost)

    def announce_workers(self) -> int:
        """Announce the simulators of all workers that answer; returns the number of these workers.

        Without a broker no worker can answer: the workers that were known before are assumed to be still there.
        """
        try:
            workers = self._broker.list_workers()
        except Unavailable:
            for name in self._announcements:
                runners.keep_runner(self._backend, name)
            raise
        for name in self._announcements.keys() - workers.keys():
            del self._announcements[name]  # the stored announcement stays valid until it expires
        for name, worker in workers.items():
            announced = self._announcements.setdefault(name, Announcement(self._backend, name, runners.DIRECT))
            announced.tell({code: Program(*program) for code, program in worker.simulators.items()})
        return len(workers)

    def _announce(self) -> bool:
        """Announce the workers; returns True, after a short pause, while there are none."""
        return not self.announce_workers() and not self._loops.stopping.wait(_POLL)

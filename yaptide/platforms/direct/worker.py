"""The worker: a Celery process whose children run one task or one merge each, and report to the server over HTTP.

A message only says where to look. Whether there is something to do is asked of the server, which answers from the
database: so messages that arrive twice, late, or for something that was canceled, do nothing.
"""

import fcntl
import logging
import mmap
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaptide.disk import require_free_space
from yaptide.domain.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SimulationFailed,
    TooLarge,
    YaptideError,
)
from yaptide.persistence import result_files, task_outputs
from yaptide.platforms.direct.broker import DESCRIBE, MERGE, MERGE_QUEUE, SIMULATE, durable_queue, make_celery, queue_of
from yaptide.platforms.direct.running import Job, heartbeat_thread, run_task
from yaptide.platforms.direct.worker_api import RemoteReporter, Server, is_reached
from yaptide.simulators import get_simulator, list_installed
from yaptide.simulators.base import Installation
from yaptide_client.extras import needed_for

with needed_for("A worker"):
    from celery import Celery
    from celery.exceptions import SecurityWarning
    from celery.signals import setup_logging, worker_ready, worker_shutting_down
    from celery.worker import state as worker_state
    from celery.worker.control import inspect_command

log = logging.getLogger(__name__)

_PATIENCE = 3600.0
"""Seconds for which results are offered to a server that does not answer."""
_NEW = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker works: the server's URL, its simulators, a folder of its own, a time limit for tasks (s)."""

    backend_url: str
    simulators: Path
    work: Path
    time_limit: float


class _Stop(threading.Event):
    """Set in the worker, seen by its children: they share a page of memory."""

    def __init__(self) -> None:
        super().__init__()
        self._page = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._page[0] = 1

    def is_set(self) -> bool:
        return self._page[0] == 1


class Worker:
    """What a worker's children do with a message."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stop = _Stop()

    def stop(self) -> None:
        """Have running tasks end at once and be given back."""
        self._stop.set()

    def installed(self) -> dict[str, Installation]:
        """The simulators that there are on this machine."""
        return list_installed(self._place.simulators)

    def simulate(self, simulation_id: int, task_id: int, sim_type: str, update_key: str) -> None:
        """Run a task, if it is still to be run."""
        with self._server(simulation_id, update_key) as server, self._folder() as folder, _dropped():
            require_free_space(folder, "where tasks run")  # the message counts as lost, and comes again
            installation = get_simulator(sim_type).installation(self._place.simulators)
            told = {"simulator_version": installation.version, "simulator_digest": installation.digest}
            claimed = server.insist(f"/tasks/{task_id}/claim", worker=_name(), **told)
            job = Job(
                get_simulator(claimed["sim_type"]),
                installation,
                claimed["input_files"],
                claimed["primaries"],
                claimed["seed"],
                folder / "run",
                self._place.time_limit,
            )
            reporter = RemoteReporter(server, task_id, claimed["owner"], folder / "scores.npz")
            try:
                run_task(job, reporter, self._stop, threading.Event())
            except YaptideError:
                raise
            except Exception:
                log.exception("task %s of %s failed in an unexpected way", task_id, claimed["job_id"])
                reporter.fail("an internal error, see the worker's log", {})

    def merge(self, simulation_id: int, update_key: str) -> None:
        """Merge the scores of a simulation, if they are still to be merged."""
        with self._server(simulation_id, update_key) as server, self._folder() as folder, _dropped():
            claimed = server.insist("/merge/claim", worker=_name())
            owner = claimed["owner"]
            with heartbeat_thread(lambda: server.ask("/merge/heartbeat", owner=owner)):
                try:
                    results = _merge(server, claimed["tasks"], folder)
                    server.upload("/merge/results", results, owner=owner)
                except (SimulationFailed, InvalidInput, NotFound, TooLarge) as error:  # another try would end alike
                    server.insist("/merge/failure", owner=owner, reason=str(error)[:10_000])

    def _server(self, simulation_id: int, update_key: str) -> Server:
        return Server(self._place.backend_url, simulation_id, update_key, _PATIENCE)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder of our own, locked as long as we live; those of the dead are removed."""
        self._place.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._place.work.iterdir():
            _remove_if_dead(left)
        folder = Path(tempfile.mkdtemp(prefix="task-", dir=self._place.work))
        with _lock(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def make_worker(url: str, place: Place) -> tuple[Celery, list[str]]:
    """The Celery application of a worker, and the queues that it can serve: those of its simulators, and merging.

    Raises InvalidInput, NotConfigured without a simulator.
    """
    # Root is warned for the sake of pickled messages; ours are JSON, and nothing else is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    celery, worker = make_celery(url, place.time_limit), Worker(place)
    celery.task(name=SIMULATE)(worker.simulate)
    celery.task(name=MERGE)(worker.merge)
    names = [*map(queue_of, worker.installed()), MERGE_QUEUE]
    celery.conf.task_queues = [durable_queue(name) for name in names]
    _answer_doctor(place, worker)
    worker_shutting_down.connect(lambda **_: worker.stop(), weak=False)
    return celery, names


def _answer_doctor(place: Place, worker: Worker) -> None:
    """Have the worker tell what it does, and has, when it is asked through the broker."""

    @inspect_command(name=DESCRIBE)
    def describe(state: Any, **_: object) -> dict[str, object]:
        return {
            "queues": sorted(queue.name for queue in state.consumer.task_consumer.queues),
            "busy": len(worker_state.active_requests),
            "slots": state.consumer.pool.limit,
            "reaches_server": is_reached(place.backend_url),
            "simulators": {name: (found.version, found.digest) for name, found in worker.installed().items()},
        }


def keep_logging() -> None:
    """Have Celery, which would set up logging in its own way in each process, leave it as it is.

    Its lines about each message, and httpx's about each report of a task, are not worth keeping.
    """
    setup_logging.connect(lambda **_: None, weak=False)
    for name in ("celery", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.worker.pidbox").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """That the broker went away while the worker answered the server is one line."""
    record.exc_info = None
    return True


def on_ready(tell: Callable[[], None]) -> None:
    """Have `tell` called when the worker of this process takes messages."""
    worker_ready.connect(lambda **_: tell(), weak=False)


def _merge(server: Server, tasks: list[dict[str, int]], folder: Path) -> Path:
    paths = [folder / f"{task['task_id']}.npz" for task in tasks]
    for task, path in zip(tasks, paths, strict=True):
        server.download(f"/tasks/{task['task_id']}/output", path)
    results = folder / "results.zip"
    with results.open("wb") as file, tempfile.TemporaryFile(dir=folder) as aside:
        result_files.write_results(
            file, task_outputs.merge_outputs(paths, [task["primaries"] for task in tasks], aside)
        )
    return results


def _name() -> str:
    """A name that no other run has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"


@contextmanager
def _dropped() -> Iterator[None]:
    """What the server says is not to be done is not done, and no failure."""
    try:
        yield
    except Conflict as refused:
        log.info("%s", refused)
    except YaptideError as error:
        log.warning("%s", error)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_if_dead(folder: Path) -> None:
    try:
        if time.time() - folder.stat().st_mtime < _NEW:
            return  # its owner may not have locked it yet
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # somebody works there
    finally:
        os.close(descriptor)

"""The worker: a Celery process whose child processes run tasks and merges, and report to the server over HTTP.

A message is only a hint: the worker asks the server, which answers from the database, whether there is work. Messages
that arrive twice, late, or for canceled tasks therefore do nothing.
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
from yaptide.platforms.direct.worker_api import RemoteReporter, Server, is_reachable
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
"""Seconds for which results are sent again to a server that does not answer."""
_NEW = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Settings of a worker: URL of the server, folders of simulators and of tasks, time limit of tasks (s)."""

    backend_url: str
    simulators: Path
    work: Path
    time_limit: float


class _Stop(threading.Event):
    """An event that is set in the worker and visible in its child processes, through shared memory."""

    def __init__(self) -> None:
        super().__init__()
        self._page = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._page[0] = 1

    def is_set(self) -> bool:
        return self._page[0] == 1


class Worker:
    """Handles messages in the child processes of a worker."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stop = _Stop()

    def stop(self) -> None:
        """Let running tasks end at once and be returned."""
        self._stop.set()

    def list_installed(self) -> dict[str, Installation]:
        """The simulators that are installed on this machine, by name."""
        return list_installed(self._place.simulators)

    def simulate_task(self, simulation_id: int, task_id: int, sim_type: str, update_key: str) -> None:
        """Run a task, unless the server says that it must not run."""
        with self._server(simulation_id, update_key) as server, self._folder() as folder, _dropped():
            require_free_space(folder, "where tasks run")  # the message counts as lost and is sent again
            installation = get_simulator(sim_type).installation(self._place.simulators)
            program = {"simulator_version": installation.version, "simulator_digest": installation.digest}
            claimed = server.post(f"/tasks/{task_id}/claim", worker=_make_name(), **program)
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
                log.exception("unexpected error in task %s of %s", task_id, claimed["job_id"])
                reporter.fail_task("an internal error, see the worker's log", {})

    def merge_results(self, simulation_id: int, update_key: str) -> None:
        """Merge the results of a simulation, unless the server says that this is not needed."""
        with self._server(simulation_id, update_key) as server, self._folder() as folder, _dropped():
            claimed = server.post("/merge/claim", worker=_make_name())
            owner = claimed["owner"]
            with heartbeat_thread(lambda: server.post_once("/merge/heartbeat", owner=owner)):
                try:
                    results = _merge(server, claimed["tasks"], folder)
                    server.upload_file("/merge/results", results, owner=owner)
                except (SimulationFailed, InvalidInput, NotFound, TooLarge) as error:  # a retry would fail too
                    server.post("/merge/failure", owner=owner, reason=str(error)[:10_000])

    def _server(self, simulation_id: int, update_key: str) -> Server:
        return Server(self._place.backend_url, simulation_id, update_key, _PATIENCE)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A locked folder for one run; removes folders of processes that died."""
        self._place.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self._place.work.iterdir():
            _remove_if_dead(old)
        folder = Path(tempfile.mkdtemp(prefix="task-", dir=self._place.work))
        with _lock(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def make_worker(url: str, place: Place) -> tuple[Celery, list[str]]:
    """The Celery application of a worker, and its queues: those of its simulators, and the one for merging.

    Raises InvalidInput for an invalid URL, and NotConfigured without a simulator.
    """
    # Celery warns root about pickled messages; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    celery, worker = make_celery(url, place.time_limit), Worker(place)
    celery.task(name=SIMULATE)(worker.simulate_task)
    celery.task(name=MERGE)(worker.merge_results)
    names = [*map(queue_of, worker.list_installed()), MERGE_QUEUE]
    celery.conf.task_queues = [durable_queue(name) for name in names]
    _answer_queries(place, worker)
    worker_shutting_down.connect(lambda **_: worker.stop(), weak=False)
    return celery, names


def _answer_queries(place: Place, worker: Worker) -> None:
    """Let the worker describe itself when it is queried through the broker (`Broker.list_workers`)."""

    @inspect_command(name=DESCRIBE)
    def describe(state: Any, **_: object) -> dict[str, object]:
        return {
            "queues": sorted(queue.name for queue in state.consumer.task_consumer.queues),
            "busy": len(worker_state.active_requests),
            "slots": state.consumer.pool.limit,
            "reaches_server": is_reachable(place.backend_url),
            "simulators": {name: (code.version, code.digest) for name, code in worker.list_installed().items()},
        }


def keep_logging() -> None:
    """Prevent Celery from changing the logging of the process.

    Also drops the lines of Celery about each message, and of httpx about each report.
    """
    setup_logging.connect(lambda **_: None, weak=False)
    for name in ("celery", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.worker.pidbox").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log a broker that fails while the worker answers a query in one line."""
    record.exc_info = None
    return True


def on_ready(callback: Callable[[], None]) -> None:
    """Call `callback` when the worker of this process accepts messages."""
    worker_ready.connect(lambda **_: callback(), weak=False)


def _merge(server: Server, tasks: list[dict[str, int]], folder: Path) -> Path:
    paths = [folder / f"{task['task_id']}.npz" for task in tasks]
    for task, path in zip(tasks, paths, strict=True):
        server.download_file(f"/tasks/{task['task_id']}/output", path)
    results = folder / "results.zip"
    with results.open("wb") as file, tempfile.TemporaryFile(dir=folder) as temporary:
        result_files.write_results(
            file, task_outputs.merge_outputs(paths, [task["primaries"] for task in tasks], temporary)
        )
    return results


def _make_name() -> str:
    """A unique name for one run."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"


@contextmanager
def _dropped() -> Iterator[None]:
    """Drop a message if the server rejects the work, without an error."""
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
        pass  # its owner is alive
    finally:
        os.close(descriptor)

"""The production platform: PostgreSQL, a broker, the server, and Celery workers, each as separate processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.brokers import Broker
from tests.support.postgres import Postgres, free_port
from tests.support.processes import Place, Running, Server, descendants, place, session, until, working_folders
from yaptide.domain.states import EntityState
from yaptide.platforms.direct import broker as celery
from yaptide.services import lifecycle
from yaptide.services.backend import Backend
from yaptide.services.spool import Folder
from yaptide.simulators.mcsquare import MCsquare

TASKS = 4
#: Each task takes a second.
PRIMARIES = 48_000


#: Seconds without a heartbeat after which a worker counts as dead.
SILENCE = 3


@dataclass
class Production:
    """A server and its workers, which share only the broker and the server's address."""

    server_place: Place
    broker: Broker
    port: int
    workers: list[Place] = field(default_factory=list)

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> Server:
        """Start the server, always at the same address."""
        return self.server_place.up(port=self.port)

    def serve_with_full_spool(self) -> tuple[Server, Path]:
        """Start the server with a full staging area on a separate disk; return also the file that fills it.

        Only the server sees the disk: it is mounted in a mount namespace, which needs no privileges.
        """
        spool = self.server_place.data / "spool"
        spool.mkdir(parents=True)
        script = 'mount -t tmpfs -o size=1m tmpfs "$0" && head -c 1000000 /dev/zero > "$0/.balloon"; exec "$@"'
        wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(spool)]
        server = self.server_place.up(port=self.port, wrapper=wrapper)
        return server, Path(f"/proc/{server.running.pid}/root{spool}/.balloon")

    def work(self, *arguments: object, backend_url: str = "", **variables: str) -> Running:
        """Start a worker with one process in its own folder; return when it accepts messages."""
        folder = self.server_place.folder.parent / f"worker-{len(self.workers)}"
        worker_place = Place(
            folder, {"CELERY_BROKER_URL": self.broker.url, "YAPTIDE_BACKEND_URL": backend_url or self.url}
        )
        self.workers.append(worker_place)
        running = worker_place.start("worker", "--concurrency", 1, *arguments, **variables)
        until(partial(self.is_ready, running), "the worker accepts messages")
        return running

    def is_ready(self, worker: Running) -> bool:
        """Return whether a worker accepts messages; raise RuntimeError if it has ended."""
        if worker.process.poll() is not None:
            raise RuntimeError(f"the worker has ended: {worker.said}")
        return "takes tasks" in worker.said

    def running(self) -> list[tuple[int, Path]]:
        """Return the running simulators with their folders."""
        works = [worker.data / "work" for worker in self.workers]
        folders = working_folders()
        return [(pid, folder) for pid, folder in folders if any(folder.is_relative_to(work) for work in works)]

    def in_the_middle(self) -> bool:
        """Return whether a simulator is between its start and its end."""
        return any(0 < MCsquare().progress(folder, 100) < 100 for _, folder in self.running())

    def simulator_of(self, worker: Running) -> int | None:
        """Return the simulator that a worker runs, or None."""
        below = descendants(worker.pid)
        return next((pid for pid, _ in self.running() if pid in below), None)

    def kill(self, running: Running) -> None:
        """Kill a process and its descendants in the same session, at once."""
        for pid in session(running.pid):
            os.kill(pid, signal.SIGKILL)
        running.wait()

    def queues_empty(self) -> bool:
        """Return whether no message is queued."""
        return not any(celery.Broker(self.broker.url, 3600).count_messages().values())

    def update_key(self, job_id: str) -> str:
        """Return the update key of a simulation."""
        key = (self.server_place.data / "signing.key").read_bytes()
        backend = Backend(self.server_place.database, Folder(self.server_place.data / "spool"), key)
        return lifecycle.update_key(backend, job_id)

    def resend(self) -> None:
        """Send every message again without being asked to."""
        rows = self.server_place.query(
            'SELECT s.id, s.job_id, t.task_id FROM "Simulation" s JOIN "Task" t ON t.simulation_id = s.id'
        )
        update_key = self.update_key(rows[0][1])
        send = celery.Broker(self.broker.url, 3600).send_messages
        tasks = [(f"again-{task}", [number, task, "mcsquare", update_key]) for number, _, task in rows]
        assert send(celery.SIMULATE, celery.queue_of("mcsquare"), tasks) == []
        assert send(celery.MERGE, celery.MERGE_QUEUE, [("again-merge", [rows[0][0], update_key])]) == []


def submit(server: Server, source: Path, tasks: int = TASKS) -> str:
    """Submit a simulation; return its job id."""
    with server.register().client() as client:
        return client.submit(source, ntasks=tasks).job_id


def check_whole(server: Server, job_id: str, undisturbed: str) -> list[dict[str, Any]]:
    """Check that each task completes once with the results of an undisturbed run; return the history."""
    with server.client() as client:
        job = client.job(job_id)
        assert job.wait(120, every=0.1) is EntityState.COMPLETED, job.history()
        tasks = job.status()["job_tasks_status"]
        assert {task["task_state"] for task in tasks} == {"COMPLETED"}
        assert sum(task["simulated_primaries"] for task in tasks) == PRIMARIES
        history = job.history()
        ended = [row["task_id"] for row in history if row["to_state"] == "COMPLETED"]
        assert sorted(ended, key=str) == [*range(TASKS), None]
        assert client._http.get("/results", params={"job_id": job_id}).text == undisturbed
        return history


@contextmanager
def installed(folder: Path, postgres: Postgres, broker: Broker, silence: int = SILENCE) -> Iterator[Production]:
    """Yield a production platform without running server and workers, and remove everything afterwards."""
    url = postgres.create_database()
    variables = {
        "FLASK_SQLALCHEMY_DATABASE_URI": url,
        "CELERY_BROKER_URL": broker.url,
        "YAPTIDE_SILENCE_SECONDS": str(silence),
        "YAPTIDE_FOREIGN_WORKERS": "mcsquare",  # submissions are accepted before a worker has announced itself
    }
    with place(folder / "server", **variables) as server_place:
        assert server_place.run("db", "upgrade").code == 0
        production = Production(server_place, broker, free_port())
        try:
            yield production
        finally:
            for worker in production.workers:
                worker.close()
    postgres.drop_database(url)

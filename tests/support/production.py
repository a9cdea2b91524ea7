"""The production platform: PostgreSQL, a broker, the server, and Celery workers, each a process of its own."""

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
#: Each task takes a second or two.
PRIMARIES = 80_000


#: After so many seconds without a sign of life a worker counts as dead.
SILENCE = 3


@dataclass
class Production:
    """A server and its workers, which share nothing with it but the broker and the server's address."""

    server_place: Place
    broker: Broker
    port: int
    workers: list[Place] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> Server:
        """Start the server, at the same address each time."""
        return self.server_place.up(port=self.port)

    def serve_with_full_spool(self) -> tuple[Server, Path]:
        """Start the server with a spool on a disk of its own that is full, and the file that fills it.

        The disk is there for the server alone: it is mounted in a name space, which needs no privileges.
        """
        spool = self.server_place.data / "spool"
        spool.mkdir(parents=True)
        script = 'mount -t tmpfs -o size=1m tmpfs "$0" && head -c 1000000 /dev/zero > "$0/.balloon"; exec "$@"'
        wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(spool)]
        server = self.server_place.up(port=self.port, wrapper=wrapper)
        return server, Path(f"/proc/{server.running.pid}/root{spool}/.balloon")

    def work(self, *arguments: object, backend_url: str = "", **variables: str) -> Running:
        """Start a worker with one process, in a place of its own; returns when it takes messages."""
        folder = self.server_place.folder.parent / f"worker-{len(self.workers)}"
        there = Place(folder, {"CELERY_BROKER_URL": self.broker.url, "YAPTIDE_BACKEND_URL": backend_url or self.url})
        self.workers.append(there)
        running = there.start("worker", "--concurrency", 1, *arguments, **variables)
        until(partial(self.is_ready, running), "the worker takes messages")
        return running

    def is_ready(self, worker: Running) -> bool:
        """Whether a worker takes messages; RuntimeError if it never will."""
        if worker.process.poll() is not None:
            raise RuntimeError(f"the worker has ended: {worker.said}")
        return "takes tasks" in worker.said

    def running(self) -> list[tuple[int, Path]]:
        """The simulators that run, with their folders."""
        works = [there.data / "work" for there in self.workers]
        found = working_folders()
        return [(pid, folder) for pid, folder in found if any(folder.is_relative_to(work) for work in works)]

    def in_the_middle(self) -> bool:
        """Whether a simulator is between its start and its end."""
        return any(0 < MCsquare().progress(folder, 100) < 100 for _, folder in self.running())

    def simulator_of(self, worker: Running) -> int | None:
        """The simulator that a worker runs, or None."""
        below = descendants(worker.pid)
        return next((pid for pid, _ in self.running() if pid in below), None)

    def kill(self, running: Running) -> None:
        """Kill a process, and what it has started but for what left its session, at once."""
        for pid in session(running.pid):
            os.kill(pid, signal.SIGKILL)
        running.wait()

    def queues_empty(self) -> bool:
        """Whether no message waits."""
        return not any(celery.Broker(self.broker.url, 3600).count_messages().values())

    def update_key(self, job_id: str) -> str:
        """What workers of a simulation report with."""
        key = (self.server_place.data / "signing.key").read_bytes()
        backend = Backend(self.server_place.database, Folder(self.server_place.data / "spool"), key)
        return lifecycle.update_key(backend, job_id)

    def resend(self) -> None:
        """Send every message once more, though nobody asked for it."""
        rows = self.server_place.query(
            'SELECT s.id, s.job_id, t.task_id FROM "Simulation" s JOIN "Task" t ON t.simulation_id = s.id'
        )
        update_key = self.update_key(rows[0][1])
        send = celery.Broker(self.broker.url, 3600).send
        tasks = [(f"again-{task}", [number, task, "mcsquare", update_key]) for number, _, task in rows]
        assert send(celery.SIMULATE, celery.queue_of("mcsquare"), tasks) == []
        assert send(celery.MERGE, celery.MERGE_QUEUE, [("again-merge", [rows[0][0], update_key])]) == []


def submit(server: Server, source: Path, tasks: int = TASKS) -> str:
    """Submit a simulation; its public name."""
    with server.register().client() as client:
        return client.submit(source, ntasks=tasks).job_id


def check_whole(server: Server, job_id: str, undisturbed: str) -> list[dict[str, Any]]:
    """The simulation completes, each task once, with the numbers of the embedded system's run; its history."""
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
    """A production platform of which nothing is left afterwards; no server and no worker runs yet."""
    url = postgres.create_database()
    variables = {
        "FLASK_SQLALCHEMY_DATABASE_URI": url,
        "CELERY_BROKER_URL": broker.url,
        "YAPTIDE_SILENCE_SECONDS": str(silence),
        "YAPTIDE_FOREIGN_WORKERS": "mcsquare",  # nobody need wait until the server has heard of a worker
    }
    with place(folder / "server", **variables) as there:
        assert there.run("db", "upgrade").code == 0
        made = Production(there, broker, free_port())
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.close()
    postgres.drop_database(url)

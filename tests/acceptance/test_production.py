"""The production platform gives what the embedded system gives, with either broker."""

import io
import logging
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import update

from tests.support.brokers import rabbitmq
from tests.support.processes import beam, descendants, installation, until
from tests.support.production import TASKS, Production, check_whole, installed, submit
from yaptide.domain.errors import Unavailable
from yaptide.domain.estimators import Axis, Estimator, Page, TaskOutput
from yaptide.domain.states import EntityState
from yaptide.persistence import task_outputs
from yaptide.persistence.models import RunnerModel

log = logging.getLogger(__name__)


def test_two_workers_give_what_the_embedded_system_gives(production, source, embedded):
    server = production.serve()
    workers = [production.work(), production.work()]
    history = check_whole(server, submit(server, source), embedded)
    ran = {row["actor"] for row in history if row["task_id"] is not None and row["to_state"] == "COMPLETED"}
    assert len(ran) == TASKS  # each run has a name of its own
    children = {actor.split("-")[-2] for actor in ran}
    assert len(children) == 2
    ids = production.server_place.query('SELECT celery_id FROM "CeleryTask"')
    ids += production.server_place.query('SELECT merge_id FROM "CelerySimulation"')
    assert len(set(ids)) == len(ids) == TASKS + 1
    assert (None,) not in ids
    for worker in workers:
        assert worker.signal(signal.SIGTERM).code == 0
    for there in production.workers:
        assert list((there.data / "work").iterdir()) == []
    assert server.stop().code == 0


def test_the_same_over_rabbitmq(tmp_path, postgres, source, embedded):
    with rabbitmq() as broker, installed(tmp_path, postgres, broker) as production:
        server = production.serve()
        workers = [production.work(), production.work()]
        check_whole(server, submit(server, source), embedded)
        for worker in workers:
            assert worker.signal(signal.SIGTERM).code == 0


def scores(primaries: int, edge: int = 100) -> bytes:
    """The scores of a task on a grid of edge^3 voxels."""
    axes = tuple(Axis(name, "mm", np.arange(edge) + 0.5) for name in "xyz")
    values = (np.arange(edge**3) % 97) / 7
    page = Page(0, "Dose", "Gy", axes, values)
    file = io.BytesIO()
    task_outputs.write_output(file, TaskOutput(primaries, (Estimator("Dose", "Dose", (page,)),)))
    return file.getvalue()


def run_all(production: Production, job_id: str, tasks: int, primaries: int) -> None:
    """Do for each task what a worker does, without simulating."""
    ((number,),) = production.server_place.query(f"SELECT id FROM \"Simulation\" WHERE job_id = '{job_id}'")
    headers = {"Authorization": f"Bearer {production.update_key(job_id)}"}
    data = scores(primaries)
    with httpx.Client(base_url=f"{production.url}/worker/{number}/tasks", headers=headers, timeout=60) as http:
        for task_id in range(tasks):
            body = {"worker": f"w-{task_id}", "simulator_version": "1", "simulator_digest": ""}
            claimed = http.post(f"/{task_id}/claim", json=body).json()
            run = {name: claimed[name] for name in ("owner", "attempt")}
            answer = http.put(f"/{task_id}/output", params={**run, "primaries": primaries}, content=data)
            assert answer.json()["wanted"], answer.text


def high_water(pid: int) -> float:
    """The most memory that a process has had, MiB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_the_memory_of_a_merge_does_not_grow_with_the_number_of_tasks(production, tmp_path):
    server = production.serve()
    source = beam(tmp_path / "beam", 64 * 160)
    used = {}
    server.register()
    for tasks in (4, 64):
        worker = production.work("--queues", "merge")  # a new one each time
        with server.client() as client:
            job = client.submit(source, ntasks=tasks)
            run_all(production, job.job_id, tasks, 64 * 160 // tasks)
            assert job.wait(120, every=0.1) == "COMPLETED"
        used[tasks] = max(map(high_water, descendants(worker.pid)))
        assert worker.signal(signal.SIGTERM).code == 0
    log.info("most memory of the merging worker: %.0f MiB with 4 tasks, %.0f MiB with 64", used[4], used[64])
    # Some pages of 8 MiB are read ahead, more of them where there are more; one for each task would be 480 MiB.
    assert used[64] < used[4] + 64


def announced(production):
    """What workers have announced: version and digest of each simulator."""
    return production.server_place.query('SELECT DISTINCT version, digest FROM "RunnerSimulator"')


def age_runners(production):
    """Have nothing been heard of any runner for an hour."""
    with production.server_place.database.writing() as connection:
        connection.execute(update(RunnerModel.__table__).values(heartbeat_time=datetime.now(UTC) - timedelta(hours=1)))


def test_what_no_worker_has_is_refused_until_one_is_there(production, source):
    server = production.server_place.up(port=production.port, YAPTIDE_FOREIGN_WORKERS="").register()
    with server.client() as client:
        with pytest.raises(Unavailable, match="MCsquare is not installed: an administrator can"):
            client.submit(source)
        assert client.simulations() == []
        production.work("--queues", "merge")
        worker = production.work()
        until(lambda: announced(production), "the server has heard of the worker")
        assert announced(production) == [(installation().version, installation().digest)]
        job = client.submit(source)
        assert "waiting" not in job.status()
        assert job.wait(120, every=0.1) is EntityState.COMPLETED
        worker.signal(signal.SIGTERM)
        job = client.submit(source)  # a worker that is restarted is back in a moment
        gone = until(lambda: age_runners(production) or job.status().get("waiting"), "it waits for a worker")
        assert gone.startswith("No runner with MCsquare has sent a heartbeat since")
        production.work()
        assert job.wait(120, every=0.1) is EntityState.COMPLETED

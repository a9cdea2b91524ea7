"""Whatever dies or fails in production: the simulation ends as it should, with the numbers of an undisturbed run."""

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial

import httpx
import pytest

from tests.support.processes import Server, alive, beam, fake, until
from tests.support.production import TASKS, Production, check_whole, installed, submit
from tests.support.proxy import Fate, proxy
from yaptide.client import Job
from yaptide.domain.errors import NotFound, Unavailable
from yaptide.domain.states import EntityState

#: FAULTS is how often the network's faults are drawn anew: more in `make stress`.
ROUNDS = range(1, 1 + int(os.environ.get("FAULTS", "1")))


def doctor(production: Production) -> dict[str, list[str]]:
    """What `yaptide doctor` finds wrong, by verdict."""
    done = production.server_place.run("doctor", "--json", YAPTIDE_BACKEND_URL=production.url)
    result: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
    for finding in done.json["findings"]:
        result[finding["verdict"]].append(f"{finding['subject']}: {finding['message']}")
    assert done.code == (1 if result["error"] else 0), done.err
    return result


def is_well(server: Server) -> bool:
    """Whether users can work."""
    with suppress(Unavailable), server.client() as client:
        client.simulations()
        return True
    return False


def logs_of(job: Job) -> dict[str, str]:
    """The log files of a simulation, none as long as there are none."""
    with suppress(NotFound):
        return job.logfiles()
    return {}


@pytest.fixture
def patient(tmp_path, postgres, redis_server):
    """A production platform with time for a look at it before a silent worker's task is given to another."""
    redis_server.start()
    with installed(tmp_path, postgres, redis_server, silence=20) as made:
        yield made


def test_a_worker_that_is_killed(patient, source, embedded):
    production = patient
    server = production.serve()
    victim, _ = production.work(), production.work()
    before = doctor(production)
    assert before["warning"] == before["error"] == []
    assert sum("consumes merge, simulate.mcsquare" in text for text in before["ok"]) == 2
    job_id = submit(server, source)
    simulator = until(lambda: production.simulator_of(victim), "a task runs")
    production.kill(victim)
    until(lambda: not alive(simulator), "the simulator has died with its worker")
    during = until(lambda: (result := doctor(production)) and result["warning"] and result, "doctor sees it")
    assert any(f"of {job_id}" in text and "has sent no heartbeat for" in text for text in during["warning"])
    assert sum("consumes merge, simulate.mcsquare" in text for text in during["ok"]) == 1
    history = check_whole(server, job_id, embedded)
    assert "its executor stalled, attempt 1 of 3" in [row["reason"] for row in history]
    after = doctor(production)
    assert after["warning"] == after["error"] == []


def test_a_worker_that_is_stopped_gives_back_what_it_runs(production, source, embedded):
    server = production.serve()
    first, _ = production.work(), production.work()
    job_id = submit(server, source)
    until(lambda: production.simulator_of(first), "a task runs")
    assert first.signal(signal.SIGTERM).code == 0
    history = check_whole(server, job_id, embedded)
    reasons = [row["reason"] for row in history]
    assert "its executor was stopped" in reasons
    assert not any("stalled" in str(reason) for reason in reasons)


def test_the_server_killed_while_it_receives_scores(production, source, embedded):
    server = production.serve()
    with proxy(production.port) as network:
        production.work(backend_url=network.url)
        held = []
        network.judge = lambda method, path: (
            Fate.HOLD if method == "PUT" and "/output" in path and not held and not held.append(path) else Fate.PASS
        )
        job_id = submit(server, source)
        assert network.held.wait(60)
        production.kill(server.running)
        network.released.set()
        check_whole(production.serve(), job_id, embedded)
        assert sum(method == "PUT" and "/output" in path for _, method, path in network.fates) > TASKS


def test_the_worker_killed_while_it_merges(production, source, embedded):
    server = production.serve()
    with proxy(production.port) as network:
        victim = production.work(backend_url=network.url)
        network.judge = lambda _, path: Fate.HOLD if "/merge/results" in path else Fate.PASS
        job_id = submit(server, source)
        assert network.held.wait(60)
        production.kill(victim)
        network.judge = lambda *_: Fate.PASS
        production.work()
        history = check_whole(server, job_id, embedded)
    assert "the process that merged stalled" in [row["reason"] for row in history]


def test_redis_killed_and_empty_afterwards(production, source, embedded):
    server = production.serve()
    production.work()
    job_id = submit(server, source)
    until(production.in_the_middle, "a task runs")
    production.broker.kill()
    broken = doctor(production)["error"]
    assert any(text.startswith("broker: ") for text in broken)
    production.broker.start()
    check_whole(server, job_id, embedded)


def test_a_simulation_is_accepted_without_its_broker(production, source, embedded):
    server = production.serve()
    production.work()
    production.broker.kill()
    begun = time.monotonic()
    job_id = submit(server, source)
    assert time.monotonic() - begun < 20
    production.broker.start()
    check_whole(server, job_id, embedded)


def test_postgresql_killed(production, source, embedded, postgres):
    server = production.serve()
    production.work()
    job_id = submit(server, source)
    until(production.in_the_middle, "a task runs")
    postgres.kill()
    assert httpx.get(f"{production.url}/readyz", timeout=30).status_code == 503
    postgres.start()
    until(partial(is_well, server), "the server answers again")
    check_whole(server, job_id, embedded)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_network_that_loses_every_fifth_post(production, source, embedded, seed):
    server = production.serve()
    draw = random.Random(seed)
    bad = [Fate.DROP, Fate.LOSE, Fate.DELAY]
    with proxy(production.port) as network:
        network.judge = lambda *_: draw.choice(bad) if draw.random() < 0.2 else Fate.PASS
        for _ in range(2):
            production.work(backend_url=network.url)
        check_whole(server, submit(server, source), embedded)
        assert len(network.fates) > TASKS


def test_a_full_disk_under_the_spool(production, source, embedded):
    """The scores wait on their worker until there is room."""
    server, balloon = production.serve_with_full_spool()
    worker = production.work()
    job_id = submit(server, source)
    with server.client() as client:
        job = client.job(job_id)
        until(lambda: "No disk space left" in worker.said, "the disk is full")
        assert job.status()["job_state"] == "RUNNING"
    balloon.unlink()
    check_whole(server, job_id, embedded)


def test_cancel_ends_a_running_task_with_its_next_report_without_a_broker(production, tmp_path):
    """Reports come every second. What was canceled stays so, whatever messages arrive afterwards."""
    server = production.serve()
    with proxy(production.port) as network, server.register().client() as client:
        worker = production.work(backend_url=network.url)
        job = client.submit(beam(tmp_path / "beam", 4e6), ntasks=2)
        until(production.in_the_middle, "it simulates")
        simulator = production.simulator_of(worker)
        production.broker.kill()
        reports = len(network.fates)
        job.cancel()
        until(lambda: not alive(simulator), "the simulator has ended")
        until(partial(logs_of, job), "its log is kept")
        items = [path for _, _, path in network.fates[reports:] if path.endswith("/progress")]
        assert len(items) <= 2  # one may have been under way
        status = job.status()
        assert {task["task_state"] for task in status["job_tasks_status"]} == {"CANCELED"}
        production.broker.start()
        production.resend()
        until(lambda: len([path for _, _, path in network.fates[reports:] if "claim" in path]) == 3, "all were asked")
        assert job.status() == status
        assert production.simulator_of(worker) is None


def test_messages_that_arrive_twice_count_once(production, source, embedded):
    server = production.serve()
    job_id = submit(server, source)
    until(lambda: not production.queues_empty(), "the messages were sent")
    production.resend()
    production.work()
    production.work()
    check_whole(server, job_id, embedded)
    production.resend()
    until(production.queues_empty, "the messages were taken")
    check_whole(server, job_id, embedded)


def test_a_task_that_kills_its_workers_is_given_up(production, tmp_path):
    """Three times, and the reason is kept."""
    server = production.serve()
    simulators = fake(tmp_path / "simulators", "kill -KILL $(ps -o ppid= -p $PPID) $PPID; exec sleep 60")
    with server.register().client() as client:
        job = client.submit(beam(tmp_path / "beam", 1600), ntasks=1)
        for _ in range(3):
            worker = production.work(YAPTIDE_SIMULATORS_DIR=str(simulators))
            until(lambda worker=worker: worker.process.poll() is not None, "the worker was killed")
        assert job.wait(60) is EntityState.FAILED
        reasons = [str(row["reason"]) for row in job.history()]
    assert any("stalled, attempt 3 of 3: given up" in reason for reason in reasons)

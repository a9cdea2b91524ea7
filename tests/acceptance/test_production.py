"""The production platform gives what the embedded system gives, with either broker."""

import signal

from tests.support.brokers import rabbitmq
from tests.support.production import TASKS, check_whole, installed, submit


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

"""Messages through the broker, also while the broker is unavailable."""

import logging
import time

import pytest
from redis.exceptions import ConnectionError  # noqa: A004 - that of the client, which is no OSError

from tests.support.brokers import redis
from tests.support.ports import free_port
from yaptide.domain.errors import InvalidInput, Unavailable
from yaptide.platforms.direct.broker import MERGE_QUEUE, SIMULATE, Broker, queue_of
from yaptide.platforms.direct.worker import keep_logging

QUEUE = queue_of("mcsquare")
SECRET = "the-update-key"


@pytest.fixture(scope="module")
def running():
    with redis() as broker:
        yield broker


def test_messages_wait_in_the_queue_of_their_simulator(running):
    running.restart()
    broker = Broker(running.url, 3600)
    messages = [(f"name-{number}", [1, number, "mcsquare", SECRET]) for number in range(100)]
    assert broker.send_messages(SIMULATE, QUEUE, messages) == []
    assert broker.count_messages([QUEUE, MERGE_QUEUE]) == {QUEUE: 100, MERGE_QUEUE: 0}
    assert broker.list_workers() == {}


def test_only_the_arguments_of_a_message_hold_the_key(running):
    """What Celery shows and logs of a message are its headers."""
    running.restart()
    broker = Broker(running.url, 3600)
    broker.send_messages(SIMULATE, QUEUE, [("name", [1, 0, "mcsquare", SECRET])])
    with broker.celery.connection_for_read() as connection, connection.SimpleQueue(QUEUE) as queue:
        message = queue.get(timeout=10)
        assert SECRET not in str(message.headers) + str(message.properties)
        assert SECRET in str(message.payload)
        message.ack()


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:{}/0", "amqp://user:hidden@127.0.0.1:{}//"])
def test_a_broker_that_is_away_costs_seconds_and_loses_nothing(scheme):
    broker = Broker(scheme.format(free_port()), 3600)
    begun = time.monotonic()
    assert broker.send_messages(SIMULATE, QUEUE, [("a", []), ("b", [])]) == ["a", "b"]
    with pytest.raises(Unavailable, match="cannot be reached") as message:
        broker.count_messages()
    assert "hidden" not in str(message.value) + str(broker)
    assert time.monotonic() - begun < 60


def test_a_broker_that_goes_away_in_the_middle_is_away(running, monkeypatch):
    running.restart()
    broker = Broker(running.url, 3600)

    def broadcast(*_, **__):
        raise ConnectionError("Connection closed by server.")

    monkeypatch.setattr(broker.celery.control, "broadcast", broadcast)
    with pytest.raises(Unavailable, match="cannot be reached"):
        broker.list_workers()


@pytest.mark.parametrize("url", ["sqs://x", "http://host", "host:6379", "memory://"])
def test_only_brokers_that_are_tested_are_taken(url):
    with pytest.raises(InvalidInput, match="redis://"):
        Broker(url, 3600)


def test_a_broker_that_goes_while_a_worker_answers_the_server_is_one_line(caplog):
    keep_logging()
    error = ConnectionRefusedError()
    logging.getLogger("celery.worker.pidbox").error("Control command error: %r", error, exc_info=error)
    assert caplog.text.count("\n") == 1

"""Messages between the server and its workers, through a broker (Redis or RabbitMQ) with Celery.

Messages are hints, and a lost message loses no work: the database holds all work, and a worker that gets a message asks
the server whether there is still something to do. A message has the numbers of simulation and task and the update key.

There is a queue for each simulator, so that a worker gets only tasks that it can run, and one for merging.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from yaptide.domain.errors import InvalidInput, Unavailable
from yaptide.simulators import list_names
from yaptide_client.extras import needed_for

with needed_for("A broker (CELERY_BROKER_URL)"):
    from celery import Celery
    from kombu.connection import Connection
    from kombu.entity import Exchange, Queue
    from kombu.exceptions import OperationalError
    from kombu.utils.url import maybe_sanitize_url

log = logging.getLogger(__name__)

SIMULATE = "yaptide.simulate"
MERGE = "yaptide.merge"
DESCRIBE = "yaptide.describe"
MERGE_QUEUE = "merge"

#: A broker that does not answer within this time (s) counts as unavailable.
_PATIENCE = 2.0
_SCHEMES = ("redis", "rediss", "unix", "amqp", "amqps")


def queue_of(sim_type: str) -> str:
    """The queue of the tasks of a simulator."""
    return f"simulate.{sim_type}"


def make_celery(url: str, task_limit: float) -> Celery:
    """The Celery application of server and workers; `task_limit` (s) is the longest time that a task may run.

    It does not connect yet. Raises InvalidInput for a URL that is not one of a broker.
    """
    if url.partition("://")[0] not in _SCHEMES:
        raise InvalidInput("Invalid CELERY_BROKER_URL: use redis://host:6379/0 or amqp://user:password@host:5672/name")
    app = Celery("yaptide", broker=url, backend=None, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        # The message of a worker that dies goes to another one, which asks the server whether there is work left.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_time_limit=task_limit + 3600,  # a last resort: normally the worker ends the simulator
        task_default_exchange_type="direct",
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_PATIENCE,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=True,
        worker_send_task_events=False,
        enable_utc=True,
    )
    if url.startswith(("redis", "unix")):
        app.conf.broker_transport_options = {
            "visibility_timeout": int(task_limit + 7200),  # then the message goes to another worker
            "socket_connect_timeout": _PATIENCE,
            "socket_timeout": 30.0,
        }
    return app


def durable_queue(name: str) -> Queue:
    """A queue that survives a restart of the broker."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name, durable=True)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker: its queues, its busy processes and all its processes, and whether it can reach the server.

    `simulators` has version and digest of its simulators, by name.
    """

    queues: tuple[str, ...]
    busy: int
    slots: int
    reaches_server: bool
    simulators: Mapping[str, tuple[str, str]]


class Broker:
    """The broker, as the server uses it. No call takes more than a few seconds."""

    def __init__(self, url: str, task_limit: float) -> None:
        self.celery = make_celery(url, task_limit)
        self._is_down = False

    def send_messages(self, task: str, queue_name: str, messages: Iterable[tuple[str, list[object]]]) -> list[str]:
        """Send messages (name, arguments); returns the names of those that could not be sent."""
        left = list(messages)
        try:
            with self._connected() as connection, self.celery.amqp.Producer(connection) as producer:
                while left:
                    name, arguments = left[0]
                    # Celery would log the arguments, which include the update key.
                    options = {
                        "queue": durable_queue(queue_name),
                        "producer": producer,
                        "retry": False,
                        "argsrepr": "(...)",
                    }
                    self.celery.send_task(task, args=arguments, task_id=name, **options)
                    left.pop(0)
        except Unavailable as error:
            if not self._is_down:
                log.warning("messages cannot be sent yet: %s", error)
            self._is_down = True
        else:
            self._is_down = False
        return [name for name, _ in left]

    def list_workers(self) -> dict[str, WorkerState]:
        """The workers that answer, by name; raises Unavailable."""
        with self._connected() as connection:
            answers = self.celery.control.broadcast(DESCRIBE, reply=True, timeout=_PATIENCE, connection=connection)
        replies = {name: reply for answer in answers or () for name, reply in answer.items()}
        return {name: _make_state(reply) for name, reply in sorted(replies.items()) if "queues" in reply}

    def count_messages(self, queues: Iterable[str] | None = None) -> Mapping[str, int]:
        """The number of waiting messages in each queue (default: all queues); raises Unavailable."""
        with self._connected() as connection:
            counts = {}
            for name in [*map(queue_of, list_names()), MERGE_QUEUE] if queues is None else queues:
                with connection.channel() as channel:
                    counts[name] = durable_queue(name)(channel).queue_declare().message_count
            return counts

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        connection = self.celery.connection_for_write()
        try:
            with connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_PATIENCE)
                yield connection
        except (
            OperationalError,
            OSError,
            *connection.connection_errors,
        ) as error:  # the last are those of its client library
            raise Unavailable(f"the broker cannot be reached: {_describe_error(error)}") from error

    def __str__(self) -> str:
        """The broker's URL, without a password."""
        return str(maybe_sanitize_url(self.celery.conf.broker_url))


def _make_state(reply: Mapping[str, Any]) -> WorkerState:
    queues = tuple(reply["queues"])
    known = reply.get("simulators", {})  # missing from workers of older versions
    served = {name: tuple(known.get(name, ("", ""))) for name in list_names() if queue_of(name) in queues}
    return WorkerState(queues, reply["busy"], reply["slots"], reply["reaches_server"], served)


def _describe_error(error: Exception) -> str:
    """The error, without the password in the URL."""
    return type(error).__name__ if "@" in str(error) else str(error)

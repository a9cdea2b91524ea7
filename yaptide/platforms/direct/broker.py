"""How the server and its workers speak through a broker (Redis or RabbitMQ) with Celery.

Messages are hints, and nothing is lost with them: what is to be done is in the database, and whoever gets a message
asks the server whether that is still so. They name a simulation, a task and the update key, and carry no data.

Queues: one for each simulator, so that a worker takes what it has the code for, and one for merging.
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

#: A broker that does not answer within so many seconds is away.
_PATIENCE = 2.0
_SCHEMES = ("redis", "rediss", "unix", "amqp", "amqps")


def queue_of(sim_type: str) -> str:
    """The queue of the tasks that need a simulator."""
    return f"simulate.{sim_type}"


def all_queues() -> list[str]:
    """Every queue there can be."""
    return [*map(queue_of, list_names()), MERGE_QUEUE]


def make_celery(url: str, task_limit: float) -> Celery:
    """Celery as server and workers both use it; `task_limit` (s) is the longest that a task may run.

    Nothing is connected yet. Raises InvalidInput for a URL that is none of a broker.
    """
    if url.partition("://")[0] not in _SCHEMES:
        raise InvalidInput("CELERY_BROKER_URL is redis://host:6379/0 or amqp://user:password@host:5672/name")
    app = Celery("yaptide", broker=url, backend=None, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        # Whoever dies with a message leaves it to others; they are told whether there is still something to do.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_time_limit=task_limit + 3600,  # the last resort: a worker ends a simulator that takes too long by itself
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
            "visibility_timeout": int(task_limit + 7200),  # until then a message is not given to another
            "socket_connect_timeout": _PATIENCE,
            "socket_timeout": 30.0,
        }
    return app


def durable_queue(name: str) -> Queue:
    """A queue that survives a restart of the broker."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name, durable=True)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The queues that a worker serves, how many of its processes are busy, and whether the server answers it.

    `simulators` has version and digest of those that it serves, by name.
    """

    queues: tuple[str, ...]
    busy: int
    slots: int
    reaches_server: bool
    simulators: Mapping[str, tuple[str, str]]


class Broker:
    """The broker as the server sees it. No call takes more than a few seconds."""

    def __init__(self, url: str, task_limit: float) -> None:
        self.celery = make_celery(url, task_limit)
        self._away = False

    def send(self, task: str, queue_name: str, messages: Iterable[tuple[str, list[object]]]) -> list[str]:
        """Send messages (name, arguments); returns the names of those that were not, since the broker is away."""
        left = list(messages)
        try:
            with self._connected() as connection, self.celery.amqp.Producer(connection) as producer:
                while left:
                    name, arguments = left[0]
                    # Celery shows and logs the text of arguments; the update key is none of anybody's business.
                    options = {
                        "queue": durable_queue(queue_name),
                        "producer": producer,
                        "retry": False,
                        "argsrepr": "(...)",
                    }
                    self.celery.send_task(task, args=arguments, task_id=name, **options)
                    left.pop(0)
        except Unavailable as error:
            if not self._away:
                log.warning("messages wait: %s", error)
            self._away = True
        else:
            self._away = False
        return [name for name, _ in left]

    def workers(self) -> dict[str, WorkerState]:
        """The workers that answer, by their names; raises Unavailable."""
        with self._connected() as connection:
            answers = self.celery.control.broadcast(DESCRIBE, reply=True, timeout=_PATIENCE, connection=connection)
        found = {name: told for answer in answers or () for name, told in answer.items()}
        return {name: _state(told) for name, told in sorted(found.items()) if "queues" in told}

    def depths(self, queues: Iterable[str] | None = None) -> Mapping[str, int]:
        """How many messages wait in each queue (by default in all that there can be); raises Unavailable."""
        with self._connected() as connection:
            found = {}
            for name in all_queues() if queues is None else queues:
                with connection.channel() as channel:
                    found[name] = durable_queue(name)(channel).queue_declare().message_count
            return found

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        connection = self.celery.connection_for_write()
        try:
            with connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_PATIENCE)
                yield connection
        except (OperationalError, OSError, *connection.connection_errors) as error:  # the last: its client's own
            raise Unavailable(f"the broker cannot be reached: {_told(error)}") from error

    def __str__(self) -> str:
        """The broker's URL, without a password."""
        return str(maybe_sanitize_url(self.celery.conf.broker_url))


def _state(told: Mapping[str, Any]) -> WorkerState:
    queues = tuple(told["queues"])
    known = told.get("simulators", {})  # a worker of an older version does not tell
    served = {name: tuple(known.get(name, ("", ""))) for name in list_names() if queue_of(name) in queues}
    return WorkerState(queues, told["busy"], told["slots"], told["reaches_server"], served)


def _told(error: Exception) -> str:
    """What went wrong, without the address's password."""
    return type(error).__name__ if "@" in str(error) else str(error)

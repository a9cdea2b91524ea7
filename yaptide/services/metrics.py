"""Figures for Prometheus: what this process has done since it started, and what the database holds.

All of it is in this process: there is one that serves, and after a restart it counts from 0 again.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from yaptide.domain.errors import YaptideError
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.queries import stats
from yaptide.services.backend import Backend, utc_now

_WAITING_STATES = (EntityState.PENDING, EntityState.RUNNING)

disable_created_metrics()  # a series more for each of ours, which nobody asks for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

#: Requests that come in or are being answered.
IN_PROGRESS = Gauge(
    "yaptide_http_requests_in_progress", "Requests that come in or are being answered.", registry=REGISTRY
)
#: Threads that are at work for requests.
THREADS_BUSY = Gauge("yaptide_http_threads_busy", "Threads that are at work for requests.", registry=REGISTRY)
_REQUESTS = Histogram(
    "yaptide_http_request_seconds",
    "Time from a request to the end of its answer; `route` is the template of its path, `status` such as 2xx.",
    ("method", "route", "status"),
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
_RECEIVED = Counter("yaptide_http_received_bytes", "Bytes of bodies that were read.", registry=REGISTRY)
_SENT = Counter("yaptide_http_sent_bytes", "Bytes of bodies that were sent.", registry=REGISTRY)
_TASKS = Histogram(
    "yaptide_task_seconds",
    "Time that a task ran, as its worker reported it; `outcome` is the state it ended in.",
    ("sim_type", "outcome"),
    registry=REGISTRY,
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600),
)


def observe_request(method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
    """Count a request whose answer has been sent."""
    _REQUESTS.labels(method, route, f"{status // 100}xx").observe(seconds)
    _RECEIVED.inc(received)
    _SENT.inc(sent)


def observe_task(sim_type: str, outcome: EntityState, seconds: float) -> None:
    """Count a task that has ended, after running for so long."""
    _TASKS.labels(sim_type, str(outcome)).observe(max(seconds, 0.0))


def metrics_exposition(backend: Backend) -> bytes:
    """All figures, in Prometheus' text format."""
    return generate_latest(_Everything(backend))


class _Everything(Collector):
    """The figures of the process, and those of the database as it is now."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from _stored(self._backend)


def _stored(backend: Backend) -> list[Metric]:
    """Figures from the database; without an answer from it only that there is none."""
    up = GaugeMetricFamily("yaptide_database_up", "1 if the database answered the queries for these figures, else 0.")
    try:
        found = _of_database(backend)
    except (YaptideError, DBAPIError):  # the latter where tables are missing
        up.add_metric([], 0)
        return [up]
    up.add_metric([], 1)
    return [up, *found]


def _of_database(backend: Backend) -> list[Metric]:
    """What has ended is not counted: that would take reading all of it, each time."""
    with backend.database.probe() as connection:
        simulations = stats.open_simulations(connection)
        tasks = stats.open_tasks(connection)
        oldest = stats.oldest_waiting(connection)
        stored = stats.stored_bytes(connection)
    by_state = GaugeMetricFamily("yaptide_simulations", "Simulations that have not ended, by state.", labels=["state"])
    for state in EntityState:
        if state not in FINAL_STATES:
            by_state.add_metric([state], simulations.get(state, 0))
    tasks_by_state = GaugeMetricFamily("yaptide_tasks", "Tasks that wait or run, by state.", labels=["state"])
    for state in _WAITING_STATES:
        tasks_by_state.add_metric([state], tasks.get(state, 0))
    age = GaugeMetricFamily(
        "yaptide_oldest_waiting_task_seconds",
        "Time since the submission of the oldest simulation that has tasks waiting for a worker.",
        labels=["sim_type"],
    )
    for sim_type, submitted in sorted(oldest.items()):
        age.add_metric([sim_type], max((utc_now() - submitted).total_seconds(), 0.0))
    total = GaugeMetricFamily("yaptide_stored_bytes", "Bytes that the payloads of all simulations take.")
    total.add_metric([], stored)
    return [by_state, tasks_by_state, age, total]

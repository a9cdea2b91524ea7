"""Metrics for Prometheus: what this process has done since its start, and what the database contains.

They are all in this process: only one process serves, and after a restart the counters start from 0.
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

disable_created_metrics()  # avoids an unused series for each of these
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

#: Requests that are received or processed.
IN_PROGRESS = Gauge(
    "yaptide_http_requests_in_progress", "Requests that are being received or processed.", registry=REGISTRY
)
#: Threads that process requests.
THREADS_BUSY = Gauge("yaptide_http_threads_busy", "Threads that process requests.", registry=REGISTRY)
_REQUESTS = Histogram(
    "yaptide_http_request_seconds",
    "Time from a request to the end of its response; `route` is the template of its path, `status` such as 2xx.",
    ("method", "route", "status"),
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
_RECEIVED = Counter("yaptide_http_received_bytes", "Bytes of request bodies received.", registry=REGISTRY)
_SENT = Counter("yaptide_http_sent_bytes", "Bytes of response bodies sent.", registry=REGISTRY)
_TASKS = Histogram(
    "yaptide_task_seconds",
    "Run time of a task, as reported by its worker; `outcome` is its final state.",
    ("sim_type", "outcome"),
    registry=REGISTRY,
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600),
)


def observe_request(method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
    """Count a request whose response has been sent."""
    _REQUESTS.labels(method, route, f"{status // 100}xx").observe(seconds)
    _RECEIVED.inc(received)
    _SENT.inc(sent)


def observe_task(sim_type: str, outcome: EntityState, seconds: float) -> None:
    """Count a task that has ended after running for `seconds`."""
    _TASKS.labels(sim_type, str(outcome)).observe(max(seconds, 0.0))


def metrics_exposition(backend: Backend) -> bytes:
    """Return all metrics in the Prometheus text format."""
    return generate_latest(_AllMetrics(backend))


class _AllMetrics(Collector):
    """The metrics of the process, and those of the database."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from _stored(self._backend)


def _stored(backend: Backend) -> list[Metric]:
    """Return the metrics of the database; if it does not respond, only that it is down."""
    up = GaugeMetricFamily(
        "yaptide_database_up", "1 if the database responded to the queries for these metrics, else 0."
    )
    try:
        metrics = _of_database(backend)
    except (YaptideError, DBAPIError):  # DBAPIError: tables are missing
        up.add_metric([], 0)
        return [up]
    up.add_metric([], 1)
    return [up, *metrics]


def _of_database(backend: Backend) -> list[Metric]:
    """Query the metrics of the database; ended simulations are not counted, because that would read all of them."""
    with backend.database.probe() as connection:
        simulations = stats.open_simulations(connection)
        tasks = stats.open_tasks(connection)
        oldest = stats.oldest_waiting(connection)
        stored = stats.stored_bytes(connection)
    by_state = GaugeMetricFamily("yaptide_simulations", "Simulations that have not ended, by state.", labels=["state"])
    for state in EntityState:
        if state not in FINAL_STATES:
            by_state.add_metric([state], simulations.get(state, 0))
    tasks_by_state = GaugeMetricFamily("yaptide_tasks", "Waiting and running tasks, by state.", labels=["state"])
    for state in _WAITING_STATES:
        tasks_by_state.add_metric([state], tasks.get(state, 0))
    age = GaugeMetricFamily(
        "yaptide_oldest_waiting_task_seconds",
        "Time since the submission of the oldest simulation with waiting tasks.",
        labels=["sim_type"],
    )
    for sim_type, submitted in sorted(oldest.items()):
        age.add_metric([sim_type], max((utc_now() - submitted).total_seconds(), 0.0))
    total = GaugeMetricFamily("yaptide_stored_bytes", "Bytes of the payloads of all simulations.")
    total.add_metric([], stored)
    return [by_state, tasks_by_state, age, total]

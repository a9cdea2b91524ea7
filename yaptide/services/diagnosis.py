"""Problems of an installation and its simulations, and what to do about them.

For `yaptide doctor`, which adds the state of processes and of the broker, and for the operator page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from yaptide.domain.errors import NotConfigured, YaptideError
from yaptide.domain.states import EntityState
from yaptide.persistence.queries import diagnosis, stats
from yaptide.services import clusters, readiness, runners
from yaptide.services.backend import Backend, utc_now
from yaptide.services.runners import Requirements
from yaptide_client.extras import require_extra


class Verdict(StrEnum):
    """Severity of a finding: nothing to do, worth checking, broken."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """A checked subject, its verdict, a message, and what to do about it."""

    subject: str
    verdict: Verdict
    message: str
    remedy: str = ""


#: After this many times the heartbeat limit a stalled task should have been requeued.
_UNNOTICED = 3


@dataclass(frozen=True, slots=True)
class Queue:
    """Numbers of waiting and running tasks, and of simulations that are merged or wait for it."""

    waiting: int
    running: int
    merges: int


def count_queue(backend: Backend) -> Queue:
    """Count waiting and running tasks, and merges; raises Unavailable."""
    with backend.database.probe() as connection:
        waiting = sum(count for *_, count, _ in diagnosis.count_waiting(connection))
        running = stats.open_tasks(connection).get(EntityState.RUNNING, 0)
        return Queue(waiting, running, diagnosis.count_merges(connection))


def diagnose_surroundings(backend: Backend) -> Iterator[Finding]:
    """Yield findings about the database, the data folder, simulators and clusters."""
    checks = readiness.run_checks(backend)
    yield from (
        Finding(each.name, Verdict.OK if each.ok else Verdict.ERROR, each.message, each.remedy) for each in checks
    )
    missing = (each for each in readiness.check_simulators(backend, checks) if not each.ok)  # one line each
    yield from (Finding(each.name, Verdict.WARNING, each.message, each.remedy) for each in missing)
    yield from _clusters(backend)


def _clusters(backend: Backend) -> Iterator[Finding]:
    """Yield an error if clusters are configured but SSH is not installed: their simulations would wait forever."""
    try:
        if clusters.list_names(backend):
            require_extra("asyncssh", "Running on clusters")
    except NotConfigured as error:
        yield Finding("clusters", Verdict.ERROR, str(error))
    except YaptideError:
        pass  # the check of the database reports it


def diagnose_tasks(backend: Backend) -> Iterator[Finding]:
    """Yield the findings of `diagnose_simulations`, or that the database does not respond."""
    try:
        yield from list(diagnose_simulations(backend))
    except YaptideError:
        yield Finding("tasks", Verdict.ERROR, "Cannot check tasks: the database does not respond")


def diagnose_simulations(backend: Backend) -> Iterator[Finding]:
    """Yield findings about tasks and merges; raise Unavailable."""
    with backend.database.reading() as connection:
        running = diagnosis.list_running(connection, utc_now())
        waiting = diagnosis.count_waiting(connection)
        merges = diagnosis.count_merges(connection)
        empty = diagnosis.without_results(connection)
    yield from _running(backend, running)
    yield from _programs(backend)
    yield from _waiting(backend, waiting)
    if merges:
        yield Finding("merges", Verdict.OK, f"{merges} waiting or running")
    for job_id in empty:
        yield Finding(
            "results",
            Verdict.WARNING,
            f"{job_id} is COMPLETED without results: its workers did not send any",
            "check its logs, and submit it again",
        )


def _programs(backend: Backend) -> Iterator[Finding]:
    """Yield the simulators that runners announce."""
    for row in runners.list_programs(backend):
        version = f" {row.version}" if row.version else ""
        yield Finding("simulators", Verdict.OK, f"{row.runner} has {row.sim_type}{version}")


def _waiting(backend: Backend, waiting: list[tuple[str, str, str, int, datetime]]) -> Iterator[Finding]:
    for sim_type, platform, input_type, count, since in waiting:
        with backend.database.read_committed() as connection:
            reason = runners.why_waiting(backend, connection, Requirements(sim_type, platform, input_type))
        text = f"{count} waiting for {sim_type}, the first for {_ago(utc_now() - since)}"
        if reason is None:
            yield Finding("tasks", Verdict.OK, text)
        else:
            yield Finding("tasks", Verdict.WARNING, text, reason)


def _running(backend: Backend, running: list[tuple[str, int, int, str, timedelta]]) -> Iterator[Finding]:
    silence = backend.limits.silence
    fine = 0
    for job_id, task_id, attempts, owner, age in running:
        if age <= silence / 2:
            fine += 1
            continue
        message = f"task {task_id} of {job_id}: {owner} has sent no heartbeat for {_ago(age)}"
        attempt = f"attempt {attempts} of {backend.limits.attempts}"
        if age < _UNNOTICED * silence:
            consequence = "it runs again" if attempts < backend.limits.attempts else "it fails"
            remedy = f"after {silence.total_seconds():g} s without a heartbeat {consequence} ({attempt})"
            yield Finding("tasks", Verdict.WARNING, message, f"nothing to do: {remedy}")
        else:
            yield Finding(
                "tasks", Verdict.ERROR, message, "start an executor to run it again: yaptide up, or yaptide work"
            )
    if fine:
        yield Finding("tasks", Verdict.OK, f"{fine} running")


def _ago(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"

"""What is wrong with an installation and the simulations in its database, and what to do about it.

For `yaptide doctor`, which adds what it sees of processes and of the broker, and for the operator page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from yaptide.domain.errors import NotConfigured, YaptideError
from yaptide.persistence.queries import diagnosis
from yaptide.services import clusters, readiness, runners
from yaptide.services.backend import Backend, utc_now
from yaptide.services.runners import Wanted
from yaptide_client.extras import require_extra


class Verdict(StrEnum):
    """How bad it is: nothing to do, worth a look, broken."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it stands, in words, and what to do about it."""

    subject: str
    verdict: Verdict
    message: str
    remedy: str = ""


#: After so many times the limit of silence somebody should have noticed.
_UNNOTICED = 3


@dataclass(frozen=True, slots=True)
class Queue:
    """How many tasks wait and run, and how many simulations are merged or wait for it."""

    waiting: int
    running: int
    merges: int


def count_queue(backend: Backend) -> Queue:
    """Return how much there is to do; raises Unavailable."""
    with backend.database.probe() as connection:
        waiting = sum(count for *_, count, _ in diagnosis.count_waiting(connection))
        return Queue(waiting, diagnosis.count_running(connection), diagnosis.count_merges(connection))


def diagnose_surroundings(backend: Backend) -> Iterator[Finding]:
    """Yield how the database and the data folder are, whether there are simulators, and what runs on clusters."""
    checks = readiness.run_checks(backend)
    yield from (
        Finding(each.name, Verdict.OK if each.ok else Verdict.ERROR, each.message, each.remedy) for each in checks
    )
    missing = (each for each in readiness.check_simulators(backend, checks) if not each.ok)  # others have a line each
    yield from (Finding(each.name, Verdict.WARNING, each.message, each.remedy) for each in missing)
    yield from _clusters(backend)


def _clusters(backend: Backend) -> Iterator[Finding]:
    """Without SSH nothing runs on clusters, and what was submitted to them before waits."""
    try:
        if clusters.list_names(backend):
            require_extra("asyncssh", "Running on clusters")
    except NotConfigured as error:
        yield Finding("clusters", Verdict.ERROR, str(error))
    except YaptideError:
        pass  # the database has a line of its own


def diagnose_tasks(backend: Backend) -> Iterator[Finding]:
    """Yield what `diagnose_simulations` does, or that the database does not answer."""
    try:
        yield from list(diagnose_simulations(backend))
    except YaptideError:
        yield Finding("tasks", Verdict.ERROR, "nobody can tell while the database does not answer")


def diagnose_simulations(backend: Backend) -> Iterator[Finding]:
    """How tasks and merges stand; raises Unavailable."""
    with backend.database.reading() as connection:
        running = diagnosis.list_running(connection, utc_now())
        waiting = diagnosis.count_waiting(connection)
        merges = diagnosis.count_merges(connection)
        empty = diagnosis.without_results(connection)
    yield from _running(backend, running)
    yield from _programs(backend)
    yield from _waiting(backend, waiting)
    if merges:
        yield Finding("merges", Verdict.OK, f"{merges} wait or are under way")
    for job_id in empty:
        yield Finding(
            "results",
            Verdict.WARNING,
            f"{job_id} is COMPLETED and has no results: its workers said so and sent none",
            "look at its logs, and submit it again",
        )


def _programs(backend: Backend) -> Iterator[Finding]:
    """What those announce that are there."""
    for row in runners.list_programs(backend):
        version = f" {row.version}" if row.version else ""
        yield Finding("simulators", Verdict.OK, f"{row.runner} has {row.sim_type}{version}")


def _waiting(backend: Backend, waiting: list[tuple[str, str, str, int, datetime]]) -> Iterator[Finding]:
    for sim_type, platform, input_type, count, since in waiting:
        with backend.database.read_committed() as connection:
            reason = runners.why_waiting(backend, connection, Wanted(sim_type, platform, input_type))
        text = f"{count} wait for {sim_type}, the first for {_ago(utc_now() - since)}"
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
        what = f"task {task_id} of {job_id}: {owner} is silent for {_ago(age)}"
        attempt = f"attempt {attempts} of {backend.limits.attempts}"
        if age < _UNNOTICED * silence:
            left = "it is given to another" if attempts < backend.limits.attempts else "it fails"
            when = f"after {silence.total_seconds():g} s of silence {left} ({attempt})"
            yield Finding("tasks", Verdict.WARNING, what, f"nothing: {when}")
        else:
            yield Finding("tasks", Verdict.ERROR, what, "start what gives it to another: yaptide up, or yaptide work")
    if fine:
        yield Finding("tasks", Verdict.OK, f"{fine} running")


def _ago(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"

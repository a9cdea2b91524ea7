"""Problems of stored simulations, and what happens next: for `yaptide doctor`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from yaptide.persistence.queries import diagnosis
from yaptide.services import runners
from yaptide.services.backend import Backend, utc_now
from yaptide.services.runners import Requirements


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

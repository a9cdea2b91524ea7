"""Following many simulations with one request."""

from collections.abc import Sequence
from dataclasses import dataclass

from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.queries import simulations as queries
from yaptide.services import runners, simulations
from yaptide.services.access import Action, may
from yaptide.services.backend import Backend
from yaptide.services.users import User


@dataclass(frozen=True, slots=True)
class Watched:
    """The progress of a simulation, in primaries of all its tasks.

    `change` increases with every change of its state or of a task's state. `reason` is why it failed, `waiting` why it
    cannot start now.
    """

    job_id: str
    job_state: EntityState
    requested_primaries: int
    simulated_primaries: int
    change: int
    reason: str | None = None
    waiting: str | None = None


def watch_simulations(backend: Backend, user: User, job_ids: Sequence[str]) -> list[Watched]:
    """Return the progress of those of the simulations that exist and that the user may read, in this order."""
    with backend.database.read_committed() as connection:
        existing = queries.list_watched(connection, job_ids)
        rows = {row.job_id: row for row in existing if may(user, Action.READ, row)}
        failed = {row.id: row.job_id for row in rows.values() if row.job_state is EntityState.FAILED}
        why_failed = queries.list_failures(connection, list(failed)) if failed else {}
        reasons = {failed[number]: reason for number, reason in why_failed.items()}
        pending = {name: row for name, row in rows.items() if row.job_state is EntityState.PENDING}
        required = simulations.list_requirements(connection, pending)
        why_waiting = {item: runners.why_waiting(backend, connection, item) for item in set(required.values())}
        notes = simulations.list_notes(connection, required)
    waiting = {job_id: why_waiting[item] or notes.get(job_id) for job_id, item in required.items()}
    return [_watched(rows[name], reasons.get(name), waiting.get(name)) for name in job_ids if name in rows]


def _watched(row: Record, reason: str | None, waiting: str | None) -> Watched:
    return Watched(row.job_id, row.job_state, int(row.requested), int(row.simulated), row.change, reason, waiting)

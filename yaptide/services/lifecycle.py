"""How the states of a simulation and its tasks depend on each other, for all operations that change them."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES, EntityState, final_outcome, simulation_state
from yaptide.persistence.queries import simulations, tasks, transitions
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.services.backend import Backend, utc_now

#: Actor in the history for reports with the update key.
WORKER = "worker"

#: States in which workers may be running: such a simulation must be canceled before it is removed.
_BEFORE_MERGING = frozenset({EntityState.UNKNOWN, EntityState.PENDING, EntityState.RUNNING})


def update_key(backend: Backend, job_id: str) -> str:
    """Return the update key of a simulation's workers: 32 unpredictable bytes, as URL-safe base64.

    The bytes are the HMAC-SHA256 (RFC 2104) of the job_id under the signing key: the key can be derived again for
    another worker, although only its hash is stored.
    """
    digest = hmac.digest(backend.signing_key, b"update key of " + job_id.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def hash_update_key(key: str) -> str:
    """Return the stored hash of an update key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def known_update_key(backend: Backend, connection: Connection, simulation: Locked) -> str:
    """Return the update key of a locked simulation; a new one if the signing key has changed."""
    key = update_key(backend, simulation.job_id)
    if hash_update_key(key) != simulation.update_key_hash:
        simulations.set_values(connection, simulation.id, {"update_key_hash": hash_update_key(key)})
    return key


def check_update_key(backend: Backend, simulation: Locked | None, key: str) -> Locked:
    """Return the simulation if `key` is its update key.

    Raises InvalidInput with the same message whether the simulation does not exist, or the key is missing, wrong or
    old.
    """
    stored = "" if simulation is None else simulation.update_key_hash or ""
    fits = hmac.compare_digest(stored, hash_update_key(key))
    if simulation is None or not fits or _is_over(backend, simulation):
        raise InvalidInput("Invalid update key")
    return simulation


def _is_over(backend: Backend, simulation: Locked) -> bool:
    """Return whether a simulation ended so long ago that workers may no longer report."""
    ended = simulation.end_time if simulation.job_state in FINAL_STATES else None
    return ended is not None and ended + backend.limits.update_key < utc_now()


def settle_simulation(connection: Connection, simulation: Locked, audit: Audit) -> EntityState:
    """Move a simulation to the state that its tasks require, after some have moved; return its state."""
    if simulation.job_state not in _BEFORE_MERGING:
        return simulation.job_state
    wanted = simulation_state(tasks.count_states(connection, simulation.id))
    if wanted is simulation.job_state:
        return wanted
    reason = failure_reason(connection, simulation.id) if wanted is EntityState.FAILED else None
    moved = transitions.move_simulation(connection, simulation.id, wanted, Audit(audit.actor, audit.time, reason))
    return wanted if moved else simulation.job_state


def end_simulation(
    connection: Connection,
    simulation: Locked,
    to: EntityState,
    audit: Audit,
    values: Mapping[str, Any] | None = None,
) -> EntityState:
    """End a simulation and those of its tasks that have not ended, and set `values`.

    Returns its state: FAILED instead of COMPLETED if a task has failed; if it had already ended, its previous state,
    with nothing changed.
    """
    if simulation.job_state in FINAL_STATES:
        return simulation.job_state
    transitions.move_tasks(connection, simulation.id, to, audit)
    if to is EntityState.COMPLETED:
        to = final_outcome(tasks.count_states(connection, simulation.id))
    if to is EntityState.FAILED and audit.reason is None:
        audit = Audit(audit.actor, audit.time, failure_reason(connection, simulation.id))
    transitions.move_simulation(connection, simulation.id, to, audit, values)
    return to


def remove_simulation(connection: Connection, simulation: Locked) -> bool:
    """Remove a simulation with everything about it; return False and change nothing while its tasks may run."""
    if simulation.job_state in _BEFORE_MERGING:
        return False
    return simulations.remove_simulation(connection, simulation.id)


def failure_reason(connection: Connection, simulation_id: int) -> str:
    """Return why a simulation failed, in one line, from the reasons of its tasks."""
    counts = tasks.count_states(connection, simulation_id)
    state, outcome = EntityState.FAILED, "failed"
    if state not in counts and EntityState.CANCELED in counts:
        state, outcome = EntityState.CANCELED, "were canceled"
    reasons = [
        reason for task, reason in simulations.list_reasons(connection, simulation_id, state) if task is not None
    ]
    return f"{counts.get(state, 0)} of {sum(counts.values())} tasks {outcome}" + (f": {reasons[0]}" if reasons else "")

"""How the states of a simulation and of its tasks go together, for all the operations that move them."""

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

#: In the history: whoever reported with the update key.
WORKER = "worker"

#: States in which workers are still at it: such a simulation is canceled before it is removed.
_NOT_REMOVED = frozenset({EntityState.UNKNOWN, EntityState.PENDING, EntityState.RUNNING})
_BEFORE_MERGING = frozenset({EntityState.UNKNOWN, EntityState.PENDING, EntityState.RUNNING})


def update_key(backend: Backend, job_id: str) -> str:
    """The key that workers of a simulation report with: 32 bytes that nobody can guess, as URL-safe base64.

    They are HMAC-SHA256 (RFC 2104) of the public name under the signing key: what was sent to a worker that died can be
    sent to another, and yet only a hash is stored.
    """
    digest = hmac.digest(backend.signing_key, b"update key of " + job_id.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def hash_update_key(key: str) -> str:
    """What is stored of an update key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def known_update_key(backend: Backend, connection: Connection, simulation: Locked) -> str:
    """The key to send to workers of a locked simulation; after a change of the signing key, a new one from now on."""
    key = update_key(backend, simulation.job_id)
    if hash_update_key(key) != simulation.update_key_hash:
        simulations.set_values(connection, simulation.id, {"update_key_hash": hash_update_key(key)})
    return key


def check_update_key(backend: Backend, simulation: Locked | None, key: str) -> Locked:
    """The simulation, if `key` is its update key.

    Raises InvalidInput with the same words whether the simulation does not exist, has no key, or another or old one.
    """
    stored = "" if simulation is None else simulation.update_key_hash or ""
    fits = hmac.compare_digest(stored, hash_update_key(key))
    if simulation is None or not fits or _is_over(backend, simulation):
        raise InvalidInput("Invalid update key")
    return simulation


def _is_over(backend: Backend, simulation: Locked) -> bool:
    """Whether a simulation has ended so long ago that no answer about it can still be on its way."""
    ended = simulation.end_time if simulation.job_state in FINAL_STATES else None
    return ended is not None and ended + backend.limits.update_key < utc_now()


def settle_simulation(connection: Connection, simulation: Locked, cause: Audit) -> EntityState:
    """Move a simulation to where its tasks ask for, after some of them have moved; returns the state it is then in."""
    if simulation.job_state not in _BEFORE_MERGING:
        return simulation.job_state
    wanted = simulation_state(tasks.count_states(connection, simulation.id))
    if wanted is simulation.job_state:
        return wanted
    reason = failure_reason(connection, simulation.id) if wanted is EntityState.FAILED else None
    moved = transitions.move_simulation(connection, simulation.id, wanted, Audit(cause.actor, cause.time, reason))
    return wanted if moved else simulation.job_state


def end_simulation(
    connection: Connection,
    simulation: Locked,
    to: EntityState,
    cause: Audit,
    values: Mapping[str, Any] | None = None,
) -> EntityState:
    """End a simulation, setting `values` with it, and with it those of its tasks that have not ended.

    Returns the state it is in then: FAILED instead of COMPLETED if a task has failed, and what it was in before, with
    nothing changed, if it had ended already.
    """
    if simulation.job_state in FINAL_STATES:
        return simulation.job_state
    transitions.move_tasks(connection, simulation.id, to, cause)
    if to is EntityState.COMPLETED:
        to = final_outcome(tasks.count_states(connection, simulation.id))
    if to is EntityState.FAILED and cause.reason is None:
        cause = Audit(cause.actor, cause.time, failure_reason(connection, simulation.id))
    transitions.move_simulation(connection, simulation.id, to, cause, values)
    return to


def remove_simulation(connection: Connection, simulation: Locked) -> bool:
    """Remove a simulation with everything about it; False, and nothing changed, while its tasks may run."""
    if simulation.job_state in _NOT_REMOVED:
        return False
    return simulations.remove_simulation(connection, simulation.id)


def failure_reason(connection: Connection, simulation_id: int) -> str:
    """Why a simulation failed, in one line, from the reasons its tasks left."""
    counts = tasks.count_states(connection, simulation_id)
    state, what = EntityState.FAILED, "failed"
    if state not in counts and EntityState.CANCELED in counts:
        state, what = EntityState.CANCELED, "were canceled"
    told = [reason for task, reason in simulations.list_reasons(connection, simulation_id, state) if task is not None]
    return f"{counts.get(state, 0)} of {sum(counts.values())} tasks {what}" + (f": {told[0]}" if told else "")

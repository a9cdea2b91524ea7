"""States of simulations and tasks, and the allowed transitions.

The two tables below are the only definition. `yaptide.persistence.queries.transitions` turns them into guarded updates;
the diagrams in docs/ are generated from them.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from yaptide_client.states import FINAL_STATES as FINAL_STATES, EntityState as EntityState

Transitions = Mapping[EntityState, frozenset[EntityState]]

_S = EntityState
_ENDS = FINAL_STATES

#: UNKNOWN: a cluster has not accepted the simulation yet. Results may arrive after reports were lost, so every state
#: that is not final may end. A merge whose process died is queued again.
SIMULATION_TRANSITIONS: Transitions = MappingProxyType(
    {
        _S.UNKNOWN: frozenset({_S.PENDING, _S.RUNNING, *_ENDS}),
        _S.PENDING: frozenset({_S.RUNNING, _S.MERGING_QUEUED, _S.MERGING_RUNNING, *_ENDS}),
        _S.RUNNING: frozenset({_S.MERGING_QUEUED, _S.MERGING_RUNNING, *_ENDS}),
        _S.MERGING_QUEUED: frozenset({_S.MERGING_RUNNING, *_ENDS}),
        _S.MERGING_RUNNING: frozenset({_S.MERGING_QUEUED, *_ENDS}),
        _S.COMPLETED: frozenset(),
        _S.FAILED: frozenset(),
        _S.CANCELED: frozenset(),
    }
)

#: A task never merges. A stalled task goes from RUNNING back to PENDING and runs again.
TASK_TRANSITIONS: Transitions = MappingProxyType(
    {
        _S.UNKNOWN: frozenset({_S.PENDING, _S.RUNNING, *_ENDS}),
        _S.PENDING: frozenset({_S.RUNNING, *_ENDS}),
        _S.RUNNING: frozenset({_S.PENDING, *_ENDS}),
        _S.MERGING_QUEUED: frozenset(),
        _S.MERGING_RUNNING: frozenset(),
        _S.COMPLETED: frozenset(),
        _S.FAILED: frozenset(),
        _S.CANCELED: frozenset(),
    }
)

#: The states that a task can have.
TASK_STATES = frozenset({_S.UNKNOWN, _S.PENDING, _S.RUNNING, *_ENDS})


def source_states(transitions: Transitions, target: EntityState) -> frozenset[EntityState]:
    """Return the states from which `target` can be reached in one step: the guard of an update."""
    return frozenset(state for state, targets in transitions.items() if target in targets)


def simulation_state(tasks: Iterable[EntityState]) -> EntityState:
    """Return the state of a simulation according to its tasks, before its results are known.

    MERGING_QUEUED means that all tasks have ended and at least one completed. A failed task does not discard the
    results of the others: `final_outcome` determines how the simulation ends after the merge.
    """
    states = set(tasks)
    if not states or states <= {_S.UNKNOWN, _S.PENDING}:
        return _S.PENDING
    if not states <= FINAL_STATES:
        return _S.RUNNING
    if _S.COMPLETED in states:
        return _S.MERGING_QUEUED
    return _S.FAILED if _S.FAILED in states else _S.CANCELED


def final_outcome(tasks: Iterable[EntityState]) -> EntityState:
    """Return the final state after the merge: COMPLETED only if every task completed, otherwise FAILED."""
    return _S.COMPLETED if set(tasks) <= {_S.COMPLETED} else _S.FAILED

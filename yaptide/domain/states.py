"""States of simulations and tasks, and which may follow which.

The two tables below are the only place that says so. `yaptide.persistence.queries.transitions` turns them into guarded
updates, the diagrams in docs/ are drawn from them.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from yaptide_client.states import FINAL_STATES as FINAL_STATES, EntityState as EntityState

Transitions = Mapping[EntityState, frozenset[EntityState]]

_S = EntityState
_ENDS = FINAL_STATES

#: UNKNOWN is a simulation that a cluster has not accepted yet. Results may arrive when reports got lost, so every state
#: that is not final can end. A merge whose process died is queued again.
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

#: A task never merges. One whose worker went silent goes from RUNNING back to PENDING and is run again.
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

#: The states a task can be in.
TASK_STATES = frozenset({_S.UNKNOWN, _S.PENDING, _S.RUNNING, *_ENDS})


def source_states(transitions: Transitions, target: EntityState) -> frozenset[EntityState]:
    """The states from which `target` can be reached in one step: the guard of an update."""
    return frozenset(state for state, targets in transitions.items() if target in targets)


def simulation_state(tasks: Iterable[EntityState]) -> EntityState:
    """The state that a simulation's tasks ask for, before anything is known about its results.

    MERGING_QUEUED means that no task will change any more and that some of them left results to merge. A task that
    failed does not throw away what the others simulated: `final_outcome` says how the simulation ends after the merge.
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
    """How a simulation ends once its results are stored: COMPLETED only if every task did."""
    return _S.COMPLETED if set(tasks) <= {_S.COMPLETED} else _S.FAILED

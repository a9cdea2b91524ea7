"""Which state may follow which, spelled out once more and independently, pair by pair."""

import itertools

import pytest
from hypothesis import example, given, strategies as st

from yaptide.domain.states import (
    FINAL_STATES,
    SIMULATION_TRANSITIONS,
    TASK_STATES,
    TASK_TRANSITIONS,
    EntityState,
    final_outcome,
    simulation_state,
    source_states,
)

STATES = list(EntityState)

# A row for each state, a column for each state that may (x) or may not (.) follow, in the order of STATES.
SIMULATION = """
                 UNK PEN RUN MQ  MR  COM FAI CAN
UNKNOWN           .   x   x   .   .   x   x   x
PENDING           .   .   x   x   x   x   x   x
RUNNING           .   .   .   x   x   x   x   x
MERGING_QUEUED    .   .   .   .   x   x   x   x
MERGING_RUNNING   .   .   .   x   .   x   x   x
COMPLETED         .   .   .   .   .   .   .   .
FAILED            .   .   .   .   .   .   .   .
CANCELED          .   .   .   .   .   .   .   .
"""
TASK = """
                 UNK PEN RUN MQ  MR  COM FAI CAN
UNKNOWN           .   x   x   .   .   x   x   x
PENDING           .   .   x   .   .   x   x   x
RUNNING           .   x   .   .   .   x   x   x
MERGING_QUEUED    .   .   .   .   .   .   .   .
MERGING_RUNNING   .   .   .   .   .   .   .   .
COMPLETED         .   .   .   .   .   .   .   .
FAILED            .   .   .   .   .   .   .   .
CANCELED          .   .   .   .   .   .   .   .
"""


def read(matrix: str) -> dict[tuple[EntityState, EntityState], bool]:
    rows = [line.split() for line in matrix.strip().splitlines()[1:]]
    return {
        (EntityState(name), target): mark == "x"
        for name, *marks in rows
        for target, mark in zip(STATES, marks, strict=True)
    }


@pytest.mark.parametrize(
    ("table", "matrix"), [(SIMULATION_TRANSITIONS, SIMULATION), (TASK_TRANSITIONS, TASK)], ids=["simulation", "task"]
)
def test_every_pair_of_states(table, matrix):
    allowed = {(state, target): target in table[state] for state, target in itertools.product(STATES, STATES)}
    assert allowed == read(matrix)
    for target in STATES:
        assert source_states(table, target) == {state for state in STATES if read(matrix)[state, target]}


def test_final_states_have_no_exits():
    assert {EntityState.COMPLETED, EntityState.FAILED, EntityState.CANCELED} == FINAL_STATES
    for state in FINAL_STATES:
        assert not SIMULATION_TRANSITIONS[state]
        assert not TASK_TRANSITIONS[state]


def test_every_state_that_is_not_final_can_end_in_every_way():
    for state in set(STATES) - FINAL_STATES:
        assert SIMULATION_TRANSITIONS[state] >= FINAL_STATES
    for state in TASK_STATES - FINAL_STATES:
        assert TASK_TRANSITIONS[state] >= FINAL_STATES


def test_a_task_never_merges():
    reachable = set().union(*TASK_TRANSITIONS.values())
    assert reachable <= TASK_STATES
    assert set(STATES) - TASK_STATES == {EntityState.MERGING_QUEUED, EntityState.MERGING_RUNNING}


def test_the_tables_cannot_be_changed():
    with pytest.raises(TypeError):
        SIMULATION_TRANSITIONS[EntityState.FAILED] = frozenset()


def test_states_are_stored_and_sent_by_their_names():
    assert all(state == state.name == str(state) for state in STATES)


tasks = st.lists(st.sampled_from(sorted(TASK_STATES)), min_size=1, max_size=8)


@given(tasks)
@example(sorted(FINAL_STATES))
def test_the_state_that_tasks_ask_for(states):
    """As a person would say it, one question after the other."""
    begun = [state for state in states if state not in ("PENDING", "UNKNOWN")]
    unfinished = [state for state in states if state in ("PENDING", "UNKNOWN", "RUNNING")]
    if not begun:
        expected = "PENDING"
    elif unfinished:
        expected = "RUNNING"
    elif "COMPLETED" in states:
        expected = "MERGING_QUEUED"
    elif "FAILED" in states:
        expected = "FAILED"
    else:
        expected = "CANCELED"
    assert simulation_state(states) == expected


@given(tasks, st.randoms(use_true_random=False))
def test_order_and_number_of_the_tasks_do_not_matter(states, random):
    shuffled = states * 2
    random.shuffle(shuffled)
    assert simulation_state(shuffled) == simulation_state(states)


@given(tasks)
def test_a_simulation_ends_only_when_all_its_tasks_have(states):
    if simulation_state(states) in FINAL_STATES | {EntityState.MERGING_QUEUED}:
        assert set(states) <= FINAL_STATES


def test_a_simulation_without_tasks_waits():
    assert simulation_state([]) is EntityState.PENDING


@given(st.lists(st.sampled_from(sorted(FINAL_STATES)), min_size=1))
def test_it_is_a_success_only_if_every_task_is(states):
    assert final_outcome(states) == ("COMPLETED" if all(state == "COMPLETED" for state in states) else "FAILED")

"""Splitting: nothing lost, nothing simulated twice, and seeds that never meet."""

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.domain.splitting import split_primaries, task_seeds

totals = st.integers(1, 10**15)
numbers = st.integers(1, 500)
quanta = st.sampled_from([1, 2, 7, 1000, 10**6])


@given(totals, numbers)
def test_all_primaries_are_shared_out(total, tasks):
    shares = split_primaries(total, tasks)
    assert sum(shares) == total
    assert len(shares) == min(total, tasks)
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1


@given(totals, numbers, quanta)
def test_batches_are_never_broken(total, tasks, quantum):
    shares = split_primaries(total, tasks, quantum)
    assert all(share % quantum == 0 and share > 0 for share in shares)
    assert 0 <= sum(shares) - total < quantum, "rounded up, and only once"
    assert max(shares) - min(shares) <= quantum
    assert len(shares) == min(tasks, -(-total // quantum))


@pytest.mark.parametrize(
    ("total", "tasks", "quantum", "shares"),
    [
        (1000, 3, 1, [334, 333, 333]),
        (3, 5, 1, [1, 1, 1]),
        (1, 1, 1, [1]),
        (25, 2, 10, [20, 10]),
        (5, 4, 10, [10]),
        (2**53 + 1, 2, 1, [2**52 + 1, 2**52]),
    ],
)
def test_examples(total, tasks, quantum, shares):
    assert split_primaries(total, tasks, quantum) == shares


@pytest.mark.parametrize(("total", "tasks"), [(0, 1), (1, 0), (-5, 2), (5, -2)])
def test_nothing_to_split(total, tasks):
    with pytest.raises(InvalidInput, match="1 or more"):
        split_primaries(total, tasks)


bases = st.integers(0, 2**53)


@given(bases, st.integers(0, 2000))
def test_seeds_are_distinct_and_fit_every_simulator(base, tasks):
    seeds = task_seeds(base, tasks)
    assert len(set(seeds)) == len(seeds) == tasks
    assert all(1 <= seed < 2**31 for seed in seeds)


@given(bases, numbers, numbers)
def test_more_tasks_never_change_the_seeds_of_the_first_ones(base, few, more):
    assert task_seeds(base, few + more)[:few] == task_seeds(base, few)


def test_seeds_stay_the_same_from_release_to_release():
    assert task_seeds(1, 3) == [644374331, 1454739804, 1731915440]


def test_neighbouring_bases_share_no_seeds():
    seeds = [seed for base in range(50) for seed in task_seeds(base, 50)]
    assert len(set(seeds)) == len(seeds)


def test_seeds_below_a_limit_are_distinct():
    largest = 9 * 10**8 - 1
    seeds = task_seeds(7, 2000, largest)
    assert len(set(seeds)) == 2000
    assert min(seeds) >= 1
    assert max(seeds) <= largest
    assert set(seeds) < set(task_seeds(7, 10_000))

"""Merging against the formulas written down directly, and against what a standard error promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yaptide.domain.estimators import Aggregation
from yaptide.domain.merging import accumulator

SHAPE = 4


def merged(aggregation, tasks, weights):
    total = accumulator(aggregation, tasks[0].shape)
    for values, weight in zip(tasks, weights, strict=True):
        total.add(values, weight)
    return total.result()


def formula(values, weights):
    """Mean and standard error of tasks in rows: the textbook's two passes, for weights > 0."""
    counted = weights > 0
    if not counted.any():
        return 0.0, 0.0
    values, weights = values[counted], weights[counted]
    mean = np.average(values, weights=weights)
    if len(values) < 2:
        return mean, 0.0
    return mean, np.sqrt(np.sum(weights * (values - mean) ** 2) / ((len(values) - 1) * weights.sum()))


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
primaries = st.integers(1, 10**12).map(float)
counts = st.integers(2, 12)


@st.composite
def tasks_and_weights(draw, weight=primaries, shape=()):
    count = draw(counts)
    tasks = draw(hnp.arrays(float, (count, SHAPE), elements=numbers))
    weights = draw(hnp.arrays(float, (count, *shape), elements=weight))
    return tasks, weights


@given(tasks_and_weights())
def test_mean_is_weighted_by_primaries(drawn):
    tasks, weights = drawn
    mean, error = merged(Aggregation.MEAN, tasks, weights)
    scale = np.abs(tasks).max() + 1e-3
    for place in range(SHAPE):
        expected_mean, expected_error = formula(tasks[:, place], weights)
        assert mean[place] == pytest.approx(expected_mean, abs=1e-12 * scale)
        assert error[place] == pytest.approx(expected_error, rel=1e-6, abs=1e-7 * scale)


@given(tasks_and_weights(weight=st.just(0.0) | st.floats(1e-3, 1e9), shape=(SHAPE,)))
def test_weights_of_single_values_and_values_that_do_not_count(drawn):
    tasks, weights = drawn
    mean, error = merged(Aggregation.MEAN, tasks, weights)
    scale = np.abs(tasks).max() + 1e-3
    for place in range(SHAPE):
        if not weights[:, place].any():
            assert np.isnan(mean[place])
            continue
        expected_mean, expected_error = formula(tasks[:, place], weights[:, place])
        assert mean[place] == pytest.approx(expected_mean, rel=1e-9, abs=1e-9 * scale)
        if error is not None:
            assert error[place] == pytest.approx(expected_error, rel=1e-6, abs=1e-7 * scale)
    assert (error is None) == ((weights > 0).sum(axis=0).max() < 2)


@given(tasks_and_weights())
def test_sum(drawn):
    tasks, weights = drawn
    total, error = merged(Aggregation.SUM, tasks, weights)
    count = len(tasks)
    scale = np.abs(tasks).sum() + 1e-3
    np.testing.assert_allclose(total, tasks.sum(axis=0), atol=1e-12 * scale)
    np.testing.assert_allclose(error, np.sqrt(count * tasks.var(axis=0, ddof=1)), rtol=1e-6, atol=1e-7 * scale)


@given(st.lists(hnp.arrays(float, st.integers(0, 5), elements=numbers), min_size=1, max_size=6))
def test_concatenation_keeps_the_order_of_the_tasks(tasks):
    values, error = merged(Aggregation.CONCATENATE, tasks, [1] * len(tasks))
    np.testing.assert_array_equal(values, np.concatenate(tasks))
    assert error is None


@given(tasks_and_weights())
def test_what_is_the_same_in_every_task_is_taken_from_the_first(drawn):
    tasks, weights = drawn
    values, error = merged(Aggregation.NONE, tasks, weights)
    np.testing.assert_array_equal(values, tasks[0])
    assert error is None


@pytest.mark.parametrize("aggregation", Aggregation)
def test_a_single_task_is_left_as_it_is_and_has_no_error(aggregation):
    values = np.array([0.1, -2.5, 0.0, 1e-300])
    result, error = merged(aggregation, [values], [1000])
    np.testing.assert_array_equal(result, values)
    assert error is None


@given(tasks_and_weights(), st.randoms(use_true_random=False))
def test_the_order_of_the_tasks_makes_no_difference(drawn, random):
    tasks, weights = drawn
    order = list(range(len(tasks)))
    random.shuffle(order)
    scale = np.abs(tasks).max() + 1e-3
    one, other = (merged(Aggregation.MEAN, tasks[o], weights[o]) for o in (slice(None), order))
    np.testing.assert_allclose(other[0], one[0], atol=1e-12 * scale)
    np.testing.assert_allclose(other[1], one[1], rtol=1e-6, atol=1e-7 * scale)


def test_splitting_a_simulation_further_leaves_the_mean():
    """Tasks that are merged in two steps, or at once, are the same sample."""
    random = np.random.default_rng(1)
    histories = random.exponential(size=(6000, SHAPE))
    tasks = [part.mean(axis=0) for part in np.split(histories, [500, 1500, 4500])]
    mean, _ = merged(Aggregation.MEAN, tasks, [500, 1000, 3000, 1500])
    np.testing.assert_allclose(mean, histories.mean(axis=0), rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e140])
@pytest.mark.parametrize("weight", [1.0, 1e15])
def test_the_order_of_magnitude_does_not_matter(scale, weight):
    tasks = np.array([[1.0], [2.0], [4.0]])
    mean, error = merged(Aggregation.MEAN, tasks * scale, [weight, 2 * weight, weight])
    expected_mean, expected_error = formula(tasks[:, 0], np.array([1.0, 2.0, 1.0]))
    assert mean[0] == pytest.approx(expected_mean * scale, rel=1e-14)
    if 1e-150 < scale < 1e150:  # otherwise the square is no number any more
        assert error[0] == pytest.approx(expected_error * scale, rel=1e-12)


def test_a_small_spread_on_a_large_mean_is_not_lost():
    """Squares of the values would have no digits left for it."""
    tasks = 1e9 + np.array([[0.0], [1.0], [2.0]])
    mean, error = merged(Aggregation.MEAN, tasks, [1, 1, 1])
    assert mean[0] == 1e9 + 1
    assert error[0] == pytest.approx(1 / np.sqrt(3), rel=1e-6)


def test_memory_is_that_of_a_few_pages_whatever_the_number_of_tasks():
    total = accumulator(Aggregation.MEAN, (1000,))
    for task in range(50):
        total.add(np.full(1000, float(task)), 1.0)
    held = sum(array.nbytes for array in vars(total).values())
    assert held <= 4 * 1000 * 8


TRIALS, TASKS = 2000, 16


@pytest.mark.parametrize(
    "sizes", [[500] * TASKS, [100, 900] * (TASKS // 2)], ids=["equal tasks", "tasks of different sizes"]
)
def test_two_thirds_of_all_true_values_lie_within_one_standard_error(sizes):
    """Student's t with 15 degrees of freedom: 66.7 %; 2000 trials are known to 1.1 %."""
    random = np.random.default_rng(20260301)
    mean_of_history, spread_of_history = 3.0, 2.0
    tasks = [random.normal(mean_of_history, spread_of_history / np.sqrt(size), TRIALS) for size in sizes]
    mean, error = merged(Aggregation.MEAN, tasks, sizes)
    within = np.mean(np.abs(mean - mean_of_history) < error)
    assert within == pytest.approx(0.667, abs=0.033)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(spread_of_history / np.sqrt(sum(sizes)), rel=0.03)


def test_the_error_of_a_sum_covers_as_well():
    random = np.random.default_rng(7)
    tasks = random.poisson(40.0, (TASKS, TRIALS)).astype(float)
    total, error = merged(Aggregation.SUM, tasks, [1] * TASKS)
    within = np.mean(np.abs(total - 40.0 * TASKS) < error)
    assert within == pytest.approx(0.667, abs=0.033)

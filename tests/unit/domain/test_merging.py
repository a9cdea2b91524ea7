"""Merging against the formulas written down directly, and against what a standard error promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from yaptide.domain.estimators import Aggregation, Axis, Page
from yaptide.domain.merging import PagesDiffer, make_accumulator, merge_pages

SHAPE = 4


def merged(aggregation, tasks, primaries, weights=None):
    total = make_accumulator(aggregation, np.shape(tasks[0]), weighted=weights is not None)
    for task, values in enumerate(tasks):
        total.add(np.asarray(values), primaries[task], None if weights is None else weights[task])
    return total.result()


def formula(values, primaries, weights):
    """Mean and standard error of tasks in rows: the textbook's two passes."""
    count, total = len(values), np.sum(primaries)
    weight = primaries @ weights
    if weight == 0:
        return 0.0, np.nan
    mean = primaries * weights @ values / weight
    spread = np.sum(primaries * (weights * (values - mean)) ** 2)
    return mean, np.sqrt(spread * total / (count - 1)) / weight


def assert_where_known(error, expected, scale):
    """Most errors of any numbers are unknown; those that are known are right."""
    np.testing.assert_allclose(error, np.where(np.isnan(error), np.nan, expected), rtol=1e-6, atol=1e-7 * scale)


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
counts = st.integers(2, 12)
any_primaries = st.integers(1, 10**12)


@st.composite
def tasks_and_primaries(draw, primaries=any_primaries):
    count = draw(counts)
    tasks = draw(hnp.arrays(float, (count, SHAPE), elements=numbers))
    return tasks, np.array(draw(st.lists(primaries.map(float), min_size=count, max_size=count)))


@given(tasks_and_primaries())
def test_mean_is_weighted_by_primaries(drawn):
    tasks, primaries = drawn
    mean, error = merged(Aggregation.MEAN, tasks, primaries)
    scale = np.abs(tasks).max() + 1e-3
    expected = np.transpose([formula(values, primaries, np.ones(len(tasks))) for values in tasks.T])
    np.testing.assert_allclose(mean, expected[0], atol=1e-12 * scale)
    assert_where_known(error, expected[1], scale)


@given(tasks_and_primaries(primaries=st.integers(1, 10**6)), st.data())
def test_weights_of_single_values_and_values_that_do_not_count(drawn, data):
    tasks, primaries = drawn
    elements = st.just(0.0) | st.floats(1e-3, 1e9) | st.floats(0.99, 1.01)
    weights = data.draw(hnp.arrays(float, tasks.shape, elements=elements))
    mean, error = merged(Aggregation.MEAN, tasks, primaries, weights)
    scale = np.abs(tasks).max() + 1e-3
    expected = np.transpose([formula(x, primaries, w) for x, w in zip(tasks.T, weights.T, strict=True)])
    expected[0][~weights.any(axis=0)] = np.nan  # undefined where no task counts
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9, atol=1e-9 * scale)
    assert_where_known(error, expected[1], scale)


@given(tasks_and_primaries())
def test_sum(drawn):
    tasks, primaries = drawn
    total, error = merged(Aggregation.SUM, tasks, primaries)
    scale = np.abs(tasks).sum() + 1e-3
    np.testing.assert_allclose(total, tasks.sum(axis=0), atol=1e-12 * scale)
    _, equal = merged(Aggregation.SUM, tasks, np.full(len(tasks), 1000))
    assert_where_known(equal, np.sqrt(len(tasks) * tasks.var(axis=0, ddof=1)), scale)
    rates = tasks / primaries[:, np.newaxis]
    expected = [formula(values, primaries, np.ones(len(tasks)))[1] * primaries.sum() for values in rates.T]
    assert_where_known(error, expected, max(np.abs(rates).max() * primaries.sum(), scale))


@given(st.lists(hnp.arrays(float, st.integers(0, 5), elements=numbers), min_size=1, max_size=6))
def test_concatenation_keeps_the_order_of_the_tasks(tasks):
    values, error = merged(Aggregation.CONCATENATE, tasks, [1] * len(tasks))
    np.testing.assert_array_equal(values, np.concatenate(tasks))
    assert error is None


@given(tasks_and_primaries())
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


@given(tasks_and_primaries(), st.randoms(use_true_random=False))
def test_the_order_of_the_tasks_makes_no_difference(drawn, random):
    tasks, weights = drawn
    order = list(range(len(tasks)))
    random.shuffle(order)
    scale = np.abs(tasks).max() + 1e-3
    one, other = (merged(Aggregation.MEAN, tasks[o], weights[o]) for o in (slice(None), order))
    np.testing.assert_allclose(other[0], one[0], atol=1e-12 * scale)
    both = ~np.isnan(one[1] + other[1])  # where the error is nearly unknown, the last digit decides
    np.testing.assert_allclose(other[1][both], one[1][both], rtol=1e-6, atol=1e-7 * scale)


def test_splitting_a_simulation_further_leaves_the_mean():
    """Tasks that are merged in two steps, or at once, are the same sample."""
    random = np.random.default_rng(1)
    histories = random.exponential(size=(6000, SHAPE))
    tasks = [part.mean(axis=0) for part in np.split(histories, [500, 1500, 4500])]
    mean, _ = merged(Aggregation.MEAN, tasks, [500, 1000, 3000, 1500])
    np.testing.assert_allclose(mean, histories.mean(axis=0), rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e140])
@pytest.mark.parametrize("primaries", [1, 10**15])
def test_the_order_of_magnitude_does_not_matter(scale, primaries):
    tasks = np.array([[10.0], [12.0], [14.0]])
    counts = np.array([1.0, 2.0, 1.0])
    mean, error = merged(Aggregation.MEAN, tasks * scale, primaries * counts)
    expected_mean, expected_error = formula(tasks[:, 0], counts, np.ones(3))
    assert mean[0] == pytest.approx(expected_mean * scale, rel=1e-14)
    if 1e-150 < scale < 1e150:  # otherwise the square overflows or underflows
        assert error[0] == pytest.approx(expected_error * scale, rel=1e-12)


@pytest.mark.parametrize("weights", [None, np.full((3, 1), 7e-9), np.array([[1.0], [1.1], [0.9]])])
def test_a_small_spread_on_a_large_mean_is_not_lost(weights):
    """Squares of the values would have no digits left for it."""
    tasks = 1e9 + np.array([[0.0], [1.0], [2.0]])
    mean, error = merged(Aggregation.MEAN, tasks, [1, 1, 1], weights)
    expected_mean, expected_error = formula(tasks[:, 0], np.ones(3), np.ones(3) if weights is None else weights[:, 0])
    assert mean[0] == pytest.approx(expected_mean, abs=1e-6)
    assert error[0] == pytest.approx(expected_error, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_memory_is_that_of_a_few_pages_whatever_the_number_of_tasks(weighted):
    total = make_accumulator(Aggregation.MEAN, (1000,), weighted=weighted)
    for task in range(50):
        total.add(np.full(1000, float(task)), 1.0, np.ones(1000) if weighted else None)
    held = sum(value.nbytes for value in vars(total).values() if isinstance(value, np.ndarray))
    assert held <= (6 if weighted else 3) * 1000 * 8


def test_parts_of_a_long_page_are_merged_alike():
    draw = np.random.default_rng(3)
    tasks, weights = draw.normal(100, 1, (10, 70_001)), draw.normal(100, 1, (10, 70_001))
    for given_weights in (None, weights):
        mean, error = merged(Aggregation.MEAN, tasks, [1] * 10, given_weights)
        whole = np.ones_like(tasks) if given_weights is None else weights
        expected = np.average(tasks, axis=0, weights=whole)
        np.testing.assert_allclose(mean, expected, rtol=1e-13)
        spread = np.sum((whole * (tasks - expected)) ** 2, axis=0)
        np.testing.assert_allclose(error, np.sqrt(spread * 10 / 9) / whole.sum(axis=0), rtol=1e-9)


def test_what_a_single_task_scored_has_no_error():
    """Nor has what no task scored, whatever the neighbours look like."""
    tasks = np.full((10, 8), 100.0) + np.arange(10)[:, np.newaxis]
    tasks[1:, 3] = 0
    tasks[:, 4] = 0
    for aggregation, first in ((Aggregation.MEAN, 1000), (Aggregation.MEAN, 10**6), (Aggregation.SUM, 1000)):
        _, error = merged(aggregation, tasks, [first, *[1000] * 9])
        np.testing.assert_array_equal(np.isnan(error), [False] * 3 + [True] * 2 + [False] * 3)


@pytest.mark.parametrize("count", [2, 10, 300])
@pytest.mark.parametrize("first", [1000, 10**9])
def test_a_value_that_has_a_single_tasks_weight_has_no_error(count, first):
    primaries = [first, *[1000] * (count - 1)]
    weights = np.full((count, 3), 5.0)
    weights[1:, 1] = 0
    weights[:, 2] = 0
    mean, error = merged(Aggregation.MEAN, np.full((count, 3), 7.0), primaries, weights)
    np.testing.assert_array_equal(mean, [7, 7, np.nan])
    np.testing.assert_array_equal(np.isnan(error), [False, True, True])


def test_neighbours_do_not_make_up_for_a_value_that_few_tasks_scored():
    tasks = np.full((10, 8), 1000.0) + np.arange(10)[:, np.newaxis]
    tasks[:, 5] = [60, 0, 80, 0, 0, 0, 0, 0, 0, 0]
    _, error = merged(Aggregation.MEAN, tasks, [1] * 10)
    np.testing.assert_array_equal(np.isnan(error), [False] * 5 + [True] + [False] * 2)


def test_the_rest_of_the_page_tells_nothing_of_much_smaller_values():
    """As LET in air: next to nothing, but for rare events that all tasks may have missed."""
    values = np.array([50.0, 9.0, 50.0]) + np.random.default_rng(1).normal(0, 0.1, (10, 3))
    _, error = merged(Aggregation.MEAN, values, [1] * 10, np.ones((10, 3)))
    np.testing.assert_array_equal(np.isnan(error), [False, False, False])
    _, error = merged(Aggregation.MEAN, values - [0, 3, 0], [1] * 10, np.ones((10, 3)))
    np.testing.assert_array_equal(np.isnan(error), [False, True, False])


def test_weights_of_one_task_that_outweigh_the_others_leave_the_error_unknown():
    weights = np.full((10, 2), 1.0)
    weights[0, 1] = 1000
    values = 50 + np.random.default_rng(1).normal(0, 1, (10, 2))
    _, error = merged(Aggregation.MEAN, values, [1] * 10, weights)
    np.testing.assert_array_equal(np.isnan(error), [False, True])


def alternating(count, square, quiet=0):
    """Tasks of which half score more and half less than 1 by the root of `square`, and `quiet` values that are 1."""
    step = np.sqrt(square) * np.where(np.arange(count) % 2, 1, -1)
    return np.hstack([np.ones((count, quiet)), 1 + step[:, np.newaxis]])


@pytest.mark.parametrize(
    ("count", "quiet", "limit"),
    [
        (10, 0, 9 / 10),  # as many typical histories as there are tasks,
        (40, 0, 39 / 30),  # but no more than 30;
        (10, 7, 4 * 9 / 10),  # the value's own spread may tell of a fourth, where 7 neighbours tell of less,
        (10, 8, 9 / 10),  # but the 8 values before are the neighbours of each other.
    ],
)
def test_how_many_histories_a_known_error_takes(count, quiet, limit):
    for scale in (1, 1e-6):
        for square, expected in ((0.98 * limit, np.sqrt(0.98 * limit / (count - 1))), (1.02 * limit, np.nan)):
            _, error = merged(Aggregation.MEAN, scale * alternating(count, square, quiet), [1] * count)
            assert error[-1] == pytest.approx(scale * expected, nan_ok=True)


def test_how_well_the_weight_of_a_known_error_is_known():
    """To a fifth, which of 10 tasks is a spread of 60 %."""
    values = 50 + np.array([[0.01 * number] for number in range(10)])
    for square, known in ((0.98 * 0.36, True), (1.02 * 0.36, False)):
        _, error = merged(Aggregation.MEAN, values, [1] * 10, alternating(10, square))
        assert np.isfinite(error[0]) == known


def test_a_value_that_does_not_exist_in_a_task_counts_for_nothing_there():
    """Whatever its weight there is: LET where dose was scored, but nothing that has one."""
    primaries, weights = [1, 5, 2, 3], np.array([[2.0], [7.0], [2.0], [2.5]])
    result = merged(Aggregation.MEAN, np.array([[10.0], [np.nan], [10.1], [10.2]]), primaries, weights)
    weights[1] = 0
    np.testing.assert_array_equal(
        result, merged(Aggregation.MEAN, np.array([[10.0], [0.0], [10.1], [10.2]]), primaries, weights)
    )
    assert result[0] == pytest.approx((2 * 10 + 4 * 10.1 + 7.5 * 10.2) / 13.5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("aggregation", [Aggregation.MEAN, Aggregation.SUM])
def test_tasks_that_have_simulated_nothing_are_no_samples(aggregation, weighted):
    tasks = np.array([[100.0], [0.0], [104.0], [0.0]])
    weights = np.ones_like(tasks) if weighted else None
    mean, error = merged(aggregation, tasks, [50, 0, 50, 0], weights)
    expected = merged(aggregation, tasks[::2], [50, 50], weights)
    np.testing.assert_array_equal((mean, error), expected)
    assert merged(aggregation, tasks[:2], [50, 0], weights)[1] is None
    assert merged(aggregation, tasks[:2], [0, 0], weights)[1] is None


def pages(tasks, weights=None):
    return [
        Page(0, "Dose", "Gy", (), np.asarray(values), weights=None if weights is None else weights[task])
        for task, values in enumerate(tasks)
    ]


def test_unknown_errors_are_none_of_a_page_that_cannot_be_kept():
    page = merge_pages(pages([[100.0, 0.0], [104.0, 0.0]]), [1, 1])
    np.testing.assert_array_equal(page.errors, [2, np.nan])
    assert merge_pages(pages([[100.0]]), [1]).errors is None


@pytest.mark.parametrize("weights", [None, [[1.0], [1.0]]])
def test_an_error_beyond_all_numbers_is_unknown(weights):
    page = merge_pages(pages([[1e200], [1.1e200]], weights and np.array(weights)), [1, 1])
    assert page.values == pytest.approx([1.05e200])
    assert np.isnan(page.errors).all()


def test_pages_with_weights_and_without_do_not_fit_together():
    one, other = pages([[1.0]]), pages([[1.0]], np.ones((1, 1)))
    with pytest.raises(PagesDiffer, match="ways to merge"):
        merge_pages(one + other, [1, 1])


GRID = (Axis("Depth", "mm", np.array([0.5, 1.5])), Axis("x", "cm", np.array([0.0])))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": "LET"}, "names"),
        ({"unit": "mGy"}, "units"),
        ({"aggregation": Aggregation.SUM}, "ways to merge"),
        ({"weights": np.ones(2)}, "ways to merge"),
        ({"values": np.ones(3)}, "shapes"),
        ({"axes": GRID[:1]}, "shapes"),
        ({"axes": GRID[::-1]}, "axes"),
        ({"axes": (replace(GRID[0], name="depth"), GRID[1])}, "axes"),
        ({"axes": (replace(GRID[0], unit="cm"), GRID[1])}, "axes"),
        ({"axes": (replace(GRID[0], values=np.array([0.5, 1.6])), GRID[1])}, "axes"),
        ({"axes": (GRID[0], replace(GRID[1], values=np.array([1e-9])))}, "axes"),
    ],
)
def test_only_pages_of_the_same_on_the_same_grid_are_merged(change, what):
    """Doses in Gy and in mGy, or at other depths, have no mean that means anything."""
    first = Page(3, "Dose", "Gy", GRID, np.array([1.0, 2.0]))
    for one, other in ((first, replace(first, **change)), (replace(first, **change), first)):
        with pytest.raises(PagesDiffer, match=f"^its {what} differ between tasks$"):
            merge_pages([one, other], [1, 1])


def test_a_merged_page_is_the_first_ones_but_for_its_numbers():
    first = Page(3, "Dose", "Gy", GRID, np.array([1.0, 2.0]), metadata={"a": "b"}, weights=np.ones(2))
    page = merge_pages([first, replace(first, number=4, values=np.array([3.0, 2.0]), metadata={})], [1, 1])
    assert (page.number, page.name, page.unit, page.axes) == (3, "Dose", "Gy", GRID)
    assert (page.metadata, page.weights, page.aggregation) == ({"a": "b"}, None, Aggregation.MEAN)
    np.testing.assert_array_equal(page.values, [2.0, 2.0])


def test_lists_of_particles_need_not_be_of_one_length():
    lists = [Page(0, "MCPL", "", (), np.ones(count), aggregation=Aggregation.CONCATENATE) for count in (2, 0, 3)]
    assert merge_pages(lists, [1, 1, 1]).values.shape == (5,)


def test_a_mean_has_no_weights_unless_it_is_said():
    total = make_accumulator(Aggregation.MEAN, (1,))
    total.add(np.array([3.0]), 1)
    assert total.result()[0] == [3.0]


def test_there_is_a_page_for_each_number_of_primaries():
    with pytest.raises(ValueError, match="zip"):
        merge_pages(pages([[1.0], [2.0]]), [1])
    with pytest.raises(PagesDiffer, match="no task has this page"):
        merge_pages([], [])


@pytest.mark.parametrize("aggregation", [Aggregation.CONCATENATE, Aggregation.NONE])
def test_of_no_task_there_is_nothing(aggregation):
    values, error = make_accumulator(aggregation, (2,)).result()
    assert (values.shape, error) == ((0,), None)


def test_a_value_without_a_weight_does_not_exist():
    page = merge_pages(pages([[1.0, 0.0, np.nan]] * 3, np.array([[1.0, 0.0, 1.0]] * 3)), [1, 1, 1])
    np.testing.assert_array_equal(page.values, [1.0, np.nan, np.nan])
    page = merge_pages(pages([[1.0, np.nan]], np.ones((1, 2))), [1])
    np.testing.assert_array_equal(page.values, [1.0, np.nan])


#: The 99 % point of Student's t, two-sided, for so many tasks.
CRITICAL = {4: 5.8409, 10: 3.2498, 20: 2.8609, 100: 2.6264}
#: How many particles come to a voxel in all tasks; their dose and LET are drawn.
PARTICLES = np.geomspace(0.3, 3e6, 4000)
#: A hundredth of the particles are heavy: rare, but with much dose and LET. What is then true can be written down.
HEAVY, DOSE_OF_HEAVY, LET_OF_HEAVY = 0.01, 5.0, 20.0
DOSE = 2 * (1 + HEAVY * DOSE_OF_HEAVY)
LET = 2 * (1 + HEAVY * DOSE_OF_HEAVY * LET_OF_HEAVY) / DOSE


def draw_task(draw, tasks):
    """Dose and LET of a task; a particle's dose is a gamma variable of mean 2, and so are sums of them."""
    light = draw.gamma(2 * draw.poisson(PARTICLES / tasks))
    heavy = DOSE_OF_HEAVY * draw.gamma(2 * draw.poisson(HEAVY * PARTICLES / tasks))
    dose = light + heavy
    return dose, np.divide(light + LET_OF_HEAVY * heavy, dose, out=np.zeros_like(dose), where=dose > 0)


@pytest.mark.parametrize("count", CRITICAL)
def test_errors_are_what_they_say_wherever_they_are_given(count):
    """As `tests.stress.errors` looks at it, but against the truth. Given is the error to those who can have it."""
    draw = np.random.default_rng(count)
    pulls = {"dose": [], "let": []}
    for _ in range(12):
        doses, lets = zip(*(draw_task(draw, count) for _ in range(count)), strict=True)
        dose, error = merged(Aggregation.MEAN, doses, [1] * count)
        pulls["dose"].append((dose - PARTICLES / count * DOSE, error))
        let, error = merged(Aggregation.MEAN, lets, [1] * count, doses)
        pulls["let"].append((let - LET, error))
    for quantity, most_unknown, least_known in (("dose", 1, 100), ("let", 7000, 80_000)):
        difference, error = np.transpose(pulls[quantity], (1, 0, 2))
        known = ~np.isnan(error)
        assert known[:, most_unknown > PARTICLES].mean() < 0.03
        assert known[:, least_known < PARTICLES].all()
        assert 0.9 <= np.sum(difference[known] ** 2) / np.sum(error[known] ** 2) <= 1.1
        for low, high in ((0, 1e3), (1e3, 1e5), (1e5, 1e7)):
            band = known & (low <= PARTICLES) & (high > PARTICLES)
            if np.count_nonzero(band) > 2000:
                assert np.mean(np.abs(difference[band]) > CRITICAL[count] * error[band]) <= 0.015, (quantity, low)


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

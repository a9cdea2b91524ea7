"""Merge the same page of several tasks into one, with its standard error.

Tasks of one simulation are independent samples of the same distribution. A mean over n_i primaries has the variance
s^2/n_i, so tasks are weighted by n_i, and s^2 is estimated from the spread between the k tasks with n_i > 0:

    m = sum(n_i x_i) / N            se^2 = sum(n_i (x_i - m)^2) / ((k - 1) N)              N = sum(n_i)

A value with its own weights, such as LET, which is averaged over dose d_i, is the ratio of two such means, and the
weights are as random as the values. Its error is that of the ratio to first order (W. G. Cochran, "Sampling
Techniques", 3rd edition, 1977, chapter 6), which equals the one above if all d_i are the same:

    m = sum(n_i d_i x_i) / (N D)    se^2 = sum(n_i d_i^2 (x_i - m)^2) / ((k - 1) N D^2)    D = sum(n_i d_i) / N

Sums are accumulated in one pass around the running mean, as in D. H. D. West, "Updating mean and variance estimates: an
improved method", Communications of the ACM 22 (1979) 532, which does not subtract large numbers from each other. Memory
use is a few arrays of the page's size, whatever the number of tasks.

An error that the tasks cannot determine is unknown (NaN), not zero: tasks that all missed the rare, large contributions
agree by chance. `python -m tests.stress.errors` checks the limits below against a real code; docs/merging.md explains
them and has the results.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.estimators import Aggregation, Axis, Floats, Page

Doubles = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Counts = NDArray[np.uint8]

#: The error of a mean is known if the mean amounts to this many typical histories, or to one per task if that is fewer.
ENOUGH_HISTORIES = 30
#: A typical history is estimated from groups of this many consecutive values.
NEIGHBOURS = 8
#: The value's own variance may indicate fewer histories, but not fewer than this fraction.
OWN_FRACTION = 1 / 4

#: The error of a weighted mean is known if values of its weight have at most this mean relative error over the page,
MAX_ERROR = 0.025
#: if the value is at least this fraction of the page's mean (the average does not apply to smaller ones, as in air),
MIN_VALUE = 0.2
#: and if the weight itself has at most this relative error.
MAX_WEIGHT_ERROR = 0.2

#: Number of values processed at once, so that they stay in the processor's cache; whole groups of neighbours.
_PART = 2048 * NEIGHBOURS


class Mean:
    """Running mean over primaries of arrays of one shape, and its standard error."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._tasks = 0
        self._primaries = 0.0
        self._counts = _zero_counts(shape)
        self._mean: Doubles = np.zeros(shape)
        self._spread: Doubles = np.zeros(shape)

    def add(self, values: Floats, primaries: float, weights: Floats | None = None) -> None:
        """Add the `values` of one task, weighted with `primaries`; a task without primaries is ignored."""
        if primaries <= 0:
            return
        self._tasks += 1
        before = self._primaries
        self._primaries += primaries
        for part in _parts(values):
            mean = self._mean[part]
            delta = values[part] - mean
            step = delta * (primaries / self._primaries)
            mean += step
            delta *= before
            delta *= step
            self._spread[part] += delta
            _count(self._counts[part], values[part])

    def result(self) -> tuple[Doubles, Doubles | None]:
        """Return the mean and its standard error (NaN where unknown; None with fewer than two tasks)."""
        if self._tasks < 2:
            return self._mean, None
        error = np.empty_like(self._mean)
        for part in _parts(error):
            variance = self._spread[part] / ((self._tasks - 1) * self._primaries)
            error[part] = _standard_error(variance, self._known(part, variance))
        return self._mean, error

    def _known(self, part: slice, variance: Doubles) -> Booleans:
        """Return where the error is known.

        A typical history contributes sum(variances) / sum(means) of a group of neighbours to a mean. Using each value's
        own variance would favour values whose tasks agree by chance.
        """
        histories = min(self._tasks, ENOUGH_HISTORIES)
        size = np.abs(self._mean[part])
        starts = np.arange(0, len(size), NEIGHBOURS)
        variances, sizes = (np.add.reduceat(values, starts) for values in (variance, size))
        typical = np.divide(variances, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        enough = size >= histories * np.repeat(typical, NEIGHBOURS)[: len(size)]
        return np.asarray(enough & (size**2 >= OWN_FRACTION * histories * variance) & (self._counts[part] > 1))


class WeightedMean:
    """Running mean over primaries x weights, where the weights are as random as the values, and its standard error."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._tasks = 0
        self._primaries = 0.0
        self._counts = _zero_counts(shape)
        self._mean: Doubles = np.zeros(shape)
        self._weight: Doubles = np.zeros(shape)
        # Sums of primaries x weight^2 x (value - mean)^0, ^1 and ^2
        self._moment0: Doubles = np.zeros(shape)
        self._moment1: Doubles = np.zeros(shape)
        self._moment2: Doubles = np.zeros(shape)

    def add(self, values: Floats, primaries: float, weights: Floats | None = None) -> None:
        """Add the `values` of one task with their `weights`; values with weight 0 are ignored."""
        if primaries <= 0 or weights is None:
            return
        self._tasks += 1
        self._primaries += primaries
        for part in _parts(values):
            self._add(part, values[part], primaries, weights[part])

    def _add(self, part: slice, values: Floats, primaries: float, weights: Floats) -> None:
        sums = self._mean, self._weight, self._moment0, self._moment1, self._moment2
        mean, total, moment0, moment1, moment2 = (array[part] for array in sums)
        exists = np.isfinite(values)
        if not exists.all():  # undefined values of this task count for nothing
            values, weights = np.where(exists, values, 0.0), np.where(exists, weights, 0.0)
        _count(self._counts[part], weights)
        weight = primaries * weights.astype(np.float64)
        total += weight
        step = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0) * (values - mean)
        mean += step
        moment2 += step * (step * moment0 - 2 * moment1)  # the mean, which is their centre, has moved
        moment1 -= step * moment0
        delta = values - mean
        weight *= weights
        moment0 += weight
        weight *= delta
        moment1 += weight
        weight *= delta
        moment2 += weight

    def result(self) -> tuple[Doubles, Doubles | None]:
        """Return the mean and its standard error: NaN where undefined or unknown; None with fewer than two tasks."""
        mean = np.where(self._weight > 0, self._mean, np.nan)
        if self._tasks < 2:
            return mean, None
        weight = self._weight / self._primaries
        variance = self._moment2 / ((self._tasks - 1) * self._primaries)  # the variance of weight x value
        known = self._known(weight, variance)
        np.divide(variance, weight**2, out=variance, where=known)
        return mean, _standard_error(variance, known)

    def _known(self, weight: Doubles, variance: Doubles) -> Booleans:
        """Return where the error is known, given the mean weight and the variance of the mean of weight x value.

        The average relative error is taken over the whole page: a few neighbours may all have missed rare, large
        contributions.
        """
        total, sum_of_values = weight.sum(), (weight * self._mean).sum()
        precise = weight * (MAX_ERROR * sum_of_values) ** 2 >= variance.sum() * total
        usual = np.abs(self._mean) * total >= MIN_VALUE * abs(sum_of_values)
        square = weight**2
        steady = self._moment0 / self._primaries - square <= (self._tasks - 1) * MAX_WEIGHT_ERROR**2 * square
        return np.asarray((self._counts > 1) & precise & usual & steady)


def _parts(values: Floats) -> Iterator[slice]:
    """Yield the slices in which an array is processed."""
    for start in range(0, len(values), _PART):
        yield slice(start, start + _PART)


def _zero_counts(shape: tuple[int, ...]) -> Counts:
    return np.zeros(shape, dtype=np.uint8)


def _count(counts: Counts, scores: Floats) -> None:
    """Count a task where it has scored; 2 means two or more."""
    np.minimum(counts + (scores != 0), 2, out=counts)


class Sum:
    """Running sum of counts, and its standard error: that of the mean over primaries, times all primaries."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum: Doubles = np.zeros(shape)
        self._primaries = 0.0
        self._mean = Mean(shape)

    def add(self, values: Floats, primaries: float, weights: Floats | None = None) -> None:
        """Add the `values` of one task; a sum has no weights."""
        self._sum += values
        if primaries > 0:
            self._primaries += primaries
            self._mean.add(values / primaries, primaries)

    def result(self) -> tuple[Doubles, Doubles | None]:
        """Return the sum and its standard error (NaN where unknown; None with fewer than two tasks)."""
        _, error = self._mean.result()
        return self._sum, None if error is None else error * self._primaries


class Concatenation:
    """All values in the order of the tasks."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._parts: list[Doubles] = []

    def add(self, values: Floats, primaries: float, weights: Floats | None = None) -> None:
        """Append `values`."""
        self._parts.append(np.asarray(values, dtype=np.float64))

    def result(self) -> tuple[Doubles, None]:
        """Return the values; a list of particles has no error."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0), None


class First:
    """The values of the first task, for pages that are the same in every task."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._values: Doubles | None = None

    def add(self, values: Floats, primaries: float, weights: Floats | None = None) -> None:
        """Keep `values` if they are the first."""
        if self._values is None:
            self._values = np.asarray(values, dtype=np.float64)

    def result(self) -> tuple[Doubles, None]:
        """Return the values, without an error."""
        return np.zeros(0) if self._values is None else self._values, None


Accumulator = Mean | WeightedMean | Sum | Concatenation | First

_ACCUMULATORS: dict[Aggregation, type[Accumulator]] = {
    Aggregation.MEAN: Mean,
    Aggregation.SUM: Sum,
    Aggregation.CONCATENATE: Concatenation,
    Aggregation.NONE: First,
}


def make_accumulator(aggregation: Aggregation, shape: tuple[int, ...], *, weighted: bool = False) -> Accumulator:
    """Return an empty accumulator for pages of `shape`; `weighted` means have weights."""
    if weighted and aggregation is Aggregation.MEAN:
        return WeightedMean(shape)
    return _ACCUMULATORS[aggregation](shape)


class PagesDiffer(Exception):
    """The tasks have pages that cannot be merged."""


def merge_pages(pages: Iterable[Page], primaries: Sequence[int]) -> Page:
    """Merge the same page of several tasks, given the primaries of each; iterates over `pages` once.

    Where no task has a value that counts, the result is NaN. Raises PagesDiffer if the pages do not fit together.
    """
    first: Page | None = None
    total: Accumulator | None = None
    with np.errstate(over="ignore", invalid="ignore"):  # overflow shows in the result
        for page, count in zip(pages, primaries, strict=True):
            if first is None or total is None:
                first = page
                total = make_accumulator(page.aggregation, page.values.shape, weighted=page.weights is not None)
            elif (difference := _difference(first, page)) is not None:
                raise PagesDiffer(f"its {difference} differ between tasks")
            total.add(page.values, count, page.weights)
        if first is None or total is None:
            raise PagesDiffer("no task has this page")
        values, errors = total.result()
    if not values.size:
        raise PagesDiffer("it has no values: no particle has reached it")
    return Page(
        first.number, first.name, first.unit, first.axes, values, errors, None, first.aggregation, first.metadata
    )


def _difference(first: Page, page: Page) -> str | None:
    """Return in what two pages differ that prevents merging them; None if nothing."""
    grid = first.aggregation is not Aggregation.CONCATENATE
    same = {
        "names": page.name == first.name,
        "units": page.unit == first.unit,
        "ways to merge": page.aggregation == first.aggregation and (page.weights is None) == (first.weights is None),
        "shapes": page.dimension == first.dimension and (not grid or page.values.shape == first.values.shape),
        "axes": len(page.axes) == len(first.axes) and all(map(_same_axis, page.axes, first.axes)),
    }
    return next((aspect for aspect, is_same in same.items() if not is_same), None)


def _same_axis(one: Axis, other: Axis) -> bool:
    return (one.name, one.unit) == (other.name, other.unit) and np.array_equal(one.values, other.values)


def _standard_error(variance: Doubles, known: Booleans) -> Doubles:
    """Return the square root of `variance` where it is known; NaN elsewhere, and where it overflows."""
    error = np.full_like(variance, np.nan)
    np.sqrt(np.maximum(variance, 0.0), out=error, where=known & np.isfinite(variance))
    return error

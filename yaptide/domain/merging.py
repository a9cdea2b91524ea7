"""Merging the same page of several tasks into one, with its standard error.

Tasks of one simulation are independent samples of the same distribution. A mean over n_i primaries has the variance
s^2/n_i, so tasks are weighted by n_i, and s^2 is estimated from the spread between tasks:

    m = sum(w_i x_i) / sum(w_i)            se^2 = sum(w_i (x_i - m)^2) / ((k - 1) sum(w_i))

with k tasks that have w_i > 0. Both are accumulated in one pass with the update of D. H. D. West, "Updating mean and
variance estimates: an improved method", Communications of the ACM 22 (1979) 532, which does not subtract large numbers
from each other. Memory is a few arrays of the page's size, whatever the number of tasks.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.estimators import Aggregation, Axis, Floats, Page

Doubles = NDArray[np.float64]


class WeightedMean:
    """Running mean and standard error of arrays of one shape; add the tasks one after the other."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        # One number as long as all values have the same weight: what is then done to arrays is little.
        self._weight: Doubles = np.zeros(())
        self._count: NDArray[np.int64] = np.zeros((), dtype=np.int64)
        self._mean: Doubles = np.zeros(shape)
        self._spread: Doubles = np.zeros(shape)

    def add(self, values: Floats, weight: float | Floats) -> None:
        """Count `values` with `weight`, one number or one for each value; where it is 0 the value does not count."""
        weights = np.asarray(weight, dtype=np.float64)
        self._weight = self._weight + weights
        share = np.divide(weights, self._weight, out=np.zeros_like(self._weight), where=self._weight > 0)
        delta = values - self._mean
        step = share * delta
        self._mean += step
        delta *= weights
        np.subtract(values, self._mean, out=step)
        delta *= step
        self._spread += delta
        self._count = self._count + (weights > 0)

    def result(self) -> tuple[Doubles, Doubles | None]:
        """Mean and standard error; NaN where nothing counted, no error (None) if no value has two tasks."""
        if not np.all(self._weight > 0):
            self._mean[np.broadcast_to(self._weight <= 0, self._mean.shape)] = np.nan
        if not np.any(self._count > 1):
            return self._mean, None
        scale = (self._count - 1) * self._weight
        variance = np.divide(self._spread, scale, out=np.zeros_like(self._mean), where=scale > 0)
        return self._mean, np.sqrt(np.maximum(variance, 0.0))


class Sum:
    """Running sum of counts and its standard error, k times that of the mean of k tasks."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._mean = WeightedMean(shape)
        self._tasks = 0

    def add(self, values: Floats, weight: float | Floats) -> None:
        """Count `values`; a sum has no weights."""
        self._mean.add(values, 1.0)
        self._tasks += 1

    def result(self) -> tuple[Doubles, Doubles | None]:
        """Sum and its standard error (None for a single task)."""
        mean, error = self._mean.result()
        return mean * self._tasks, None if error is None else error * self._tasks


class Concatenation:
    """All values one after the other, in the order of the tasks."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._parts: list[Doubles] = []

    def add(self, values: Floats, weight: float | Floats) -> None:
        """Append `values`."""
        self._parts.append(np.asarray(values, dtype=np.float64))

    def result(self) -> tuple[Doubles, None]:
        """The values; a list of particles has no error."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0), None


class First:
    """The first task's values, for what is the same in every task."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._values: Doubles | None = None

    def add(self, values: Floats, weight: float | Floats) -> None:
        """Keep `values` if they are the first."""
        if self._values is None:
            self._values = np.asarray(values, dtype=np.float64)

    def result(self) -> tuple[Doubles, None]:
        """The values, without an error."""
        return np.zeros(0) if self._values is None else self._values, None


Accumulator = WeightedMean | Sum | Concatenation | First

_ACCUMULATORS: dict[Aggregation, type[Accumulator]] = {
    Aggregation.MEAN: WeightedMean,
    Aggregation.SUM: Sum,
    Aggregation.CONCATENATE: Concatenation,
    Aggregation.NONE: First,
}


def accumulator(aggregation: Aggregation, shape: tuple[int, ...]) -> Accumulator:
    """An empty accumulator for pages of `shape` that are merged by `aggregation`."""
    return _ACCUMULATORS[aggregation](shape)


class PagesDiffer(Exception):
    """The tasks have left pages that cannot be one."""


def merge_pages(pages: Iterable[Page], primaries: Sequence[int]) -> Page:
    """Merge the same page of several tasks, each with its primaries; `pages` is gone through once.

    Where no task has a value, or one that counts, the result has none (NaN). Raises PagesDiffer if the pages do not fit
    together.
    """
    first: Page | None = None
    total: Accumulator | None = None
    with np.errstate(over="ignore", invalid="ignore"):  # it shows in the result
        for page, count in zip(pages, primaries, strict=True):
            if first is None or total is None:
                first, total = page, accumulator(page.aggregation, page.values.shape)
            elif (what := _difference(first, page)) is not None:
                raise PagesDiffer(f"its {what} differ between tasks")
            _add(total, page, count)
        if first is None or total is None:
            raise PagesDiffer("no task has left it")
        values, errors = total.result()
    return Page(
        first.number, first.name, first.unit, first.axes, values, errors, None, first.aggregation, first.metadata
    )


def _add(total: Accumulator, page: Page, primaries: int) -> None:
    values = page.values
    weights = 1.0 if page.weights is None else np.asarray(page.weights, dtype=np.float64)
    if page.aggregation is Aggregation.MEAN and not (exists := np.isfinite(values)).all():
        # What does not exist in this task counts for nothing there.
        values, weights = np.where(exists, values, 0.0), np.where(exists, weights, 0.0)
    total.add(values, primaries * weights)


def _difference(first: Page, page: Page) -> str | None:
    """In what two pages differ that has to be the same for them to be merged; None if in nothing."""
    grid = first.aggregation is not Aggregation.CONCATENATE
    same = {
        "names": page.name == first.name,
        "units": page.unit == first.unit,
        "ways to merge": page.aggregation == first.aggregation and (page.weights is None) == (first.weights is None),
        "shapes": page.dimension == first.dimension and (not grid or page.values.shape == first.values.shape),
        "axes": len(page.axes) == len(first.axes) and all(map(_same_axis, page.axes, first.axes)),
    }
    return next((what for what, is_same in same.items() if not is_same), None)


def _same_axis(one: Axis, other: Axis) -> bool:
    return (one.name, one.unit) == (other.name, other.unit) and np.array_equal(one.values, other.values)

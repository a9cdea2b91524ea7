"""A data frame of pandas: the table of `write_csv`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from yaptide_client.estimators import Estimator, Floats, Page
from yaptide_client.extras import needed_for
from yaptide_client.formats.layout import axis_columns, count_axes, list_pages

if TYPE_CHECKING:
    import pandas as pd


def to_pandas(estimators: Sequence[Estimator]) -> "pd.DataFrame":
    """The table of `write_csv`; texts are categories, unknown values NaN. Raises NotConfigured without pandas."""
    with needed_for("A data frame"):
        import pandas as pd  # noqa: PLC0415 - it takes long to load
    pages = list_pages(estimators)
    sizes = [page.values.size for _, page in pages]

    def texts(words: Sequence[str]) -> Any:
        categories, codes = np.unique(np.array(words, dtype=object), return_inverse=True)
        return pd.Categorical.from_codes(np.repeat(codes, sizes), categories=categories)

    columns = {
        "estimator": texts([estimator.name for estimator, _ in pages]),
        "page": np.repeat(np.array([page.number for _, page in pages], dtype=np.int64), sizes),
        "quantity": texts([page.name for _, page in pages]),
        "unit": texts([page.unit for _, page in pages]),
    }
    for number in range(1, count_axes(estimators) + 1):
        axes = [page.axes[number - 1] if page.dimension >= number else None for _, page in pages]
        name, unit, place = axis_columns(number)
        columns[name] = texts([axis.name if axis else "" for axis in axes])
        columns[unit] = texts([axis.unit if axis else "" for axis in axes])
        columns[place] = _join([_list_coordinates(page, number) for _, page in pages])
    columns["value"] = _join([page.values for _, page in pages])
    columns["error"] = _join([_make_unknown(page) if page.errors is None else page.errors for _, page in pages])
    return pd.DataFrame(columns)


def _join(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts or [np.zeros(0)])


def _make_unknown(page: Page) -> Floats:
    return np.full(page.values.size, np.nan)


def _list_coordinates(page: Page, number: int) -> Floats:
    """The coordinate of each value on an axis, counted from 1; NaN if the page has fewer axes."""
    if page.dimension < number:
        return _make_unknown(page)
    before = [axis.values.size for axis in page.axes[: number - 1]]
    values = np.repeat(page.axes[number - 1].values, int(np.prod(before)))
    return np.tile(values, page.values.size // max(values.size, 1))

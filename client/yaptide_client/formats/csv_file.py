"""CSV: a line for each value."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import product, repeat
from math import isfinite
from typing import IO, Any

import numpy as np

from yaptide_client.estimators import Estimator, Floats, Page
from yaptide_client.formats.layout import axis_columns, count_axes, list_pages


def write_csv(estimators: Sequence[Estimator], file: IO[str]) -> None:
    """Write a line for each value, the first axis fastest; unknown and missing values are empty cells."""
    axes = count_axes(estimators)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("estimator", "page", "quantity", "unit"),
            *(name for number in range(1, axes + 1) for name in axis_columns(number)),
            *("value", "error"),
        ]
    )
    for estimator, page in list_pages(estimators):
        head = (_escape(estimator.name), page.number, _escape(page.name), _escape(page.unit))
        cells = zip(_list_places(page, axes), _list_cells(page.values), _list_cells(page.errors), strict=False)
        writer.writerows((*head, *place, value, error) for place, value, error in cells)


def _list_places(page: Page, axes: int) -> Iterator[tuple[Any, ...]]:
    """Name, unit and coordinate on each axis, for each value, padded to `axes`; endless for a page without axes."""
    rest = ("",) * (3 * (axes - page.dimension))
    if not page.axes:
        return repeat(rest)
    steps = [
        [(_escape(axis.name), _escape(axis.unit), value) for value in axis.values.tolist()]
        for axis in reversed(page.axes)
    ]
    return ((*(cell for step in reversed(place) for cell in step), *rest) for place in product(*steps))


def _escape(text: str) -> str:
    """A name that spreadsheets do not evaluate: an apostrophe precedes characters that begin a formula."""
    text = text.replace("\r", " ")  # the writer would not quote it
    return f"'{text}" if len(text) > 1 and text[0] in "=+-@\t" else text


def _list_cells(numbers: Floats | None) -> Iterable[Any]:
    if numbers is None:
        return repeat("")
    if np.isfinite(numbers).all():
        return numbers.tolist()
    return (number if isfinite(number) else "" for number in numbers.tolist())

"""What results are written as: CSV, NPZ, data frames, data sets. docs/results.md describes each."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import product, repeat
from math import isfinite
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from yaptide_client.estimators import Estimator, Floats, Page
from yaptide_client.extras import needed_for

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Pages = Iterable[tuple[Estimator, Page]]


def write_csv(pages: Pages, file: IO[str]) -> None:
    """Write a line for each value, the first axis fastest; what is unknown or missing is an empty cell."""
    pages = list(pages)
    axes = _most_axes(pages)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("estimator", "page", "quantity", "unit"),
            *(name for number in range(1, axes + 1) for name in _axis_columns(number)),
            *("value", "error"),
        ]
    )
    for estimator, page in pages:
        head = (_cell(estimator.name), page.number, _cell(page.name), _cell(page.unit))
        cells = zip(_places(page, axes), _cells(page.values), _cells(page.errors), strict=False)
        writer.writerows((*head, *place, value, error) for place, value, error in cells)


def _most_axes(pages: Sequence[tuple[Estimator, Page]]) -> int:
    return max((page.dimension for _, page in pages), default=0)


def _axis_columns(number: int) -> tuple[str, str, str]:
    return f"axis{number}_name", f"axis{number}_unit", f"axis{number}"


def _places(page: Page, axes: int) -> Iterator[tuple[Any, ...]]:
    """Names, units and coordinates of each value, filled up to so many axes; without end for a page without axes."""
    rest = ("",) * (3 * (axes - page.dimension))
    if not page.axes:
        return repeat(rest)
    steps = [
        [(_cell(axis.name), _cell(axis.unit), value) for value in axis.values.tolist()] for axis in reversed(page.axes)
    ]
    return ((*(cell for step in reversed(place) for cell in step), *rest) for place in product(*steps))


def _cell(text: str) -> str:
    """A name as spreadsheets show it, and do not calculate it: an apostrophe stands before what they take for more."""
    text = text.replace("\r", " ")  # which the writer would not quote
    return f"'{text}" if len(text) > 1 and text[0] in "=+-@\t" else text


def _cells(numbers: Floats | None) -> Iterable[Any]:
    if numbers is None:
        return repeat("")
    if np.isfinite(numbers).all():
        return numbers.tolist()
    return (number if isfinite(number) else "" for number in numbers.tolist())


def save_npz(estimators: Sequence[Estimator], file: Path | str | IO[bytes]) -> None:
    """Write arrays to a path or an open file.

    They have keys like `e0_p0_values`; `index` is a JSON text that says what each of them is.
    """
    arrays: dict[str, Any] = {}
    index = [
        {
            "name": estimator.name,
            "metadata": dict(estimator.metadata),
            "pages": [_add_page(arrays, f"e{e}_p{p}", page) for p, page in enumerate(estimator.pages)],
        }
        for e, estimator in enumerate(estimators)
    ]
    arrays["index"] = np.array(json.dumps({"layout": 1, "estimators": index}, ensure_ascii=False))
    if not isinstance(file, Path | str):
        np.savez_compressed(file, **arrays)
        return
    with Path(file).open("wb") as opened:  # given a name, numpy would add an ending to it
        np.savez_compressed(opened, **arrays)


def _add_page(arrays: dict[str, Any], stem: str, page: Page) -> dict[str, Any]:
    """Add the arrays of a page, with one index for each axis; returns what the index says of them."""
    keys: dict[str, Any] = {"values": f"{stem}_values", "errors": None}
    arrays[keys["values"]] = index_columns(page, page.values)
    if page.errors is not None:
        keys["errors"] = f"{stem}_errors"
        arrays[keys["errors"]] = index_columns(page, page.errors)
    axes = []
    for number, axis in enumerate(page.axes, start=1):
        axes.append({"name": axis.name, "unit": axis.unit, "values": f"{stem}_axis{number}"})
        arrays[axes[-1]["values"]] = axis.values
    about = {"number": page.number, "name": page.name, "unit": page.unit}
    return about | keys | {"axes": axes, "metadata": dict(page.metadata)}


def index_columns(page: Page, numbers: Floats) -> Floats:
    """Values or errors with one index for each axis, without one for a single number, and with one for a list."""
    if not page.axes:
        return numbers.reshape(()) if numbers.size == 1 else numbers
    return numbers.reshape([axis.values.size for axis in page.axes], order="F")


def to_pandas(pages: Pages) -> "pd.DataFrame":
    """The table of `write_csv` as a data frame; texts, which repeat themselves, are categories."""
    with needed_for("A data frame"):
        import pandas as pd  # noqa: PLC0415 - it takes long to load
    pages = list(pages)
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
    for number in range(1, _most_axes(pages) + 1):
        axes = [page.axes[number - 1] if page.dimension >= number else None for _, page in pages]
        name, unit, place = _axis_columns(number)
        columns[name] = texts([axis.name if axis else "" for axis in axes])
        columns[unit] = texts([axis.unit if axis else "" for axis in axes])
        columns[place] = _joined([_coordinates(page, number) for _, page in pages])
    columns["value"] = _joined([page.values for _, page in pages])
    columns["error"] = _joined([_unknown(page) if page.errors is None else page.errors for _, page in pages])
    return pd.DataFrame(columns)


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts or [np.zeros(0)])


def _unknown(page: Page) -> Floats:
    return np.full(page.values.size, np.nan)


def _coordinates(page: Page, number: int) -> Floats:
    """Where each value lies on an axis, counted from 1; NaN if the page has not so many."""
    if page.dimension < number:
        return _unknown(page)
    before = [axis.values.size for axis in page.axes[: number - 1]]
    values = np.repeat(page.axes[number - 1].values, int(np.prod(before)))
    return np.tile(values, page.values.size // max(values.size, 1))


def to_dataset(estimator: Estimator, page: Page) -> "xr.Dataset":
    """A page as a data set, as `Results.to_xarray` describes it."""
    with needed_for("A data set"):
        import xarray as xr  # noqa: PLC0415 - it takes long to load
    names = [axis.name for axis in page.axes]
    distinct = len(set(names)) == len(names) and all(names) and not {"value", "error"} & set(names)
    values = index_columns(page, page.values)
    dims = names if distinct else [f"axis{number}" for number in range(1, len(names) + 1)]
    coordinates = {
        dim: (dim, axis.values, {"units": axis.unit, "long_name": axis.name})
        for dim, axis in zip(dims, page.axes, strict=True)
    }
    dims = dims or ["index"] * values.ndim
    arrays = {"value": (dims, values, {"units": page.unit, "long_name": page.name})}
    if page.errors is not None:
        about = {"units": page.unit, "long_name": f"standard error of {page.name}"}
        arrays["error"] = (dims, index_columns(page, page.errors), about)
    attributes = {"estimator": estimator.name, "page": page.number, "quantity": page.name, "units": page.unit}
    return xr.Dataset(arrays, coordinates, attributes)

"""Data sets of xarray: one for each page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from yaptide_client.estimators import Estimator, Page
from yaptide_client.extras import needed_for
from yaptide_client.formats.layout import index_columns, list_pages

if TYPE_CHECKING:
    import xarray as xr


def to_xarray(estimators: Sequence[Estimator]) -> dict[tuple[str, int], "xr.Dataset"]:
    """A data set for each page, by estimator name and page number, as `Results.to_xarray` describes it."""
    return {(estimator.name, page.number): _make_dataset(estimator, page) for estimator, page in list_pages(estimators)}


def _make_dataset(estimator: Estimator, page: Page) -> "xr.Dataset":
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

"""How pages are laid out in several formats: columns of tables, indices of arrays."""

from collections.abc import Sequence

from yaptide_client.estimators import Estimator, Floats, Page


def list_pages(estimators: Sequence[Estimator]) -> list[tuple[Estimator, Page]]:
    """All pages, each with its estimator."""
    return [(estimator, page) for estimator in estimators for page in estimator.pages]


def count_axes(estimators: Sequence[Estimator]) -> int:
    """The largest number of axes of a page."""
    return max((page.dimension for _, page in list_pages(estimators)), default=0)


def axis_columns(number: int) -> tuple[str, str, str]:
    """Names of the columns of an axis, counted from 1: its name, unit and coordinate."""
    return f"axis{number}_name", f"axis{number}_unit", f"axis{number}"


def index_columns(page: Page, numbers: Floats) -> Floats:
    """Values or errors with one index per axis. Without axes: no index for a single number, one for a list."""
    if not page.axes:
        return numbers.reshape(()) if numbers.size == 1 else numbers
    return numbers.reshape([axis.values.size for axis in page.axes], order="F")

"""Plots of results."""

import textwrap
from pathlib import Path

import numpy as np

from yaptide_client.depth_dose import is_depth_curve, length_in_mm, read_range
from yaptide_client.errors import NotFound
from yaptide_client.estimators import Floats, Page
from yaptide_client.extras import needed_for
from yaptide_client.results import Results

with needed_for("Drawing"):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = "#0b5cad"
_MARK = "#b5402c"


def draw_overview(results: Results, title: str) -> Figure:
    """Plot a depth-dose curve with its standard-error band and R80, and a slice through the dose, side by side.

    Without a depth-dose curve, plots the first page with one axis. Raises NotFound without a page with one or two axes.
    Missing values are left blank.
    """
    curve, plane = results.depth_curve() or _first_page(results, 1), _first_page(results, 2)
    if curve is None and plane is None:
        raise NotFound("Nothing to plot: the results contain no page with one or two axes")
    with mpl.rc_context({"text.parse_math": False}):  # dollar signs in names are not formulas
        figure = Figure(figsize=(13, 5), layout="constrained")
        figure.suptitle(title)
        grid = figure.add_gridspec(4, 2)
        if curve is not None:
            upper = figure.add_subplot(grid[:3, 0])
            _draw_curve(upper, curve)
            _draw_error(figure.add_subplot(grid[3, 0], sharex=upper), curve)
        if plane is not None:
            _draw_slice(figure, figure.add_subplot(grid[:, 1]), plane)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure to a file; the suffix determines the format (png, pdf, svg)."""
    figure.savefig(path, dpi=130)


def _first_page(results: Results, dimension: int) -> Page | None:
    pages = (page for estimator in results.estimators for page in estimator.pages)
    finite = (page for page in pages if all(np.isfinite(axis.values).all() for axis in page.axes))
    return next((page for page in finite if page.dimension == dimension), None)


def _draw_curve(axes: Axes, page: Page) -> None:
    depth, values = page.axes[0], _finite(page.values)
    axes.plot(depth.values, values, color=_LINE, label=page.name)
    if page.errors is not None:
        errors = _finite(page.errors)
        band = (values - errors, values + errors)
        axes.fill_between(depth.values, *band, color=_LINE, alpha=0.35, linewidth=0, label="± standard error")
    _mark_range(axes, page)
    axes.set(ylabel=_labelled(page.name, page.unit))
    if not np.any(values < 0):
        axes.set_ylim(0, None)
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")


def _mark_range(axes: Axes, page: Page) -> None:
    """Draw R80 of a depth-dose curve, or the reason why it has none as the title."""
    if not is_depth_curve(page):
        return
    scale = length_in_mm(page.axes[0].unit)
    try:
        proton_range = read_range(page)
    except NotFound as error:
        axes.set_title(textwrap.fill(textwrap.shorten(f"no range: {error}", 240), 80), fontsize="small")
        return
    if scale is not None:
        label = f"R80 = {proton_range.format_length(proton_range.r80_mm)}"
        axes.axvline(proton_range.r80_mm / scale, color=_MARK, linestyle="--", label=label)


def _draw_error(axes: Axes, page: Page) -> None:
    """Plot the relative standard error up to where the dose falls below 1 % of its maximum."""
    depth, values = page.axes[0], _finite(page.values)
    if page.errors is not None and np.any(values > 0):
        reached = values > 0.01 * np.nanmax(values)
        percent = 100 * _finite(page.errors)[reached] / values[reached]
        axes.plot(depth.values[reached], percent, color=_LINE, linewidth=1)
    axes.set(xlabel=_labelled(depth.name, depth.unit), ylabel="error [%]", ylim=(0, None))
    axes.grid(alpha=0.3)


def _draw_slice(figure: Figure, axes: Axes, page: Page) -> None:
    across, along = page.axes
    values = _finite(page.grid())
    image = axes.pcolormesh(_edges(along.values), _edges(across.values), values, cmap="inferno", shading="flat")
    axes.set(xlabel=_labelled(along.name, along.unit), ylabel=_labelled(across.name, across.unit), title=page.name)
    figure.colorbar(image, ax=axes, label=_labelled(page.name, page.unit))


def _finite(numbers: Floats) -> Floats:
    """Return numbers as doubles, with NaN for infinities: nothing is drawn there."""
    doubles = np.asarray(numbers, dtype=np.float64)
    return np.where(np.isfinite(doubles), doubles, np.nan)


def _edges(centres: Floats) -> Floats:
    """Return the edges of bins from their centres, half way between these."""
    if centres.size < 2:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = centres[:-1] / 2 + centres[1:] / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _labelled(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name

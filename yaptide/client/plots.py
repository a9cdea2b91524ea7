"""Pictures of results, for people who would rather look than read."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yaptide.client.results import Results
from yaptide.domain.errors import NotFound
from yaptide.domain.estimators import Page

_LINE = "#0b5cad"


def overview(results: Results, title: str) -> Figure:
    """Depth-dose curve with its standard-error band (and R80), and a slice through the dose, side by side.

    Raises NotFound if the results hold neither.
    """
    curve, plane = results.depth_curve(), _slice(results)
    if curve is None and plane is None:
        raise NotFound("There is no depth-dose curve and no slice in these results to draw")
    figure = Figure(figsize=(13, 5), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(4, 2)
    if curve is not None:
        upper = figure.add_subplot(grid[:3, 0])
        _draw_curve(upper, curve, results.bragg_peak())
        _draw_error(figure.add_subplot(grid[3, 0], sharex=upper), curve)
    if plane is not None:
        _draw_slice(figure, figure.add_subplot(grid[:, 1]), plane)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture; the ending of the name chooses the format (png, pdf, svg)."""
    figure.savefig(path, dpi=130)


def _slice(results: Results) -> Page | None:
    planes = [page for estimator in results.estimators for page in estimator.pages if page.dimension == 2]
    return planes[0] if planes else None


def _draw_curve(axes: Axes, page: Page, peak: tuple[float, float] | None) -> None:
    depth = page.axes[0]
    axes.plot(depth.values, page.values, color=_LINE, label=page.name)
    if page.errors is not None:
        band = (page.values - page.errors, page.values + page.errors)
        axes.fill_between(depth.values, *band, color=_LINE, alpha=0.35, linewidth=0, label="± standard error")
    if peak is not None:
        axes.axvline(peak[1], color="#b5402c", linestyle="--", label=f"R80 = {peak[1]:.1f} {depth.unit}")
    axes.set(ylabel=f"{page.name} [{page.unit}]", ylim=(0, None))
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")


def _draw_error(axes: Axes, page: Page) -> None:
    """The standard error again, on a scale where it can be seen, up to where nearly no dose is left."""
    depth = page.axes[0]
    if page.errors is not None:
        reached = page.values > 0.01 * page.values.max()
        axes.plot(depth.values[reached], 100 * page.errors[reached] / page.values[reached], color=_LINE, linewidth=1)
    axes.set(xlabel=f"{depth.name} [{depth.unit}]", ylabel="error [%]", ylim=(0, None))
    axes.grid(alpha=0.3)


def _draw_slice(figure: Figure, axes: Axes, page: Page) -> None:
    across, along = page.axes
    image = axes.pcolormesh(along.values, across.values, page.grid(), cmap="inferno", shading="nearest")
    axes.set(xlabel=f"{along.name} [{along.unit}]", ylabel=f"{across.name} [{across.unit}]", title=page.name)
    figure.colorbar(image, ax=axes, label=page.unit)

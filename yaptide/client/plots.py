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
    pages = [page for page in (results.depth_curve(), _slice(results)) if page is not None]
    if not pages:
        raise NotFound("There is no depth-dose curve and no slice in these results to draw")
    figure = Figure(figsize=(6.5 * len(pages), 4.5), layout="constrained")
    figure.suptitle(title)
    for axes, page in zip(figure.subplots(1, len(pages), squeeze=False)[0], pages, strict=True):
        if page.dimension == 1:
            _draw_curve(axes, page, results.bragg_peak())
        else:
            _draw_slice(figure, axes, page)
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
    axes.set(xlabel=f"{depth.name} [{depth.unit}]", ylabel=f"{page.name} [{page.unit}]", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_slice(figure: Figure, axes: Axes, page: Page) -> None:
    across, along = page.axes
    image = axes.pcolormesh(along.values, across.values, page.grid(), cmap="inferno", shading="nearest")
    axes.set(xlabel=f"{along.name} [{along.unit}]", ylabel=f"{across.name} [{across.unit}]", title=page.name)
    figure.colorbar(image, ax=axes, label=page.unit)

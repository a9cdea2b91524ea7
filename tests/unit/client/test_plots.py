"""Pictures are drawn of whatever results there are, and say units; warnings of matplotlib are errors here."""

import numpy as np
import pytest

from yaptide.domain.errors import NotFound
from yaptide.domain.estimators import Axis, Estimator, Page
from yaptide_client import Results, plots


def curve(doses=(1.0, 5.0, 4.0, 0.0), unit="cm", errors=None, name="Dose", **metadata):
    axis = Axis("Position (Z)", unit, np.arange(len(doses)) + 0.5)
    errors = None if errors is None else np.array(errors)
    return Page(0, name, "MeV/g", (axis,), np.array(doses), errors, metadata=metadata)


def plane(values, unit="MeV/g", axes=("mm", "cm")):
    grid = np.array(values)
    sides = zip("yz", axes, grid.shape, strict=True)
    axes = tuple(Axis(name, side, np.arange(size) + 0.5) for name, side, size in sides)
    return Page(1, "Slice", unit, axes, grid.ravel(order="F"))


def drawn(path, *pages, title="Water"):
    figure = plots.draw_overview(Results((Estimator("dose", "dose", pages),)), title)
    plots.save_figure(figure, path / "a.png")
    assert (path / "a.png").read_bytes().startswith(b"\x89PNG")
    return figure


def texts(figure):
    items = []
    for axes in figure.axes:
        items += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title()]
        items += [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    return items


def test_r80_is_drawn_where_it_is_and_told_in_mm(tmp_path):
    figure = drawn(tmp_path, curve(errors=[0.1] * 4))
    assert {"R80 = 25 mm", "Dose [MeV/g]", "Position (Z) [cm]"} <= set(texts(figure))
    mark = next(line for line in figure.axes[0].lines if line.get_label().startswith("R80"))
    assert mark.get_xdata() == [2.5, 2.5]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (curve(no_range="3 fields: a range is defined for one beam"), "3 fields: a range is defined for one beam"),
        (curve(unit="?"), "unknown unit of length '?'"),
        (curve([0.0, 0.0]), "The depth-dose curve has no peak"),
        (curve([np.nan, np.nan], errors=[np.nan, np.nan]), "The depth-dose curve has no peak"),
        (curve([np.nan, 5.0, 0.0], errors=[np.nan, np.nan, 0.5]), "The depth-dose curve has missing values"),
    ],
)
def test_a_curve_without_a_range_says_why(tmp_path, page, reason):
    result = texts(drawn(tmp_path, page))
    assert any(text.startswith(f"no range: {reason}") for text in result)
    assert not any("R80" in text for text in result)


@pytest.mark.parametrize(
    "page",
    [
        curve([np.nan, 1.0, np.inf, 0.0], errors=[0.1, np.nan, np.inf, 0.0]),
        curve([-1.0, -2.0], errors=[0.1, 0.2]),
        curve(np.array([1, 2**60, 0])),
        curve([1.0]),
        curve(name=r"$\frac$ _^{"),
        plane([[np.nan, 1.0], [np.inf, 2.0]]),
        plane([[np.nan, np.nan]]),
        plane([[0.0]]),
        plane([[1.0, 2.0, 3.0]]),
        plane([[1.0], [2.0]], unit="", axes=("", "$")),
    ],
)
def test_nothing_that_is_missing_or_odd_keeps_a_picture_from_being_drawn(tmp_path, page):
    drawn(tmp_path, page, title=r"$\odd$")


def test_a_slice_says_its_units_whatever_they_are(tmp_path):
    figure = drawn(tmp_path, plane([[1.0, 2.0], [3.0, 4.0]], "keV/um", ("um", "m")))
    assert {"y [um]", "z [m]", "Slice [keV/um]"} <= set(texts(figure))


def test_there_may_be_nothing_to_draw(tmp_path):
    point = Page(0, "Dose", "Gy", (), np.array([1.0]))
    with pytest.raises(NotFound, match="Nothing to plot"):
        drawn(tmp_path, point)

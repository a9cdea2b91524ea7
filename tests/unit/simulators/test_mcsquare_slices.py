"""Pictures of a CT: which HU is where, and where the beam goes, as it was measured (see `geometry`)."""

import numpy as np
import pytest

from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.mcsquare.sample import water_sample


def slice_of(gantry=0.0, ct="", couch=0.0, isocentre="60 100 60"):
    files = water_sample(gantry=gantry)
    files["ct.txt"] += ct
    plan = files["plan.txt"].replace("60 100 60", isocentre)
    files["plan.txt"] = plan.replace("###PatientSupportAngle\n0", f"###PatientSupportAngle\n{couch}")
    return MCsquare().slice_geometry(files)


def hu_at(drawn, across, up):
    left, right, bottom, top = drawn.limits
    rows, columns = drawn.cells.shape
    row, column = int((up - bottom) / (top - bottom) * rows), int((across - left) / (right - left) * columns)
    return drawn.parts[drawn.cells[row, column]]


def test_each_hu_is_where_it_is():
    # x 0..30, y 150..170, z 40..80 of 120 x 200 x 120 mm
    drawn = slice_of(ct="box 0 30 150 170 40 80 -700\n")
    assert drawn.axes == ("y", "x")
    assert drawn.plane == "z = 60 mm, through the isocenter"
    assert drawn.limits == (0, 200, 0, 120)
    assert hu_at(drawn, 160, 15) == "-700 HU"
    for place in ((160, 45), (140, 15), (180, 15), (40, 15)):
        assert hu_at(drawn, *place) == "0 HU"
    elsewhere = slice_of(ct="box 0 30 150 170 40 80 -700\n", isocentre="60 100 30")
    assert set(elsewhere.parts) == {"0 HU"}


@pytest.mark.parametrize(
    ("gantry", "couch", "axes", "begin", "end"),
    [
        (0, 0, ("y", "x"), (200, 60), (0, 60)),
        (180, 0, ("y", "x"), (0, 60), (200, 60)),
        (90, 0, ("x", "y"), (0, 100), (120, 100)),
        (270, 0, ("x", "y"), (120, 100), (0, 100)),
        (90, 90, ("z", "x"), (0, 60), (120, 60)),
    ],
)
def test_the_beam_flies_as_it_was_measured(gantry, couch, axes, begin, end):
    drawn = slice_of(gantry, couch=couch)
    assert drawn.axes == axes
    np.testing.assert_allclose(drawn.beams[0], (begin, end), atol=1e-9)


def test_the_isocentre_is_mirrored_along_x():
    drawn = slice_of(isocentre="40 100 60")
    np.testing.assert_allclose(drawn.beams[0], ((200, 80), (0, 80)))


def test_coordinates_are_those_of_the_results():
    files = water_sample()
    files.pop("ct.txt")
    files["ct.mhd"] = (
        "NDims = 3\nDimSize = 2 2 2\nElementSpacing = 60 100 60\nOffset = -30 -50 -30\nElementType = MET_SHORT\n"
        "ElementDataFile = ct.raw\n"
    )
    files["ct.raw.base64"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    drawn = MCsquare().slice_geometry(files)
    assert drawn.limits == (-100, 100, -60, 60)
    np.testing.assert_allclose(drawn.beams[0], ((100, 0), (-100, 0)))


def test_many_hu_are_drawn_in_steps():
    rows = " ".join(f"1*{hu}" for hu in range(-1000, 2000, 50))
    drawn = slice_of(ct=f"slices 0 59\nrows 0 199 {rows}\n")
    assert len(drawn.parts) == len(drawn.shades) == 9
    assert hu_at(drawn, 100, 1) == "about -1000 HU"
    assert hu_at(drawn, 100, 119) == "about 1500 HU"
    assert list(drawn.shades) == sorted(drawn.shades)

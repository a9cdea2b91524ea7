"""Peak and range of depth-dose curves whose answer is known."""

import numpy as np
import pytest

from yaptide.domain.depth_dose import Range, bragg_peak, is_depth_curve, length_in_mm, read_fall_off, read_range
from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.domain.estimators import Axis, Page


def test_r80_is_interpolated_between_two_depths():
    depths = np.array([0.5, 1.5, 2.5, 3.5, 4.5])
    doses = np.array([3.0, 5.0, 10.0, 6.0, 0.0])
    peak, r80 = bragg_peak(depths, doses)
    assert peak == 2.5
    assert r80 == pytest.approx(3.0)  # 8 is half way from 10 to 6


def test_r80_may_fall_on_a_depth():
    assert bragg_peak(np.array([1.0, 2.0]), np.array([1.0, 0.8])) == (1.0, pytest.approx(2.0))


def test_a_second_rise_behind_the_fall_off_does_not_count():
    _, r80 = bragg_peak(np.arange(6.0), np.array([1.0, 10.0, 0.0, 9.0, 0.0, 0.0]))
    assert r80 == pytest.approx(1.2)


def test_the_scale_of_the_dose_does_not_matter():
    depths, doses = np.arange(50.0), np.exp(-((np.arange(50.0) - 30.3) ** 2) / 20)
    assert bragg_peak(depths, doses * 1e9) == pytest.approx(bragg_peak(depths, doses))


@pytest.mark.parametrize(
    ("depths", "doses"),
    [
        ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]),  # still rising
        ([0.0, 1.0, 2.0], [0.0, 0.0, 0.0]),
        ([0.0, 1.0, 2.0], [-3.0, -2.0, -3.0]),
        ([0.0, 1.0], [1.0, np.nan]),
        ([0.0, 1.0, 2.0], [np.nan, 2.0, 1.0]),
        ([0.0, 1.0, 2.0], [1.0, np.inf, 1.0]),
        ([0.0, 1.0, 2.0, 3.0], [1.0, 2.0, np.nan, 0.0]),
        ([0.0, 1.0], [np.nan, np.nan]),
        ([np.nan, 1.0], [1.0, 0.0]),
        ([-1.7e308, 1.7e308], [1.0, 0.0]),
        ([0.0, 1.0], [1.0]),
        ([1.0, 0.0], [1.0, 0.0]),
        ([], []),
    ],
)
def test_a_curve_without_a_fall_off_is_refused(depths, doses):
    with pytest.raises(InvalidInput):
        bragg_peak(np.array(depths), np.array(doses))


def curve(name="Position (Z)", unit="cm", quantity="Dose", of="MeV/g", doses=(3.0, 5.0, 10.0, 6.0, 0.0), **metadata):
    axis = Axis(name, unit, np.arange(len(doses)) + 0.5)
    return Page(0, quantity, of, (axis,), np.array(doses), metadata=metadata)


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("cm", 10), ("m", 1000), ("um", 1e-3), ("µm", 1e-3), ("[cm]", 10), (" nm ", 1e-6)]
)
def test_a_range_is_in_mm_whatever_the_unit_of_the_axis(unit, mm):
    result = read_range(curve(unit=unit))
    assert (result.depth_mm, result.r80_mm, result.bin_mm) == pytest.approx((2.5 * mm, 3.0 * mm, mm))


@pytest.mark.parametrize("unit", ["", "g/cm2", "MeV", "M", "inch", "cm cm"])
def test_an_unknown_unit_of_depth_is_no_unit(unit):
    assert length_in_mm(unit) is None
    with pytest.raises(NotFound, match="unknown unit of length"):
        read_range(curve(unit=unit))


@pytest.mark.parametrize("name", ["depth", "Depth", "Position (Z)", "Z", "z", "z axis", "Z [cm]"])
def test_an_axis_along_the_beam_makes_a_depth_curve(name):
    assert is_depth_curve(curve(name))


@pytest.mark.parametrize("name", ["Position (X)", "Y", "Radius (R)", "x", "", "Energy", "LET Z", "zenith", "size"])
def test_another_axis_does_not(name):
    assert not is_depth_curve(curve(name))


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [
        *(("q", unit) for unit in ("MeV/g", " MeV/g/prim", "(GeV/g)/primary", "Gy", "mGy", "eV/g", "J/kg", "Sv")),
        *(("Dose, depth curve", unit) for unit in ("", "1", "%")),
    ],
)
def test_dose_is_known_by_its_unit_or_else_by_its_name(quantity, unit):
    assert is_depth_curve(curve(quantity=quantity, of=unit))


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [("Dose averaged LET", "keV/um"), ("q", ""), ("dose", "MeV cm2/g"), ("FLUENCE", "/cm^2"), ("Energy", "MeV")],
)
def test_nothing_else_is_dose(quantity, unit):
    assert not is_depth_curve(curve(quantity=quantity, of=unit))


def test_a_page_may_say_itself_why_it_has_no_range():
    page = curve("y", no_range="3 fields: a range is defined for one beam")
    assert is_depth_curve(page)
    with pytest.raises(NotFound, match=r"^3 fields: a range is defined for one beam$"):
        read_range(page)


def test_a_missing_dose_behind_the_fall_off_does_not_matter():
    assert read_range(curve(doses=(3.0, 10.0, 0.0, np.nan, 0.0))).depth_mm == 15.0


@pytest.mark.parametrize(
    ("width", "printed"),
    [
        (0.01, "157.691 mm"),
        (0.1, "157.69 mm"),
        (0.5, "157.7 mm"),
        (1, "157.7 mm"),
        (2, "157.7 mm"),
        (5, "158 mm"),
        (10, "158 mm"),
        (100, "160 mm"),
        (5e-324, "157.691000000 mm"),
        (1e308, "0 mm"),
    ],
)
def test_no_more_digits_are_printed_than_the_bins_carry(width, printed):
    assert Range(0.0, 157.691, width).format_length(157.691) == printed


def test_a_range_is_printed_with_its_bins():
    assert str(read_range(curve())) == "Bragg peak at 25 mm, R80 = 30 mm (bins of 10 mm)"


def test_the_distal_fall_off_in_mm():
    axis = Axis("depth", "cm", np.arange(6.0))
    page = Page(0, "Dose", "Gy", (axis,), np.array([4.0, 5.0, 10.0, 6.0, 2.0, 1.5]))
    assert read_fall_off(page, (0.9, 0.8, 0.2, 0.1)) == pytest.approx({0.9: 22.5, 0.8: 25.0, 0.2: 40.0})
    assert read_fall_off(page, (0.8,))[0.8] == read_range(page).r80_mm


def test_a_curve_without_a_range_has_no_fall_off():
    rising = Page(0, "Dose", "Gy", (Axis("depth", "cm", np.arange(3.0)),), np.array([1.0, 2.0, 3.0]))
    assert read_fall_off(rising, (0.9, 0.8)) == {}

"""Peak and range of depth-dose curves whose answer is known."""

import numpy as np
import pytest

from yaptide.domain.depth_dose import bragg_peak
from yaptide.domain.errors import InvalidInput


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
        ([0.0, 1.0], [1.0]),
        ([1.0, 0.0], [1.0, 0.0]),
        ([], []),
    ],
)
def test_a_curve_without_a_fall_off_is_refused(depths, doses):
    with pytest.raises(InvalidInput):
        bragg_peak(np.array(depths), np.array(doses))

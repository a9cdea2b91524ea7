"""Quantities read off a depth-dose curve, shared with the Python client (`yaptide_client.depth_dose`)."""

from yaptide_client.depth_dose import (
    NO_RANGE as NO_RANGE,
    Range as Range,
    bragg_peak as bragg_peak,
    is_depth_curve as is_depth_curve,
    length_in_mm as length_in_mm,
    read_fall_off as read_fall_off,
    read_range as read_range,
)

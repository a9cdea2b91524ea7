"""Planes through a geometry: the longer side has 80 cells, which are as square as possible."""

import pytest

from yaptide.domain.slices import coarse_shape, format_point


@pytest.mark.parametrize(
    ("sides", "cells"),
    [
        ((10.0, 10.0), (80, 80)),
        ((10.0, 5.0), (80, 40)),
        ((2.5, 10.0), (20, 80)),
        ((1000.0, 1.0), (80, 1)),
        ((1.0, 1000.0), (1, 80)),
    ],
)
def test_numbers_of_cells(sides, cells):
    assert coarse_shape(*sides) == cells


def test_points_have_four_digits_and_a_unit():
    assert format_point((1, 2.5, 3.14159), "mm") == "(1, 2.5, 3.142) mm"

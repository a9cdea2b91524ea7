"""Depth curves along any beam: no dose is lost, tasks add up, and the range is where the protons stop."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from yaptide.domain.depth_dose import bragg_peak
from yaptide.simulators.mcsquare import geometry
from yaptide.simulators.mcsquare.layers import Oblique, make_layers
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.plan import ControlPoint, Field

RANGE = 40.0  # mm
SPOT = 4.0  # mm


def field(gantry, couch, isocentre):
    return Field(gantry, couch, isocentre, (ControlPoint(70.0, ((0.0, 0.0, 1.0),)),))


def bragg(depths):
    """A curve like that of protons: it rises to a peak in front of RANGE, and R80 is at RANGE."""
    left = np.maximum(RANGE - depths, 0) + 1e-9
    return np.where((depths > 0) & (depths < RANGE + 1.2), 1 + 3 * np.exp(-left / 4), 0) / (
        1 + np.exp((depths - RANGE) / 0.5)
    )


@st.composite
def cases(draw):
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.5, 4)) for _ in range(3))
    grid = Grid(shape, spacing)
    isocentre = tuple(draw(st.floats(0, 1)) * grid.axis_length(axis) for axis in range(3))
    beam = field(draw(st.floats(-360, 360)), draw(st.floats(-360, 360)), isocentre)
    return grid, geometry.central_ray(beam, grid), draw(st.booleans()), draw(st.integers(0, 2**32 - 1))


@given(cases())
def test_every_voxel_counts_once_and_tasks_add_up(case):
    grid, ray, block, seed = case
    one, other = np.random.default_rng(seed).random((2, *grid.shape[::-1]), dtype=np.float32)
    across = make_layers(grid, ray, block=block)
    assert across.sum_layers(one).sum() == pytest.approx(one.sum())
    assert across.sum_layers(one, other).sum() == pytest.approx((one * other).sum())
    assert across.sum_layers(one + other) == pytest.approx(
        across.sum_layers(one) + across.sum_layers(other), rel=1e-5, abs=1e-5
    )
    assert np.all(across.sum_layers(one) >= 0)
    assert across.depth.values.shape == across.sum_layers(one).shape


@given(st.floats(-360, 360), st.floats(-360, 360), st.floats(-500, 500))
def test_an_isocentre_outside_the_grid_has_the_ray_of_one_inside(gantry, couch, shift):
    grid = Grid((20, 30, 40), (2.0, 1.5, 1.0))
    inside = field(gantry, couch, (15.0, 20.0, 25.0))
    x, y, z = geometry.beam_direction(inside)
    shifted = field(gantry, couch, (15.0 - shift * x, 20.0 + shift * y, 25.0 + shift * z))  # x is mirrored in plans
    ray, other = geometry.central_ray(inside, grid), geometry.central_ray(shifted, grid)
    assert other.entry == pytest.approx(ray.entry, abs=1e-6)
    assert other.length == pytest.approx(ray.length, abs=1e-6)
    assert not geometry.misses_grid(shifted, grid, 1000.0)


def test_beams_that_miss_the_grid():
    grid = Grid((20, 30, 40), (2.0, 1.5, 1.0))
    assert geometry.misses_grid(field(0, 0, (-1.0, 20.0, 20.0)), grid, 400.0)
    assert geometry.misses_grid(field(45, 0, (-50.0, 20.0, 20.0)), grid, 400.0)
    assert geometry.misses_grid(field(0, 0, (20.0, -500.0, 20.0)), grid, 400.0)  # the nozzle is beyond the grid
    assert not geometry.misses_grid(field(0, 0, (20.0, -300.0, 20.0)), grid, 400.0)


@given(cases())
def test_the_ray_goes_through_the_grid_and_its_slice(case):
    grid, ray, block, _ = case
    size = np.array([grid.axis_length(axis) for axis in range(3)])
    entry, direction = np.array(ray.entry), np.array(ray.direction)
    assert np.all(entry >= 0)
    assert np.all(entry <= size)
    assert np.any(np.isclose(entry, 0) | np.isclose(entry, size))  # on a face
    assert np.linalg.norm(direction) == pytest.approx(1)
    leaving = entry + ray.length * direction
    assert np.all(leaving > -1e-6)
    assert np.all(leaving < size + 1e-6)
    across = make_layers(grid, ray, block=block)
    assert np.dot(across.slice_normal, direction) == pytest.approx(0, abs=1e-9)
    assert np.dot(across.slice_normal, np.eye(3)[ray.normal]) != 0
    sides, depths = (axis.values for axis in across.slice_axes)
    plane = across.cut_slice(np.ones(grid.shape[::-1], np.float32))
    assert plane.shape == (depths.size, sides.size)
    if ray.is_oblique:
        assert 0 in sides
        inside = (depths > 1e-6) & (depths < ray.length - 1e-6)
        assert np.all(plane[inside, np.searchsorted(sides, 0)] == 1)


ANGLES = [(90, 45), (20, 0), (45, 0), (30, 60), (110, 60), (70, 20), (135, 200), (54.7, 135)]


@pytest.mark.parametrize(("gantry", "couch"), ANGLES)
@pytest.mark.parametrize("block", [True, False])
def test_protons_stop_at_their_range_at_any_angle(gantry, couch, block):
    """In a block their way counts from its surface on; in a CT with air about it, from the plane of the entry on."""
    grid = Grid((62, 70, 64), (1.6, 1.4, 1.5))
    ray = geometry.central_ray(field(gantry, couch, tuple(grid.axis_length(axis) / 2 for axis in range(3))), grid)
    x, y, z = np.meshgrid(*(grid.voxel_centres(axis) for axis in range(3)), indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    direction = np.array(ray.direction)
    along = (points - ray.entry) @ direction
    beside = np.linalg.norm(points - ray.entry - along[..., None] * direction, axis=-1)
    faces = np.where(direction > 0, 0.0, [grid.axis_length(axis) for axis in range(3)])
    with np.errstate(divide="ignore", invalid="ignore"):
        way = np.where(direction != 0, (points - faces) / direction, np.inf).min(axis=-1)
    dose = bragg(way if block else along) * np.exp(-((beside / SPOT) ** 2) / 2)
    across = Oblique(grid, ray, block=block)
    sums = across.sum_layers(dose.transpose(2, 1, 0).astype(np.float32).copy())
    _, result = bragg_peak(across.depth.values, sums)
    exact = np.arange(0, 60, 0.01)
    assert result == pytest.approx(bragg_peak(exact, bragg(exact))[1], abs=across.thickness)


@pytest.mark.parametrize("block", [True, False])
def test_a_beam_beside_an_axis_gives_nearly_what_one_along_it_gives(block):
    grid = Grid((20, 60, 20), (2.0, 1.0, 2.0))
    dose = np.tile(bragg(grid.voxel_centres(1)[::-1]).astype(np.float32)[:, None], (20, 1, 20))
    middle = (20.0, 30.0, 20.0)
    straight, oblique = (
        make_layers(grid, geometry.central_ray(field(gantry, 0, middle), grid), block=block) for gantry in (0, 0.01)
    )
    curves = [one.sum_layers(dose) / one.voxels for one in (straight, oblique)]
    assert curves[1].sum() / 2 == pytest.approx(curves[0].sum(), rel=1e-3)  # the layers are half as thick
    assert np.interp(straight.depth.values, oblique.depth.values, curves[1]) == pytest.approx(curves[0], abs=0.2)
    ranges = [bragg_peak(one.depth.values, curve)[1] for one, curve in zip((straight, oblique), curves, strict=True)]
    assert ranges[1] == pytest.approx(ranges[0], abs=1.0)


@pytest.mark.parametrize("shape", [(200_000, 1, 1), (1, 1, 200_000), (450, 450, 1)])
def test_a_strange_grid_has_no_slice_that_is_larger_than_the_largest_grid(shape):
    grid = Grid(shape, (1.0, 1.0, 1.0))
    middle = tuple(grid.axis_length(axis) / 2 for axis in range(3))
    across = Oblique(grid, geometry.central_ray(field(50, 50, middle), grid), block=True)
    assert math.prod(axis.values.size for axis in across.slice_axes) < 5_000_000
    assert across.sum_layers(np.ones(shape[::-1], np.float32)).sum() == pytest.approx(math.prod(shape))

"""Pictures of projects: which zone is where, and where the beam goes."""

import numpy as np
import pytest

from tests.support import projects
from yaptide.editor.reading import read_project
from yaptide.editor.slices import slice_project


def project(direction=(0, 0, 1), position=(0, 0, -2), zones=(), figures=()):
    document = projects.water_phantom()
    document["beam"] |= {"position": list(position), "direction": list(direction)}
    document["figureManager"]["figures"] = list(figures)
    document["zoneManager"]["zones"] = list(zones)
    document["zoneManager"]["worldZone"] = projects.world((40, 40, 40), projects.AIR)
    return read_project(document)


FIGURES = (projects.box("a", (2, 4, 10), (3, 0, 5)), projects.ball("b", 1, (-3, 0, 5)))
ZONES = (projects.zone("Slab", projects.WATER, "a"), projects.zone("Ball", projects.LEAD, "b"))


def part_at(drawn, across, up):
    """The label of the part at a place."""
    left, right, bottom, top = drawn.limits
    rows, columns = drawn.cells.shape
    column, row = int((across - left) / (right - left) * columns), int((up - bottom) / (top - bottom) * rows)
    number = drawn.cells[row, column]
    return None if number < 0 else drawn.parts[number].partition(":")[0]


def test_zones_are_where_they_are():
    drawn = slice_project(project(zones=ZONES, figures=FIGURES))
    assert drawn.axes == ("z", "x")
    assert drawn.plane == "y = 0 cm, through the start of the beam"
    for place, label in {(5, 3): "Slab", (1, 3.9): "Slab", (5, -3): "Ball", (5, 0): "World", (1, -3): "World"}.items():
        assert part_at(drawn, *place) == label


@pytest.mark.parametrize(
    ("direction", "axes"),
    [((0, 0, -1), ("z", "x")), ((1, 0, 0), ("x", "y")), ((0, 1, 0), ("y", "x")), ((0.6, 0, 0.8), ("z", "x"))],
)
def test_the_beam_begins_at_its_start_and_goes_its_way(direction, axes):
    position = (0.5, 0.25, 2)
    drawn = slice_project(project(direction, position, ZONES, FIGURES))
    assert drawn.axes == axes
    ((begin, end),) = drawn.beams
    indices = ["xyz".index(axis) for axis in axes]
    assert begin == tuple(position[axis] for axis in indices)
    way = np.subtract(end, begin)
    np.testing.assert_allclose(way / np.linalg.norm(way), [direction[axis] for axis in indices], atol=1e-12)
    left, right, bottom, top = drawn.limits
    assert any(np.isclose(end[0], (left, right))) or any(np.isclose(end[1], (bottom, top)))


def test_a_black_hole_is_not_drawn():
    hole = projects.zone("Hole", projects.BLACK_HOLE, "c")
    drawn = slice_project(project(zones=(hole, ZONES[0]), figures=(*FIGURES, projects.ball("c", 0.5, (3, 0, 5)))))
    assert part_at(drawn, 2, 3) == "Slab"
    assert part_at(drawn, 5, 3) is None


def test_without_zones_the_world_is_drawn():
    drawn = slice_project(project())
    np.testing.assert_allclose(drawn.limits, (-20, 20, -20, 20))
    assert set(drawn.cells.ravel().tolist()) == {0}
    assert drawn.parts == ("World: AIR, DRY (NEAR SEA LEVEL)",)

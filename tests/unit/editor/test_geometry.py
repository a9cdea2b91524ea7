"""Which material is where."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.support import projects
from yaptide.editor import geometry
from yaptide.editor.geometry import Geometry
from yaptide.editor.project import Figure, Material, Mode, Solid, Zone
from yaptide.editor.reading import read_project

_SMALL = st.floats(-5, 5)
_SIZE = st.floats(0.1, 5)
_ANGLES = st.tuples(*[st.floats(-360, 360)] * 3)
_VECTORS = st.tuples(_SMALL, _SMALL, _SMALL)
WATER = Material("water", 276, 1.0)


@st.composite
def figures(draw):
    """Any figure."""
    solid, axes = draw(st.sampled_from(Solid)), geometry.rotation_matrix(draw(_ANGLES))
    radius = draw(_SIZE)
    size = {
        Solid.BOX: draw(st.tuples(_SIZE, _SIZE, _SIZE)),
        Solid.CYLINDER: (2 * radius, 2 * radius, draw(_SIZE)),
        Solid.SPHERE: (2 * radius,) * 3,
    }[solid]
    inner = draw(st.floats(0, 0.9)) * radius if solid is Solid.CYLINDER else 0
    return Figure("f", solid, draw(_VECTORS), axes, size, 0 if solid is Solid.BOX else radius, inner)


def points(seed=0, count=2000, reach=8.0):
    """Random points, shape (count, 3)."""
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 3))


@given(_ANGLES, _VECTORS)
def test_rotations_are_orthogonal_and_keep_the_hand(angles, vector):
    matrix = geometry.rotation_matrix(angles)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert np.linalg.norm(matrix @ np.array(vector)) == pytest.approx(np.linalg.norm(vector))


@pytest.mark.parametrize(
    ("angles", "image"),
    [((90, 0, 0), (0, 0, 1)), ((0, 0, 90), (-1, 0, 0)), ((0, 90, 0), (0, 1, 0)), ((90, 0, 90), (-1, 0, 0))],
)
def test_what_is_along_y_is_turned_as_the_editor_draws_it(angles, image):
    assert geometry.rotation_matrix(angles) @ np.array([0, 1, 0]) == pytest.approx(image)


@given(figures(), _ANGLES, _VECTORS)
def test_moving_a_figure_and_the_points_changes_nothing(figure, angles, shift):
    matrix, places = geometry.rotation_matrix(angles), points()
    centre = matrix @ np.array(figure.centre) + np.array(shift)
    moved = Figure("f", figure.solid, tuple(centre), matrix @ figure.axes, figure.size, figure.radius, figure.inner)
    same = geometry.figure_contains(moved, places @ matrix.T + np.array(shift)) == geometry.figure_contains(
        figure, places
    )
    assert same.mean() > 0.999  # all but points on a surface


@given(figures())
def test_a_figure_is_in_its_box(figure):
    low, high = geometry.box_of_figure(figure)
    places = points()
    inside = places[geometry.figure_contains(figure, places)]
    assert (inside >= low - 1e-9).all()
    assert (inside <= high + 1e-9).all()


@given(figures())
@settings(max_examples=30)
def test_volumes(figure):
    low, high = geometry.box_of_figure(figure)
    places = np.random.default_rng(1).uniform(low, high, (20_000, 3))
    part = geometry.figure_contains(figure, places).mean()
    own = {
        Solid.BOX: np.prod(figure.size),
        Solid.CYLINDER: np.pi * (figure.radius**2 - figure.inner**2) * figure.size[2],
        Solid.SPHERE: 4 / 3 * np.pi * figure.radius**3,
    }[figure.solid]
    assert part * np.prod(high - low) == pytest.approx(own, rel=0.05, abs=0.02 * np.prod(high - low))


def made(*terms):
    """A zone of water."""
    return Zone("z", "z", WATER, tuple(tuple(term) for term in terms))


@given(figures(), figures())
def test_laws_of_unions_intersections_and_differences(a, b):
    places = points()
    one, other = geometry.figure_contains(a, places), geometry.figure_contains(b, places)

    def zone(*terms):
        return geometry.zone_contains(made(*terms), places, geometry.box_of_points(places))

    first, second = (Mode.UNION, a), (Mode.UNION, b)
    assert (zone([first, second]) == (one | other)).all()
    assert (zone([first], [second]) == (one | other)).all()
    assert (zone([first, (Mode.INTERSECTION, b)]) == (one & other)).all()
    assert (zone([first, (Mode.SUBTRACTION, b)]) == (one & ~other)).all()
    assert not zone([first, (Mode.SUBTRACTION, a)]).any()
    assert not zone([(Mode.INTERSECTION, a)]).any()
    whole = zone([first, (Mode.SUBTRACTION, b)], [first, (Mode.INTERSECTION, b)])
    assert (whole == one).all()


@given(figures(), figures())
def test_a_zone_is_in_its_box(a, b):
    zone = made([(Mode.UNION, a), (Mode.INTERSECTION, b)], [(Mode.UNION, b), (Mode.SUBTRACTION, a)])
    box, places = geometry.box_of_zone(zone), points()
    inside = places[geometry.zone_contains(zone, places, geometry.box_of_points(places))]
    assert box is not None
    assert (inside >= box[0] - 1e-9).all()
    assert (inside <= box[1] + 1e-9).all()


def test_every_point_has_one_material():
    at = Geometry(read_project(projects.water_phantom())).material_at
    assert at((0, 0, 0)).name == "WATER, LIQUID"  # a surface belongs to the figure
    assert at((0, 4.9, 10)).name == "WATER, LIQUID"
    assert at((0, 5.1, 10)).name == "VACUUM"
    assert at((0, 0, -0.2)).name == "VACUUM"
    assert at((5.6, 0, 10)).name == "BLACK HOLE"  # the world
    assert at((50, 0, 10)).name == "BLACK HOLE"  # outside of it


def test_of_zones_that_overlap_the_first_counts_and_they_may_reach_out_of_the_world():
    document = projects.project(
        projects.box("big", (4, 4, 4)),
        projects.ball("small", 1),
        zones=[projects.zone("Core", projects.LEAD, "small"), projects.zone("Rest", projects.WATER, "big")],
        around=projects.world((3, 8, 8), projects.AIR),
        detectors=[],
        outputs=[],
    )
    result = Geometry(read_project(document))
    places = np.array([[0, 0, 0], [0, 1.5, 0], [0, 3, 0], [1.6, 0, 0], [2.1, 0, 0]])
    assert result.zones_at(places).tolist() == [0, 1, 2, 1, 3]
    assert [material.name for material in result.materials] == [
        *("LEAD", "WATER, LIQUID", "AIR, DRY (NEAR SEA LEVEL)"),
        "BLACK HOLE",
    ]


def test_a_world_without_volume_has_nothing_around_the_zones():
    """The editor's default, until the user sets it."""
    document = projects.project(
        projects.box("box", (4, 4, 4)),
        zones=[projects.zone("Box", projects.WATER, "box")],
        around=projects.world((0, 0, 0), projects.WATER),
        detectors=[],
        outputs=[],
    )
    at = Geometry(read_project(document)).material_at
    assert [at(point).name for point in ((0, 0, 0), (1.9, 0, 0), (2.1, 0, 0))] == ["WATER, LIQUID"] * 2 + ["BLACK HOLE"]


@given(st.lists(figures(), min_size=2, max_size=4), st.integers(0, 3))
@settings(max_examples=30)
def test_points_have_the_same_zone_alone_and_among_others(solids, seed):
    """What is left out since it is elsewhere makes no difference."""
    modes = (Mode.UNION, Mode.SUBTRACTION, Mode.INTERSECTION, Mode.UNION)
    zones = (made(list(zip(modes, solids, strict=False))), made([(Mode.UNION, solids[-1])]))
    project = read_project(projects.water_phantom())
    project = replace(project, zones=zones, world=replace(project.world, figure=solids[0]))
    result, places = Geometry(project), points(seed, 300)
    together = result.zones_at(places)
    alone = [result.zones_at(places[number : number + 1])[0] for number in range(len(places))]
    assert together.tolist() == alone
    assert result.zones_at(places[:0]).size == 0


def test_a_hole_goes_through():
    document = projects.project(
        projects.tube("pipe", 2, 4, rotation=(0, 90, 0), inner=1),
        zones=[projects.zone("Pipe", projects.PMMA, "pipe")],
        around=projects.world((9, 9, 9), projects.VACUUM),
        detectors=[],
        outputs=[],
    )
    at = Geometry(read_project(document)).material_at
    assert [at(point).name for point in ((1.9, 0, 1.5), (1.9, 0, 0.5), (2.1, 0, 1.5))] == ["PMMA", "VACUUM", "VACUUM"]

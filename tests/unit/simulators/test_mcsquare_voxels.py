"""The voxels, the tables and the beam that MCsquare gets are what the project says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.support import projects
from tests.support.projects import AIR, BLACK_HOLE, BONE, LEAD, PMMA, VACUUM, WATER
from yaptide.editor.geometry import Geometry
from yaptide.editor.project import Beam, BeamShape, Particle, ParticleKind
from yaptide.editor.reading import read_project
from yaptide.simulators.mcsquare import MCsquare, geometry, inputs, materials, scoring
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.source import make_source
from yaptide.simulators.mcsquare.voxels import MOST_VOXELS, Space, make_space

_GRID = [projects.mesh("grid", (8, 8, 10), (4, 8, 50), at=(0, 0, 5))]
_DOSE = [projects.output("dose", "grid")]


def scene(*figures, zones, around, detectors=_GRID, outputs=_DOSE, **beam):
    return projects.project(*figures, zones=zones, around=around, detectors=detectors, outputs=outputs, **beam)


def _steel_like():
    heavy = {"uuid": "own", "name": "WATER, LIQUID", "icru": 276, "density": 1.0}
    return projects.zone("Own", ("own",), "a", customMaterial=heavy, materialPropertiesOverrides={"density": 1.37})


_AROUND = projects.world((12, 12, 14), AIR, at=(0, 0, 5))

SCENES = {
    "turned boxes": scene(
        projects.box("a", (3, 2, 6), at=(1, 0, 5), rotation=(20, 40, 65)),
        projects.box("b", (5, 5, 1), at=(-1, 1, 2), rotation=(90, 10, 0)),
        zones=[projects.zone("A", BONE, "a"), projects.zone("B", PMMA, "b - a")],
        around=_AROUND,
    ),
    "a hollow cylinder across the beam": scene(
        projects.tube("a", 3, 6, at=(0, 0, 5), rotation=(0, 90, 0), inner=2),
        zones=[projects.zone("Pipe", PMMA, "a")],
        around=_AROUND,
        direction=[0, 1, 0],
        position=[0, -5, 5],
    ),
    "a hollow cylinder askew": scene(
        projects.tube("a", 3, 8, at=(1, -1, 5), rotation=(30, 20, 10), inner=2.5),
        zones=[projects.zone("Pipe", LEAD, "a")],
        around=projects.world((12, 12, 14), VACUUM, at=(0, 0, 5)),
    ),
    "unions": scene(
        projects.ball("a", 2, at=(0, 0, 3)),
        projects.ball("b", 2, at=(0, 1, 5)),
        projects.box("c", (1, 9, 1), at=(0, 0, 8)),
        zones=[projects.zone("Snowman", WATER, "a", "b", "c")],
        around=_AROUND,
        sigma={"type": "Flat square", "x": 1, "y": 2},
    ),
    "subtractions": scene(
        projects.box("tank", (8, 8, 10), at=(0, 0, 5)),
        projects.ball("hole", 2, at=(0, 0, 5)),
        projects.tube("bore", 0.6, 12, at=(1, 1, 5)),
        zones=[
            projects.zone("Tank", WATER, "tank - hole - bore"),
            projects.zone("Bubble", AIR, "hole - bore"),
            projects.zone("Wire", LEAD, "bore & tank"),
        ],
        around=projects.world((9, 9, 11), BLACK_HOLE, at=(0, 0, 5)),
        sigma={"type": "Flat circular", "x": 0, "y": 2},
        position=[0, 0, 0.1],
    ),
    "intersections": scene(
        projects.ball("a", 3, at=(0, 0, 4)),
        projects.box("b", (4, 4, 4), at=(1, 1, 5)),
        projects.tube("c", 1, 20, at=(0, 0, 5)),
        zones=[projects.zone("Lens", PMMA, "a & b - c", "c & b - a")],
        around=_AROUND,
    ),
    "an oblique beam from the side": scene(
        projects.box("a", (6, 6, 6), at=(0, 0, 5)),
        zones=[projects.zone("Water", WATER, "a")],
        around=_AROUND,
        position=[-5, 3, 1],
        direction=[2, -1, 1],
        sigma={"type": "Gaussian", "x": 0.2, "y": 0.6},
    ),
    "a material of one's own": scene(projects.box("a", (4, 4, 4), at=(0, 0, 5)), zones=[_steel_like()], around=_AROUND),
    "thin layers": scene(
        *(projects.box(f"l{n}", (6, 6, 0.05), at=(0, 0, 1 + 0.05 * n)) for n in range(4)),
        zones=[projects.zone(f"L{n}", (BONE, AIR, PMMA, LEAD)[n], f"l{n}") for n in range(4)],
        around=_AROUND,
        detectors=[projects.mesh("grid", (8, 8, 10), (1, 1, 10), at=(0, 0, 5))],
    ),
    "zones that overlap, off the axis": scene(
        projects.box("a", (4, 4, 4), at=(2, 1, 5)),
        projects.box("b", (4, 4, 4), at=(3, 2, 6), rotation=(0, 0, 45)),
        zones=[projects.zone("A", WATER, "a"), projects.zone("B", BONE, "b")],
        around=_AROUND,
        detectors=[projects.rings("grid", 2, 6, (4, 30), at=(2, 1, 5)), projects.zone_detector("zone", "B")],
        outputs=[projects.output("rings", "grid"), projects.output("zone", "zone")],
        position=[2, 1, 0],
        direction=[0, 0, 1],
    ),
    "figures that lie in each other": projects.nested(),
}


def met(files, points):
    """Density and label, shape (n, 2), that MCsquare finds in the voxels of `points` (cm) by the input files."""
    result, corner = inputs.parse_inputs(files), scoring.parse_scoring(files[scoring.FILE]).corner
    grid = result.ct.grid
    indices = np.floor((points - np.array(corner)) * 10 / np.array(grid.spacing)).astype(int)
    x, y, z = np.clip(indices, 0, np.array(grid.shape) - 1).T
    hu = result.ct.hu[z, y, x]
    densities, labels = np.array(result.densities.rows), np.array(result.materials.rows)
    label = labels[np.searchsorted(labels[:, 0], hu, side="right") - 1, 1]
    return np.stack([np.interp(hu, *densities.T), label], axis=1), np.array(grid.spacing) / 10


def meant(project, points):
    """The same by the project."""
    known = Geometry(project)
    rows = {
        "black": (materials._DENSE, 1),
        "vacuum": (materials._THIN, 13),
    }
    table = [
        rows["black"] if m.is_black_hole else rows["vacuum"] if m.is_empty else (m.density, materials.LABELS[m.icru])
        for m in known.materials
    ]
    return np.array(table)[known.zones_at(points)]


@pytest.mark.parametrize("name", SCENES)
def test_points_have_the_same_material_in_the_project_and_in_the_voxels(name):
    """Up to the size of a voxel: of 10,000 points each has the material of one of 27 around it within half a voxel."""
    document = SCENES[name]
    project, made = read_project(document), MCsquare().convert(read_project(document))
    corner = scoring.parse_scoring(made.files[scoring.FILE]).corner
    grid = inputs.parse_inputs(made.files).ct.grid
    low, high = np.array(corner), np.array(corner) + [grid.axis_length(axis) / 10 for axis in range(3)]
    points = np.random.default_rng(7).uniform(low, high, (10_000, 3))
    result, voxel = met(made.files, points)
    steps = np.array(np.meshgrid(*[[-0.5, 0, 0.5]] * 3)).reshape(3, -1).T * voxel
    nearby = np.array([meant(project, points + step) for step in steps])
    same = np.isclose(nearby, result, rtol=1e-6).all(axis=2)
    assert same.any(axis=0).mean() > 0.999
    assert same[13].mean() > 0.8  # at the point itself


@pytest.mark.parametrize("name", SCENES)
def test_what_matters_is_in_the_grid_and_the_grid_is_not_too_large(name):
    project = read_project(SCENES[name])
    space = make_space(project, [output.detector for output in project.outputs])
    assert space.grid.voxels <= MOST_VOXELS
    low, high = (
        np.array(space.corner),
        np.array(space.corner) + [space.grid.axis_length(axis) / 10 for axis in range(3)],
    )
    points = np.random.default_rng(1).uniform(low - 2, high + 2, (20_000, 3))
    outside = ((points < low - 1e-6) | (points > high + 1e-6)).any(axis=1)
    known = Geometry(project)
    densities = np.array([0 if m.is_empty else m.density for m in known.materials])[known.zones_at(points[outside])]
    assert densities.max() < 0.01
    assert (np.array(project.beam.position) >= low - 1e-9).all()
    assert (np.array(project.beam.position) <= high + 1e-9).all()


def test_voxels_end_where_layers_do():
    project = read_project(SCENES["thin layers"])
    grid = make_space(project, [output.detector for output in project.outputs])
    edges = grid.corner[2] + np.arange(grid.grid.shape[2] + 1) * grid.voxel[2]
    for plane in (0.975, 1.025, 1.075, 1.125, 1.175):
        assert np.abs(edges - plane).min() < 1e-3


def test_the_voxels_of_a_phantom_are_the_bins_of_its_detectors():
    project = read_project(projects.water_phantom())
    space = make_space(project, [output.detector for output in project.outputs])
    assert space.voxel == pytest.approx((0.25, 0.05, 0.05))
    assert space.corner == pytest.approx((-5, -5, 0))
    assert space.description == "40 x 200 x 400 voxels of 2.5 x 0.5 x 0.5 mm"


def test_bins_that_are_too_many_make_coarser_voxels():
    detector = projects.mesh("grid", (8, 8, 10), (400, 400, 50), at=(0, 0, 5))
    project = read_project({**SCENES["unions"], "detectorManager": {"detectors": [detector]}})
    space = make_space(project, [output.detector for output in project.outputs])
    assert MOST_VOXELS / 3 < space.grid.voxels <= MOST_VOXELS


@given(st.floats(-1, 1), st.floats(-math.pi, math.pi))
def test_gantry_and_couch_are_those_of_any_direction(z, azimuth):
    radius = math.sqrt(1 - z * z)
    along = (radius * math.cos(azimuth), radius * math.sin(azimuth), z)
    gantry, couch = geometry.beam_angles(along)
    field = geometry.Field(gantry, couch, (0, 0, 0), ())
    assert geometry.beam_direction(field) == pytest.approx(along, abs=2e-6)
    x, y = (np.array(axis) for axis in geometry.spot_axes(gantry, couch))
    assert (x @ x, y @ y, x @ y) == pytest.approx((1, 1, 0))
    assert np.cross(x, y) == pytest.approx(along, abs=1e-9) or np.cross(y, x) == pytest.approx(along, abs=1e-9)


def beam(**changes):
    known = {
        "particle": Particle("Proton", ParticleKind.PROTON),
        "energy": 100.0,
        "spread": 1.0,
        "cutoffs": (0, 1000),
        "position": (0.0, 0.0, 0.0),
        "direction": (0.0, 0.0, 1.0),
        "shape": BeamShape.GAUSSIAN,
        "size": (0.3, 0.3),
        "divergence": (0, 0),
        "focus": 0,
        "distances": None,
        "source": None,
        "primaries": 1000,
    }
    return Beam(**{**known, **changes})


_SPACE = Space(Grid((50, 60, 70), (2.0, 2.0, 2.0)), (-5.0, -6.0, -7.0))


@pytest.mark.parametrize("shape", [BeamShape.SQUARE, BeamShape.CIRCLE])
@given(direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda parts: np.linalg.norm(parts) > 0.1))
@settings(max_examples=30)
def test_spots_lie_where_the_beam_starts(shape, direction):
    """Their mean square is that of the shape along the beam's own axes."""
    unit = tuple(np.array(direction) / np.linalg.norm(direction))
    width, height = (2.0, 1.0) if shape is BeamShape.SQUARE else (1.5, 1.5)
    shot = beam(direction=unit, shape=shape, size=(width, height))
    _, plan = make_source(shot, _SPACE)
    (field,) = plan.fields
    x, y, weight = np.array(field.points[0].spots).T
    axes = np.array(geometry.spot_axes(field.gantry, field.couch))
    places = np.stack([x, y], axis=1) @ axes / 10
    along = places @ np.array(shot.axes).T
    part = 3 if shape is BeamShape.SQUARE else 4
    assert np.sqrt(np.average(along**2, axis=0, weights=weight)) == pytest.approx(
        (width / part**0.5, height / part**0.5), rel=0.02
    )
    assert np.abs(places @ np.array(unit)).max() < 1e-3
    assert len(weight) <= 4000


@given(direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda parts: np.linalg.norm(parts) > 0.1))
@settings(max_examples=30)
def test_a_gaussian_keeps_its_sizes_in_any_direction(direction):
    unit = tuple(np.array(direction) / np.linalg.norm(direction))
    shot = beam(direction=unit, size=(1.0, 0.25))
    library, plan = make_source(shot, _SPACE)
    (field,) = plan.fields
    x, y, weight = np.array(field.points[0].spots).T
    spot = np.diag([library.rows[0][5] ** 2, library.rows[0][8] ** 2])  # mm2 along X and Y
    mean = np.average(np.stack([x, y]), axis=1, weights=weight)
    covariance = np.cov(np.stack([x, y]), aweights=weight, ddof=0) + spot if len(x) > 1 else spot
    turn = np.array(geometry.spot_axes(field.gantry, field.couch)) @ np.array(shot.axes).T
    expected = turn @ np.diag([100.0, 6.25]) @ turn.T
    assert mean == pytest.approx([0, 0], abs=1e-3)
    assert covariance == pytest.approx(expected, abs=1.0)


def test_the_isocentre_is_where_the_beam_starts_and_x_is_mirrored():
    _, plan = make_source(beam(position=(1.0, 2.0, -7.0)), _SPACE)
    assert plan.fields[0].isocentre == pytest.approx((100 - 60, 80, 0))

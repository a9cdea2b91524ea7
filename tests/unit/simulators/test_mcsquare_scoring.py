"""Bins of detectors have the mean of the voxels by the part of their volume."""

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Cylinder, Everywhere, Mesh, ZoneDetector
from yaptide.simulators.mcsquare import scoring
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.scoring import Scored, ScoredOutput, Scoring

GRID = Grid((12, 10, 8), (5.0, 4.0, 2.5))  # 6 x 4 x 2 cm
CORNER = (-3.0, -2.0, 0.0)
SHAPE = GRID.shape[::-1]


def scored(detector, *quantities, images=None, hu=None, **more):
    """The pages of one detector."""
    output = ScoredOutput("out", detector, tuple(Scored(each, each, "", 1.0) for each in quantities))
    images = images or {"Dose": np.random.default_rng(1).uniform(0, 9, SHAPE).astype(np.float32)}
    hu = np.zeros(SHAPE, dtype=np.float32) if hu is None else hu
    made = Scoring(CORNER, more.pop("empty", (1,)), (output,), **more)
    return scoring.make_estimators(made, GRID, images, hu)[0].pages


@st.composite
def meshes(draw):
    centre = tuple(draw(st.floats(low, low + size)) for low, size in zip(CORNER, (6, 4, 2), strict=True))
    size = draw(st.tuples(*[st.floats(0.2, 5)] * 3))
    return Mesh("m", centre, size, draw(st.tuples(*[st.integers(1, 7)] * 3)))


@given(meshes())
@settings(max_examples=30)
def test_bins_of_a_mesh_have_the_mean_over_their_volume(mesh):
    """As many random points in each bin have it."""
    dose = np.random.default_rng(2).uniform(1, 2, SHAPE).astype(np.float32)
    (page,) = scored(mesh, "Dose", images={"Dose": dose})
    low = np.array(mesh.centre) - np.array(mesh.size) / 2
    width = np.array(mesh.size) / np.array(mesh.bins)
    rng = np.random.default_rng(3)
    for number in rng.integers(0, np.prod(mesh.bins), 3):
        i, j, k = np.unravel_index(number, mesh.bins, order="F")
        points = low + (np.array([i, j, k]) + rng.uniform(0, 1, (4000, 3))) * width
        index = np.floor((points - np.array(CORNER)) * 10 / np.array(GRID.spacing)).astype(int)
        inside = ((index >= 0) & (index < np.array(GRID.shape))).all(axis=1)
        x, y, z = np.where(inside[:, None], index, 0).T
        expected = np.where(inside, dose[z, y, x], 0).mean()
        assert page.values[number] * 1e6 == pytest.approx(expected, abs=0.06)


@given(meshes())
@settings(max_examples=30)
def test_a_mesh_around_everything_keeps_all_of_the_energy(mesh):
    energy = np.random.default_rng(4).uniform(0, 9, SHAPE).astype(np.float32)
    around = Mesh("m", (0, 0, 1), (8, 6, 4), mesh.bins)
    (page,) = scored(around, "Energy", images={"Dose": energy, "Energy": energy})
    assert page.values.sum() * 1e6 == pytest.approx(energy.sum(dtype=float))


def test_bins_that_are_voxels_have_their_values_and_the_first_axis_varies_fastest():
    dose = np.random.default_rng(5).uniform(0, 9, SHAPE).astype(np.float32)
    (page,) = scored(Mesh("m", (0, 0, 1), (6, 4, 2), (12, 10, 8)), "Dose", images={"Dose": dose})
    assert page.grid() == pytest.approx(dose.transpose() * 1e-6)
    assert [axis.name for axis in page.axes] == ["Position (X)", "Position (Y)", "Position (Z)"]
    assert page.axes[0].values[:2] == pytest.approx([-2.75, -2.25])
    assert {axis.unit for axis in page.axes} == {"cm"}


def test_an_axis_of_one_bin_is_none():
    (page,) = scored(Mesh("m", (0, 0, 1), (1, 4, 2), (1, 10, 8)), "Dose")
    assert [axis.name for axis in page.axes] == ["Position (Y)", "Position (Z)"]
    assert page.values.size == 80
    (page,) = scored(Cylinder("c", (0, 0, 1), 0, 1, 2, (1, 1)), "Dose")
    assert page.dimension == 0
    assert page.values.shape == (1,)


def test_the_same_dose_everywhere_is_the_dose_of_every_ring():
    """Also of those that are thinner than a voxel, and of an outer part that reaches out of the grid, where it is 0."""
    images = {"Dose": np.full(SHAPE, 3e6, dtype=np.float32)}
    (page,) = scored(Cylinder("c", (0, 0, 1), 0.4, 1.9, 2, (15, 4)), "Dose", images=images)
    assert page.values == pytest.approx(np.full(60, 3.0))
    assert [axis.name for axis in page.axes] == ["Radius (R)", "Position (Z)"]
    (wide,) = scored(Cylinder("c", (0, 0, 1), 2.0, 4.0, 2, (1, 1)), "Dose", images=images)
    assert 0 < wide.values[0] < 3


def test_energy_in_a_cylinder_is_the_part_of_it_that_is_inside():
    images = {"Dose": np.ones(SHAPE, dtype=np.float32), "Energy": np.full(SHAPE, 1e6, dtype=np.float32)}
    (page,) = scored(Cylinder("c", (0, 0, 1), 0, 1.5, 2, (3, 2)), "Energy", images=images)
    voxel = 0.5 * 0.4 * 0.25
    assert page.values.sum() == pytest.approx(np.pi * 1.5**2 * 2 / voxel)
    assert page.values[:3] == pytest.approx(np.pi * 0.25 * np.array([1, 3, 5]) / voxel)
    assert page.unit == "MeV"


def test_let_is_averaged_over_dose_and_weighs_by_it_when_tasks_are_merged():
    dose, let = np.zeros(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=np.float32)
    dose[0, 0, :2], let[0, 0, :2] = (3, 1), (10, 2)
    (page,) = scored(Mesh("m", (0, 0, 1), (6, 4, 2), (1, 1, 2)), "dLET", images={"Dose": dose, "LET": let})
    assert page.values == pytest.approx([10 * (3 * 10 + 2) / 4, 0])  # keV/um are 10 MeV/cm
    assert page.weights == pytest.approx([4 / 480, 0])
    assert page.unit == "MeV/cm"


def test_zones_and_everything():
    hu = np.zeros(SHAPE, dtype=np.float32)
    hu[:, :, 3:5] = 20
    dose = np.where(hu == 20, 4e6, 1e6).astype(np.float32)
    images = {"Dose": dose, "Energy": dose}
    mean, total = scored(ZoneDetector("z", 2), "Dose", "Energy", images=images, hu=hu)
    assert (mean.values[0], total.values[0]) == pytest.approx((4, 4 * 160))
    (whole,) = scored(Everywhere("all"), "Energy", images=images, hu=hu)
    assert whole.values == pytest.approx([4 * 160 + 800])


def test_nothing_is_scored_where_there_is_nothing():
    hu = np.zeros(SHAPE, dtype=np.float32)
    hu[:, :, 6:] = 10
    (page,) = scored(Mesh("m", (0, 0, 1), (6, 4, 2), (2, 1, 1)), "Dose", hu=hu, empty=(1,))
    assert page.values[0] > 0
    assert page.values[1] == 0


def test_rescaling_and_gray():
    mesh = Mesh("m", (0, 0, 1), (6, 4, 2), (1, 1, 1))
    (plain,) = scored(mesh, "Dose")
    (gray,) = scored(mesh, "DoseGy")
    assert gray.values == pytest.approx(plain.values * 1.602e-10, rel=1e-3)
    output = ScoredOutput("out", mesh, (Scored("Dose", "Dose", "", 5.0),))
    images = {"Dose": np.random.default_rng(1).uniform(0, 9, SHAPE).astype(np.float32)}
    made = Scoring(CORNER, (), (output,))
    (estimator,) = scoring.make_estimators(made, GRID, images, np.zeros(SHAPE, dtype=np.float32))
    assert estimator.pages[0].values == pytest.approx(5 * plain.values)


def test_a_curve_along_z_of_a_beam_in_another_direction_has_no_range():
    mesh = Mesh("m", (0, 0, 1), (6, 4, 2), (1, 1, 8))
    assert scored(mesh, "Dose", no_range="askew")[0].metadata["no_range"] == "askew"
    assert "no_range" not in scored(mesh, "Dose")[0].metadata


WHOLE = Scoring(
    CORNER,
    (1, 2),
    (
        ScoredOutput("a # b", Mesh("m", (0, 0, 1), (6, 4, 2), (1, 2, 3)), (Scored("Dose", "é", "", 2.0),)),
        ScoredOutput("c", Cylinder("c", (0, 0, 1), 0.0, 1.0, 2.0, (3, 4)), (Scored("dLET", "L", "Protons", 1.0),)),
        ScoredOutput("z", ZoneDetector("z", 3), (Scored("Energy", "E", "", 1.0),)),
        ScoredOutput("e", Everywhere("e"), (Scored("Energy", "E", "", 1.0),)),
    ),
    "askew",
)


def test_the_file_survives_writing_and_reading():
    assert scoring.parse_scoring(scoring.format_scoring(WHOLE)) == WHOLE
    assert WHOLE.images == ("Dose", "LET", "Energy")


def _places(value, path=()):
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from _places(part, (*path, key))


_DOCUMENT = json.loads(scoring.format_scoring(WHOLE))
_ODD = st.sampled_from([None, True, -1, 0, 1e300, float("nan"), 10**400, "x", [], {}, [[]], [{}], [1, 2]])


@given(st.sampled_from(sorted(_places(_DOCUMENT), key=str)), _ODD)
def test_a_mangled_file_is_read_or_refused_in_one_line(path, odd):
    document = json.loads(json.dumps(_DOCUMENT))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = odd
    said = "scoring.json"
    try:
        assert isinstance(scoring.parse_scoring(json.dumps(document)), Scoring)
    except InvalidInput as refusal:
        said = str(refusal)
    assert said.startswith("scoring.json")
    assert "\n" not in said


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"outputs": []}', "x" * 20_000_000])
def test_what_is_no_such_file_is_refused(text):
    with pytest.raises(InvalidInput, match=r"^scoring.json"):
        scoring.parse_scoring(text)

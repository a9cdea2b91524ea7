"""Input files written from projects: the same material everywhere, and what the checks of the codes say."""

import copy
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.support import projects
from tests.support.examples import EXAMPLES
from tests.support.geometries import HOLE, VACUUM, read_fluka, read_gdml, read_shieldhit, read_topas
from yaptide.domain.errors import InvalidInput
from yaptide.editor.geometry import Geometry, box_of_project, box_of_zone, union_of_boxes
from yaptide.editor.reading import read_project
from yaptide.simulators import get_converter, get_simulator

POINTS = 10_000
_NEAR = 2e-4  # cm: the rounding of columns

READERS = {
    "shieldhit": read_shieldhit,
    "fluka": lambda files, points: read_fluka(files["fl_sim.inp"], points),
    "topas": lambda files, points: read_topas(files["topas.txt"], points),
    "geant4": lambda files, points: read_gdml(files["geometry.gdml"], points),
}


def with_dose(document):
    """A project with one dose only, which every code scores, and a beam that starts in its middle."""
    document = copy.deepcopy(document)
    document["detectorManager"]["detectors"] = [projects.mesh("grid", (1, 1, 1), (1, 1, 10))]
    document["scoringManager"]["outputs"] = [projects.output("grid", "grid")]
    return document


def drawn(*figures, zones, around=None, **beam):
    return projects.project(
        *figures,
        zones=zones,
        around=around or projects.world((40, 40, 40), projects.AIR),
        detectors=[projects.mesh("grid", (1, 1, 1), (1, 1, 10))],
        outputs=[projects.output("grid", "grid")],
        **beam,
    )


COLLIMATOR = drawn(
    projects.box("room", (10, 10, 12)),
    projects.box("tank", (8, 8, 8)),
    projects.tube("block", 4, 1, at=(0, 0, -4.5)),
    projects.tube("bore", 2, 1, at=(0, 0, -4.5)),
    zones=[
        projects.zone("Room", projects.AIR, "room - tank - block"),
        projects.zone("Tank", projects.WATER, "tank"),
        projects.zone("Block", projects.LEAD, "block - bore"),
        projects.zone("Bore", projects.AIR, "bore"),
    ],
    around=projects.world((1, 1, 1), projects.AIR, autoCalculate=True, marginMultiplier=1.1),
    position=[0, 0, -5.5],
)
TURNED = drawn(
    projects.box("tank", (8, 6, 4), at=(1, 2, 3), rotation=(20, -35, 50)),
    projects.tube("rod", 1.5, 3, at=(1.2, 2.1, 3.1), rotation=(20, -35, 50)),
    projects.tube("pipe", 2, 7, at=(-6, -5, 0), rotation=(70, 10, 0), inner=1.25),
    projects.ball("ball", 1, at=(6, -6, 5)),
    zones=[
        projects.zone("Tank", projects.WATER, "tank - rod"),
        projects.zone("Rod", projects.LEAD, "rod"),
        projects.zone("Pipe", projects.PMMA, "pipe"),
        projects.zone("Ball", projects.BONE, "ball"),
    ],
)
OVERLAPPING = drawn(
    projects.box("one", (8, 6, 4), at=(1, 0, 0), rotation=(20, -35, 50)),
    projects.tube("two", 3, 9, rotation=(10, 20, 30), inner=1),
    projects.ball("three", 4, at=(0, 3, 1)),
    zones=[
        projects.zone("First", projects.WATER, "one & two", "three - one"),
        projects.zone("Second", projects.LEAD, "two & three - one", "one"),
        projects.zone("Third", projects.VACUUM, "three", "two"),
        projects.zone("Hole", projects.BLACK_HOLE, "three & one"),
    ],
    position=[-8, 0, 0],
)
HOLE_AROUND = drawn(
    projects.tube("tank", 6, 22, at=(0, 0, 10.5)),
    projects.ball("ball", 2, at=(0, 0, 10)),
    zones=[projects.zone("Ball", projects.LEAD, "ball"), projects.zone("Tank", projects.WATER, "tank")],
    around={
        **projects.tube("World Zone", 6, 22, at=(0, 0, 10.5)),
        "materialUuid": projects.BLACK_HOLE[0],
        "autoCalculate": False,
    },
)
PROJECTS = {
    "black hole that touches": HOLE_AROUND,
    "phantom": with_dose(projects.water_phantom()),
    "nested": with_dose(projects.nested()),
    "older": with_dose(projects.from_older_version()),
    "collimator": COLLIMATOR,
    "turned": TURNED,
    "overlapping": OVERLAPPING,
}
CASES = [(name, code) for name in PROJECTS for code in READERS if (name, code) != ("overlapping", "topas")]


def points_of(project, count=POINTS):
    """Random points, half of them in the box around the zones."""
    zones = [box for zone in project.zones if (box := box_of_zone(zone)) is not None]
    boxes = np.array([box_of_project(project), box_of_project(project) if not zones else union_of_boxes(zones)])
    half = 0.55 * (boxes[:, 1] - boxes[:, 0]) + 0.1
    which = np.arange(count) % 2
    return boxes.mean(axis=1)[which] + np.random.default_rng(1).uniform(-1, 1, (count, 3)) * half[which]


def materials_at(project, points):
    """The materials by the reader of projects."""
    geometry = Geometry(project)
    densities = [
        HOLE if material.is_black_hole else VACUUM if material.is_empty else material.density
        for material in geometry.materials
    ]
    return np.array(densities)[geometry.zones_at(points)]


def differences(project, code, files, points):
    """Points that are not at a surface where files and project differ, or which several zones contain."""
    materials, counts = READERS[code](files, points)
    differ = (materials != materials_at(project, points)) | (counts > 1)
    places = points[differ]
    shifts = _NEAR * np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    around = np.array([materials_at(project, places + shift) for shift in shifts])
    return places[(around == around[0]).all(axis=0)] if len(places) else places


@pytest.mark.parametrize(("name", "code"), CASES)
def test_the_material_is_the_same_at_ten_thousand_points(name, code):
    project = read_project(PROJECTS[name])
    files = get_converter(code).convert(project).files
    assert not len(differences(project, code, files, points_of(project)))


@pytest.mark.parametrize(("name", "code"), [case for case in CASES if case[1] != "geant4"])
def test_the_code_s_own_check_accepts_what_is_written(name, code):
    files = get_converter(code).convert(read_project(PROJECTS[name])).files
    assert get_simulator(code).recognises(files)
    assert get_simulator(code).check(files).primaries == 1600


def test_what_cannot_be_placed_is_named():
    with pytest.raises(InvalidInput, match="zone 'First': TOPAS places whole figures, not"):
        get_converter("topas").convert(read_project(OVERLAPPING))
    crossing = drawn(
        projects.box("one", (4, 4, 4)),
        projects.box("two", (4, 4, 4), at=(1, 1, 1)),
        zones=[projects.zone("One", projects.WATER, "one"), projects.zone("Two", projects.LEAD, "two - one")],
    )
    with pytest.raises(InvalidInput, match=r"zones 'Two' and 'One': TOPAS places whole figures.*overlap in part"):
        get_converter("topas").convert(read_project(crossing))


_LENGTHS = st.floats(0.5, 6).map(lambda length: round(length, 2))
_PLACES = st.tuples(*[st.floats(-4, 4).map(lambda place: round(place, 2))] * 3)
_TURNS = st.one_of(st.just((0, 0, 0)), st.tuples(*[st.integers(-180, 180)] * 3))
_MATERIALS = (projects.WATER, projects.AIR, projects.LEAD, projects.PMMA, projects.BONE, projects.VACUUM)


@st.composite
def random_projects(draw):
    """A project of turned figures that are united, intersected and subtracted."""
    figures = []
    for number in range(draw(st.integers(1, 5))):
        name, at, turn = f"f{number}", draw(_PLACES), draw(_TURNS)
        kind, size = draw(st.sampled_from(["box", "tube", "ball"])), draw(st.tuples(_LENGTHS, _LENGTHS, _LENGTHS))
        if kind == "box":
            figures.append(projects.box(name, size, at, turn))
        elif kind == "tube":
            figures.append(projects.tube(name, size[0], size[1], at, turn, draw(st.sampled_from([0, size[0] / 2]))))
        else:
            figures.append(projects.ball(name, size[0], at))
    names = st.sampled_from([figure["name"] for figure in figures])
    zones = []
    for number in range(draw(st.integers(1, 4))):
        terms = []
        for _ in range(draw(st.integers(1, 2))):
            others = draw(st.lists(st.tuples(st.sampled_from("+-&"), names), max_size=3))
            terms.append(" ".join([draw(names), *(f"{sign} {name}" for sign, name in others)]))
        zones.append(projects.zone(f"Zone {number}", draw(st.sampled_from(_MATERIALS)), *terms))
    around = projects.world((40, 40, 40), draw(st.sampled_from([projects.AIR, projects.WATER])))
    return drawn(*figures, zones=zones, around=around, position=[-19, 0, 0])


@given(random_projects())
@settings(max_examples=15 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_projects_have_the_same_materials(document):
    project = read_project(document)
    points = points_of(project, 2000)
    for code in READERS:
        try:
            files = get_converter(code).convert(project).files
        except InvalidInput:
            assert code == "topas"  # which cannot place figures that overlap
            continue
        assert not len(differences(project, code, files, points)), code


def replaced(name, old, new):
    """A mutant of a file: the first text that matches is replaced."""

    def mutate(files):
        text, count = re.subn(old, new, files[name], count=1, flags=re.MULTILINE)
        assert count == 1
        return {**files, name: text}

    return mutate


GEO, DECK, GDML, JOB = "geo.dat", "fl_sim.inp", "geometry.gdml", "topas.txt"
MUTANTS = {
    "geo: a column is shifted": ("shieldhit", replaced(GEO, r"^(  RCC    \d)", r"\1 ")),
    "geo: END is missing": ("shieldhit", replaced(GEO, r"^  END\n", "")),
    "geo: a sign is turned": ("shieldhit", replaced(GEO, r"-(\d+)$", r"+\1")),
    "geo: a body is left out of a zone": ("shieldhit", replaced(GEO, r"     -\d+$", "")),
    "geo: media are swapped": (
        "shieldhit",
        replaced(GEO, r"^    1    2    3    4(.*)$(?=\n*\Z)", r"    2    1    3    4\1"),
    ),
    "geo: vectors of a box are swapped": ("shieldhit", replaced(GEO, r"^  BOX(.{5})(.{30})(.{30})", r"  BOX\1\3\2")),
    "geo: another density": ("shieldhit", replaced("mat.dat", "RHO 1 ", "RHO 1.1 ")),
    "deck: a sign is turned": ("fluka", replaced(DECK, r" -B2", " +B2")),
    "deck: END is missing": ("fluka", replaced(DECK, r"^END\n", "")),
    "deck: a material is in another column": ("fluka", replaced(DECK, r"^ASSIGNMA    ", "ASSIGNMA ")),
    "deck: materials are swapped": ("fluka", replaced(DECK, r"WATER(  REG)", r" LEAD\1")),
    "deck: another radius": ("fluka", replaced(DECK, r"^(RCC .*) 1\.5$", r"\1 1.2")),
    "gdml: an angle is turned": ("geant4", replaced(GDML, r'rotation" x="', 'rotation" x="-')),
    "gdml: a position is missing": ("geant4", replaced(GDML, r'^ *<position name="Tank_position".*\n', "")),
    "gdml: another unit": ("geant4", replaced(GDML, r'rmax="15"', 'rmax="1.5"')),
    "gdml: another material": ("geant4", replaced(GDML, "G4_WATER", "G4_Pb")),
    "gdml: a part of a solid is turned like a volume": (
        "geant4",
        replaced(GDML, r'(solid\d+_rotation" x=")-?', r"\1-"),
    ),
    "job: an angle is turned": ("topas", replaced(JOB, r"(Tank_Zone/RotX = )", r"\1-")),
    "job: another parent": ("topas", replaced(JOB, r'Rod_Zone/Parent = "Tank_Zone"', 'Rod_Zone/Parent = "World"')),
    "job: full instead of half length": ("topas", replaced(JOB, r"Tank_Zone/HLX = 4\.", "Tank_Zone/HLX = 8.")),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_writer_is_found(mutant):
    code, mutate = MUTANTS[mutant]
    project = read_project(OVERLAPPING if "solid" in mutant else TURNED)
    files = mutate(get_converter(code).convert(project).files)
    try:
        found = len(differences(project, code, files, points_of(project))) > 0
    except (AssertionError, ValueError, KeyError):  # the file cannot be read
        found = True
    assert found

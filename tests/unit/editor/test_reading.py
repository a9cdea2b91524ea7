"""Projects are read as they are meant, whatever their version; anything else is refused with its place."""

import contextlib
import copy
import json

import pytest
from hypothesis import given, strategies as st

from tests.support import projects
from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import BeamShape, Cylinder, Mesh, Modifier, Project, Solid, ZoneDetector
from yaptide.editor.reading import read_project

_KNOWN = {
    "phantom": projects.water_phantom(),
    "nested": projects.nested(),
    "older": projects.from_older_version(),
}


def changed(document, *path_and_value):
    """A copy of a document with the value at a path replaced."""
    *path, key, value = path_and_value
    document = copy.deepcopy(document)
    place = document
    for step in path:
        place = place[step]
    place[key] = value
    return document


def test_a_project_is_read_as_it_is_meant():
    project = read_project(projects.water_phantom(energySpread=1.5, sigma={"type": "Gaussian", "x": 0.2, "y": 0.5}))
    assert project.title == "A test"
    assert project.beam.particle.is_proton
    assert (project.beam.energy, project.beam.spread, project.beam.size) == (100, 1.5, (0.2, 0.5))
    assert [zone.name for zone in project.zones] == ["Water", "Vacuum"]
    assert project.zones[0].material.icru == 276
    assert project.world.material.is_black_hole
    along, plane, slab = (output.detector for output in project.outputs)
    assert along == Cylinder("along", (0, 0, 10), 0, 5, 20, (1, 400))
    assert plane == Mesh("plane", (0, 0, 10), (0.5, 4, 20), (1, 80, 400))
    assert slab.bins == (1, 1)
    quantities = project.outputs[2].quantities
    assert [quantity.keyword for quantity in quantities] == ["Dose", "AvgEnergy", "dLET", "tLET", "Fluence"]
    assert quantities[2].filter.is_protons
    assert not quantities[1].filter.is_protons
    assert quantities[4].modifiers == (Modifier("E", 0, 500, 500, is_logarithmic=False),)


def test_what_an_older_version_leaves_out_has_the_default_of_the_editor():
    project = read_project(projects.from_older_version())
    assert project.beam.particle.name == "Proton"
    assert project.physics.nuclear_reactions
    assert project.outputs[0].quantities[0].filter.is_protons


def test_a_zone_can_change_its_material():
    ring = read_project(projects.from_older_version()).zones[0].material
    assert (ring.icru, ring.density, ring.ionisation) == (82, 11.36, 7.53)


def test_a_world_that_is_computed_fits_the_zones_with_its_margin():
    """As the editor does when a project is opened; the size and the centre in the file may be those of before."""
    world = read_project(projects.from_older_version()).world
    assert world.figure.size == pytest.approx((11, 11, 13.2))
    assert world.figure.centre == (0, 0, 0)


def test_a_cylinder_of_the_world_is_never_hollow():
    document = changed(projects.water_phantom(), "zoneManager", "worldZone", projects.tube("w", 6, 24, inner=6))
    document["zoneManager"]["worldZone"]["materialUuid"] = projects.AIR[0]
    assert read_project(document).world.figure.inner == 0


def test_figures_that_lie_in_each_other_are_zones_of_which_the_deepest_counts():
    project = read_project(projects.nested())
    assert [zone.name for zone in project.zones] == ["core", "phantom"]
    assert project.world.material.name == "VACUUM"
    (_, core), (_, phantom) = project.zones[0].terms[0][0], project.zones[1].terms[0][0]
    assert phantom.centre == (0, 0, -1)
    assert core.centre == pytest.approx((-1, 0, -1))  # its y is along -x of the world
    assert core.solid is Solid.SPHERE
    assert [each.name for each in project.outputs] == ["dose"]


@pytest.mark.parametrize(
    ("sigma", "size"),
    [
        ({"type": "Flat square", "x": 1, "y": 2}, (1, 2)),
        ({"type": "Flat circular", "x": 0, "y": 3}, (3, 3)),
        ({"type": "Gaussian", "x": -1, "y": 2}, (1, 2)),
    ],
)
def test_shapes_of_the_beam(sigma, size):
    beam = read_project(projects.water_phantom(sigma=sigma)).beam
    assert (beam.shape, beam.size) == (BeamShape(sigma["type"]), size)


def test_energies_per_nucleon_are_those_of_the_whole_particle():
    carbon = {"id": 25, "name": "Heavy ion", "a": 12, "z": 6}
    beam = read_project(projects.water_phantom(particle=carbon, energyUnit="MeV/nucl", energySpread=2)).beam
    assert (beam.energy, beam.spread, beam.particle.is_proton) == (1200, 24, False)


def test_a_beam_from_a_file_keeps_the_file_and_the_distances():
    source = {"name": "sobp.dat", "value": "0.1 0 0 0.5 1"}
    beam = read_project(
        projects.water_phantom(sourceType="file", sourceFile=source, sad={"type": "double", "x": 200, "y": 250})
    ).beam
    assert (beam.source, beam.distances) == (("sobp.dat", "0.1 0 0 0.5 1"), (200, 250))


def test_an_output_may_be_of_a_zone_or_of_nothing_yet():
    document = projects.water_phantom()
    outputs = document["scoringManager"]["outputs"]
    outputs[0] = {**outputs[0], "detectorUuid": None, "zoneUuid": "Vacuum", "scoringType": "zone"}
    del outputs[1]["detectorUuid"]
    zone, nothing, slab = (output.detector for output in read_project(document).outputs)
    assert zone == ZoneDetector("Vacuum", 1)
    assert nothing is None
    assert isinstance(slab, Cylinder)


REFUSED = {
    "no beam": (("beam", None), "Project, beam: missing"),
    "no direction": (("beam", "direction", [0, 0, 0]), "beam: direction must not be 0 0 0"),
    "two numbers": (("beam", "position", [0, 0]), "beam: position must be three numbers"),
    "true": (("beam", "energy", True), "beam: energy must be a number"),
    "huge": (("beam", "energy", 10**400), "beam: energy must be a number"),
    "no primaries": (("beam", "numberOfParticles", None), "beam: numberOfParticles is missing"),
    "half a primary": (("beam", "numberOfParticles", 1.5), "must be a whole number"),
    "unknown figure": (
        ("zoneManager", "zones", 0, "unionOperations", 0, 0, "objectUuid", "gone"),
        "Project, zone 'Water': figure 'gone' does not exist",
    ),
    "unknown material": (("zoneManager", "zones", 0, "materialUuid", "gone"), "zone 'Water': its material 'gone' does"),
    "unknown mode": (("zoneManager", "zones", 0, "unionOperations", 0, 0, "mode", "xor"), "zone 'Water': mode must"),
    "unknown solid": (
        ("figureManager", "figures", 0, "geometryData", "geometryType", "Cone"),
        "figure 'phantom': unknown geometryType 'Cone'",
    ),
    "no radius": (("figureManager", "figures", 0, "geometryData", "parameters", {}), "figure 'phantom': radius is"),
    "two of one uuid": (("figureManager", "figures", 0, "uuid", "chamber"), "duplicate uuid 'chamber'"),
    "unknown detector": (("scoringManager", "outputs", 0, "detectorUuid", "gone"), "output 'z_profile': its detector"),
    "unknown filter": (
        ("scoringManager", "outputs", 0, "quantities", 1, "filter", "gone"),
        "quantity 'FluenceProtons': its filter 'gone' does not exist",
    ),
    "two outputs": (("scoringManager", "outputs", 0, "name", "entrance"), "duplicate name 'entrance'"),
    "rotated": (
        ("detectorManager", "detectors", 0, "geometryData", "rotation", [0, 9, 0]),
        "detector 'along': rotated",
    ),
    "bins": (
        ("detectorManager", "detectors", 1, "geometryData", "parameters", "xSegments", 10**6),
        "detector 'plane': it has 32000000000 bins",
    ),
    "heavy": (("materialManager", "materials", 0, "density", 200), "material 'WATER, LIQUID': density must be"),
    "a list": (("zoneManager", "zones", {}), "zones: zones must be a list"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusals_say_where(change, reason):
    with pytest.raises(InvalidInput) as refused:
        read_project(changed(projects.water_phantom(), *change))
    assert reason in str(refused.value)


def test_the_quantities_of_all_outputs_are_limited():
    document = projects.water_phantom()
    document["scoringManager"]["outputs"] = [
        projects.output(f"o{n}", "along", *[projects.quantity("Dose")] * 501) for n in range(2)
    ]
    with pytest.raises(InvalidInput, match="they have 1002 quantities together; the limit is 1000"):
        read_project(document)


def test_an_ionisation_potential_of_zero_is_none():
    document = projects.from_older_version()
    document["zoneManager"]["zones"][0]["materialPropertiesOverrides"] = {"averageIonisationPotential": 0}
    assert read_project(document).zones[0].material.ionisation is None


def test_figures_may_lie_in_each_other_as_deep_as_they_like():
    figure = {**projects.ball("b", 1), "simulationMaterial": {"icru": 276, "density": 1}}
    for _ in range(990):
        figure = {**figure, "children": [figure]}
    document = projects.nested()
    document["figureManager"]["figures"] = [figure]
    assert len(read_project(document).zones) == 990
    document["figureManager"]["figures"] = [figure] * 20
    with pytest.raises(InvalidInput, match="more than 1000 figures"):
        read_project(document)


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([10**400, [], {}, [[]], [{}], [None], {"a": 1}, "uuid", [0, 0, float("nan")]]),
)


def _places(value, path=()):
    """The paths of everything in a document."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from _places(part, (*path, key))


_PLACES = {name: sorted(_places(document), key=str) for name, document in _KNOWN.items()}


@given(st.data())
def test_a_mangled_project_is_a_project_or_refused_in_one_sentence(data):
    name = data.draw(st.sampled_from(sorted(_KNOWN)))
    document = json.loads(json.dumps(_KNOWN[name]))
    for path in data.draw(st.lists(st.sampled_from(_PLACES[name]), min_size=1, max_size=3)):
        with contextlib.suppress(KeyError, IndexError, TypeError):  # the place has gone with an earlier change
            document = changed(document, *path, data.draw(_ODD))
    said = "Project, nothing is wrong"
    try:
        assert isinstance(read_project(document), Project)
    except InvalidInput as refusal:
        said = str(refusal)
    assert said.startswith("Project, ")
    assert "\n" not in said
    assert len(said) < 300

"""Conversion of projects for MCsquare: supported parts, omitted parts, and names of results."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from typer.testing import CliRunner

from tests.support import projects
from yaptide.admin import cli
from yaptide.domain.errors import InvalidInput
from yaptide.editor.reading import read_project
from yaptide.services.conversion import convert_project
from yaptide.simulators import list_converters, list_stand_ins
from yaptide.simulators.base import Converter
from yaptide.simulators.mcsquare import MCsquare, inputs, materials, metaimage, scoring


def converted(document):
    return MCsquare().convert(read_project(document))


def results(document, folder):
    """The estimators of a run that has scored something everywhere."""
    files = converted(document).files
    MCsquare().prepare(files, 1600, 1, folder)
    made = inputs.parse_inputs(files)
    (folder / "Outputs").mkdir()
    for image in made.config.quantities:
        values = np.ones(made.ct.grid.shape[::-1], dtype=np.float32)
        metaimage.write_image(folder / "Outputs", image, made.ct.grid, values)
    (folder / "output.log").write_text("Nbr primaries simulated: 1600 \n")
    return MCsquare().read(folder, 0).estimators


def titles(document, estimators):
    """Title and quantity of each page, as the web editor gives titles: by the place of a page in its estimator."""
    outputs = {output["name"]: output["quantities"] for output in document["scoringManager"]["outputs"]}
    return [
        (
            estimator.name,
            outputs[estimator.name][place]["name"] if estimator.name in outputs else estimator.name,
            page.metadata["quantity"],
            page.name,
        )
        for estimator in estimators
        for place, page in enumerate(sorted(estimator.pages, key=lambda page: page.number))
    ]


def test_titles_in_the_editor_are_those_of_the_quantities(tmp_path):
    document = projects.water_phantom()
    assert titles(document, results(document, tmp_path)) == [
        ("z_profile", "Dose", "Dose", "DOSE"),
        ("yz_profile", "Dose", "Dose", "DOSE"),
        ("entrance", "Dose", "Dose", "DOSE"),
        ("entrance: dLETProtons", "entrance: dLETProtons", "dLETProtons", "DLET"),
    ]


_QUANTITY = st.sampled_from(
    [
        projects.quantity("Dose", "dose"),
        projects.quantity("DoseGy", "gray"),
        projects.quantity("Energy", "energy"),
        projects.quantity("dLET", "let", filter="protons"),
        projects.quantity("Fluence", "fluence"),
        projects.quantity("Dose", "of protons", filter="protons"),
        projects.quantity("Dose", "spectrum", modifiers=[{"diffType": "E"}]),
    ]
)


@given(st.lists(st.lists(_QUANTITY, min_size=1, max_size=6), min_size=1, max_size=3))
@settings(max_examples=25)
def test_no_page_gets_the_title_of_another(tmp_path_factory, asked):
    document = projects.project(
        projects.box("a", (2, 2, 2)),
        zones=[projects.zone("Water", projects.WATER, "a")],
        around=projects.world((3, 3, 3), projects.AIR),
        detectors=[projects.mesh("d", (2, 2, 2), (1, 1, 4))],
        outputs=[projects.output(f"out {number}", "d", *row) for number, row in enumerate(asked)],
    )
    can = {"dose", "gray", "energy", "let"}
    if not any(each["name"] in can for row in asked for each in row):
        with pytest.raises(InvalidInput, match="MCsquare cannot score any output of this project"):
            converted(document)
        return
    estimators = results(document, tmp_path_factory.mktemp("task"))
    for name, title, quantity, _ in titles(document, estimators):
        assert title in (quantity, name)
    pages = [page.metadata["quantity"] for estimator in estimators for page in estimator.pages]
    assert sorted(pages) == sorted(each["name"] for row in asked for each in row if each["name"] in can)
    left_out = converted(document).left_out
    assert sum("Output" in sentence for sentence in left_out) == sum(map(len, asked)) - len(pages)
    assert len({estimator.name for estimator in estimators}) == len(estimators)


def test_an_output_without_a_detector_is_left_out():
    document = asking(projects.quantity("Dose", "q"))
    document["scoringManager"]["outputs"].append({**projects.output("new", "along"), "detectorUuid": None})
    made = converted(document)
    assert made.left_out == ("Output 'new', quantity 'Dose': the output has no detector",)
    assert [output.name for output in scoring.parse_scoring(made.files[scoring.FILE]).outputs] == ["out"]


def test_no_two_estimators_have_one_name():
    document = asking(projects.quantity("Fluence", "f"))
    quantities = document["scoringManager"]["outputs"][0]["quantities"]
    quantities += [projects.quantity("Dose", "q"), projects.quantity("Dose", "q")]
    document["scoringManager"]["outputs"].append(projects.output("out: q", "along"))
    made = scoring.parse_scoring(converted(document).files[scoring.FILE])
    assert [output.name for output in made.outputs] == ["out", "out: q (2)", "out: q (3)", "out: q"]


def test_what_is_left_out_is_said():
    left_out = converted(projects.water_phantom()).left_out
    assert left_out[:3] == (
        "Output 'z_profile', quantity 'FluenceProtons': MCsquare does not score 'Fluence'",
        "Output 'yz_profile', quantity 'FluenceProtons': MCsquare does not score 'Fluence'",
        "Output 'entrance', quantity 'KineticEnergyPrimaries': MCsquare does not score 'AvgEnergy'",
    )
    assert left_out[-1].startswith("Physics: to score the LET of protons alone")


def asking(quantity, **changes):
    """A phantom of which one quantity is asked beside the dose."""
    document = {**projects.water_phantom(), **changes}
    outputs = [projects.output("out", "along", projects.quantity("Dose"), quantity)]
    return {**document, "scoringManager": {**document["scoringManager"], "outputs": outputs}}


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        (projects.quantity("dLET", "q"), "averages LET over all primary and secondary protons, not over all"),
        (projects.quantity("dLET", "q", filter="primaries"), "not over particles of the filter 'Primaries'"),
        (
            projects.quantity("Dose", "q", filter="protons"),
            "scores all particles together, not particles of the filter",
        ),
        (projects.quantity("Dose", "q", modifiers=[{"diffType": "E"}]), "cannot score differentially in 'E'"),
        (projects.quantity("Dose", "q", medium="WATER"), "cannot convert its own medium"),
        (projects.quantity("Dose", "q", primaries=1e6), "cannot convert its own number of primaries"),
    ],
)
def test_quantities_that_mean_something_else_are_left_out(quantity, reason):
    (sentence,) = converted(asking(quantity)).left_out
    assert sentence.startswith("Output 'out', quantity 'q': ")
    assert reason in sentence


def test_a_filter_without_rules_counts_all_and_a_factor_is_kept():
    document = asking(projects.quantity("Dose", "q", filter="all", rescale=2.5))
    document["scoringManager"]["filters"].append({"uuid": "all", "name": "All", "rules": []})
    made = converted(document)
    assert not made.left_out
    assert scoring.parse_scoring(made.files[scoring.FILE]).outputs[0].pages[1].rescale == 2.5


def beam(**changes):
    return projects.water_phantom(**changes)


def with_material(icru, name):
    document = projects.water_phantom()
    document["materialManager"]["materials"][0] |= {"icru": icru, "name": name}
    return document


_MODULATOR = {**projects.water_phantom(), "specialComponentsManager": {"modulator": {"name": "wheel"}}}

REFUSED = {
    "carbon ions": (
        beam(particle={"id": 25, "name": "Carbon", "a": 12, "z": 6}),
        "Unsupported beam particle 'Carbon': MCsquare",
    ),
    "a file": (beam(sourceType="file", sourceFile={"name": "sobp.dat", "value": "1"}), "by the file 'sobp.dat', which"),
    "high": (beam(energy=300), "The beam has 300 MeV: MCsquare supports 1 to 250 MeV"),
    "wide": (beam(energySpread=21), "The energy spread 21 MeV is too wide for a beam of 100 MeV"),
    "a black hole": (beam(position=[0, 0, -1.2]), "The beam starts in a black hole, at 0 0 -1.2 cm"),
    "outside": (beam(position=[0, 0, 22.5]), "The beam starts in a black hole"),
    "kapton": (
        with_material(179, "KAPTON"),
        "Zone 'Water' consists of KAPTON (ICRU 179), which MCsquare does not support",
    ),
    "a modulator": (_MODULATOR, "The project has a beam modulator, which yaptide cannot convert for MCsquare"),
    "nothing": (
        projects.from_older_version(),
        "MCsquare cannot score any output of this project. Output 'slab', quantity 'Fluence': MCsquare does not score",
    ),
}


@pytest.mark.parametrize(("document", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_in_one_sentence(document, reason):
    with pytest.raises(InvalidInput) as refused:
        converted(document)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_zone_that_is_lost_between_the_voxels_is_left_out():
    document = projects.project(
        projects.box("a", (2, 2, 2)),
        projects.ball("b", 0.001, at=(0.01, 0.02, 0.03)),
        zones=[projects.zone("Dust", projects.LEAD, "b"), projects.zone("Water", projects.WATER, "a")],
        around=projects.world((3, 3, 3), projects.AIR),
        detectors=[projects.zone_detector("dust", "Dust"), projects.zone_detector("water", "Water")],
        outputs=[projects.output("dust", "dust"), projects.output("water", "water")],
    )
    made = converted(document)
    assert made.left_out == ("Output 'dust': its zone contains no centre of a voxel",)
    assert [output.name for output in scoring.parse_scoring(made.files[scoring.FILE]).outputs] == ["water"]
    document["scoringManager"]["outputs"].pop()
    with pytest.raises(InvalidInput, match="its zone contains no centre of a voxel"):
        converted(document)


def test_the_physics_of_the_project_is_that_of_the_run():
    document = projects.water_phantom(numberOfParticles=12_345)
    document["physic"] = {"enableNuclearReactions": False, "energyModelStraggling": "no straggling"}
    made = converted(document)
    settings = inputs.parse_inputs(made.files).config
    assert settings.physics["Simulate_Nuclear_Interactions"] == "False"
    assert settings.primaries == 12_480  # a multiple of 160
    assert MCsquare().check(made.files).primaries == 12_480
    assert "Physics: energy straggling cannot be turned off in MCsquare" in made.left_out


def test_it_is_said_when_voxels_are_larger_than_bins():
    document = asking(projects.quantity("Dose", "q"))
    parameters = document["detectorManager"]["detectors"][0]["geometryData"]["parameters"]
    parameters["zSegments"] = 100_000
    (sentence,) = converted(document).left_out
    assert sentence == "Output 'out': its bins are smaller than the voxels, so several bins share a value"


def test_a_wide_beam_is_none_that_mcsquare_loses():
    made = converted(projects.water_phantom(sigma={"type": "Gaussian", "x": 120, "y": 0.1}))
    assert MCsquare().check(made.files).primaries == 1600


def test_files_that_do_not_fit_the_detectors_are_refused():
    files = dict(converted(projects.water_phantom()).files)
    files["config.txt"] = files["config.txt"].replace("LET_MHD_Output True", "LET_MHD_Output False")
    with pytest.raises(InvalidInput, match=r"scoring.json needs the line `LET_MHD_Output True` in config.txt"):
        MCsquare().check(files)


def test_the_materials_are_those_of_the_documentation():
    section = (Path(__file__).parents[3] / "docs/mcsquare.md").read_text().partition("**Materials.**")[2]
    listed = re.findall(r"\((\d+)\)", section.partition("Densities")[0])
    assert [int(number) for number in listed] == sorted(materials.LABELS)


def test_it_is_known_who_can_be_converted_for():
    assert isinstance(MCsquare(), Converter)
    assert list_converters() == ["fluka", "mcsquare", "shieldhit", "topas", "geant4"]
    assert list_stand_ins() == ["mcsquare"]
    with pytest.raises(InvalidInput, match="Unknown simulator 'geant'"):
        convert_project(projects.water_phantom(), "geant")


_PATHS = [
    ("beam", "energy"),
    ("beam", "position", 2),
    ("beam", "sigma", "x"),
    ("figureManager", "figures", 0, "geometryData", "parameters", "radius"),
    ("figureManager", "figures", 1, "geometryData", "parameters", "depth"),
    ("figureManager", "figures", 0, "geometryData", "position", 0),
    ("detectorManager", "detectors", 0, "geometryData", "parameters", "radius"),
    ("detectorManager", "detectors", 1, "geometryData", "parameters", "width"),
    ("detectorManager", "detectors", 0, "geometryData", "parameters", "zSegments"),
    ("detectorManager", "detectors", 1, "geometryData", "position", 1),
    ("zoneManager", "worldZone", "geometryData", "parameters", "depth"),
]
_NUMBERS = st.sampled_from([0, 1, 7, 200, 1e-9, 1e-3, 1e3, 1e6, -1, -1e6])


@given(st.lists(st.tuples(st.sampled_from(_PATHS), _NUMBERS), min_size=1, max_size=3))
@settings(max_examples=12)
def test_any_numbers_can_be_run_or_are_refused(changes):
    document = copy.deepcopy(projects.water_phantom())
    for path, number in changes:
        place = document
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = number
    try:
        made = converted(document)
    except InvalidInput:
        return
    assert MCsquare().check(made.files).primaries == 1600


@pytest.fixture
def yaptide():
    return lambda *words, given=None: CliRunner().invoke(cli.app, ["convert", *map(str, words)], input=given)


def test_the_command_writes_files_that_can_be_run(yaptide, tmp_path):
    file, folder = tmp_path / "project.json", tmp_path / "new" / "beam"
    file.write_text(json.dumps(projects.water_phantom()))
    done = yaptide(file, "--for", "mcsquare", "-o", folder, "--json")
    said = json.loads(done.stdout)
    assert said["resolution"] == "40 x 200 x 400 voxels of 2.5 x 0.5 x 0.5 mm"
    assert len(said["left_out"]) == 6
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert sorted(files) == said["files"]
    assert MCsquare().check(files).primaries == 1600
    assert MCsquare().recognises(files)
    again = yaptide(file, "--for", "mcsquare", "-o", folder)
    assert "exists already: choose another folder" in str(again.exception)
    from_input = yaptide("-", "--for", "mcsquare", "-o", tmp_path / "other", given=file.read_text())
    assert from_input.exit_code == 0
    assert "Left out: Output 'z_profile'" in from_input.stderr


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "is not JSON"), ("[]", "is not a project"), ("{}", "beam: missing")]
)
def test_the_command_refuses_what_is_no_project(yaptide, tmp_path, text, reason):
    (tmp_path / "project.json").write_text(text)
    done = yaptide(tmp_path / "project.json", "--for", "mcsquare", "-o", tmp_path / "beam")
    assert isinstance(done.exception, InvalidInput)
    assert reason in str(done.exception)
    assert not (tmp_path / "beam").exists()


def test_the_image_of_a_project_is_its_zones_where_they_are():
    document = projects.project(
        projects.box("a", (2, 2, 2), at=(1, 0, 3)),
        zones=[projects.zone("Lead", projects.LEAD, "a")],
        around=projects.world((8, 6, 10), projects.WATER),
        detectors=[projects.zone_detector("lead", "Lead")],
        outputs=[projects.output("lead", "lead")],
    )
    image = MCsquare().read_image(converted(document).files)
    assert image.quantity == "zone"
    lead = image.voxels != image.voxels[0, 0, 0]
    assert np.unique(image.voxels).size == 2
    for axis, (low, high) in enumerate(((0, 20), (-10, 10), (20, 40))):
        bins = np.unique(np.argwhere(lead)[:, 2 - axis])
        centres = image.origin[axis] + image.spacing[axis] * bins
        assert centres[0] - image.spacing[axis] / 2 == pytest.approx(low, abs=0.01)
        assert centres[-1] + image.spacing[axis] / 2 == pytest.approx(high, abs=0.01)

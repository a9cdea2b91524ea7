"""Beam, materials and scoring in input files written from projects, and what is refused."""

import math
import re
import time

import pytest

from tests.support import projects
from yaptide.domain.errors import InvalidInput
from yaptide.editor.reading import read_project
from yaptide.simulators import find_output, get_converter, get_simulator
from yaptide.simulators.columns import format_number
from yaptide.simulators.outputs import name_files
from yaptide.simulators.projects import make_names


def project(*quantities, detector=None, figures=(), zones=(), filters=(), **beam):
    """A tank of water in air, with quantities scored in one detector."""
    document = projects.project(
        projects.box("tank", (10, 10, 20), at=(0, 0, 10)),
        *figures,
        zones=[projects.zone("Tank", projects.WATER, "tank"), *zones],
        around=projects.world((60, 60, 80), projects.AIR),
        detectors=[detector or projects.rings("along", 5, 20, (1, 400), at=(0, 0, 10))],
        outputs=[projects.output("depth dose", "along", *quantities)],
        **beam,
    )
    document["scoringManager"]["filters"] += filters
    return document


def written(code, name, document):
    return get_converter(code).convert(read_project(document)).files[name]


def lines(code, name, document, *beginnings):
    return [line for line in written(code, name, document).splitlines() if line.startswith(beginnings)]


def refusal(code, document):
    with pytest.raises(InvalidInput) as caught:
        get_converter(code).convert(read_project(document))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (0.0, 9, "0.0"),
        (-0.0, 9, "0.0"),
        (1000.0, 9, "1000.0"),
        (1 / 3, 9, "0.3333333"),
        (-1234.56789, 9, "-1234.568"),
        (1.25e-7, 9, "1.25E-7"),
        (1e15, 9, "1.E+15"),
        (123456789.0, 9, "1.2346E+8"),
    ],
)
def test_numbers_are_as_exact_as_their_columns(value, width, text):
    assert format_number(value, width) == text


def test_a_number_that_does_not_fit_is_refused():
    with pytest.raises(InvalidInput, match="too long for 3 columns"):
        format_number(-1e300, 3)


def test_names_differ_whatever_the_case_of_their_letters():
    assert make_names(["a b", "A_B", "ä", "", "abcdefghijk", "abcdefghijl"], 8, "name") == [
        *("a_b", "A_B_2", "name", "name_2", "abcdefgh", "abcdef_2"),
    ]


def test_many_equal_names_are_made_soon():
    begin = time.process_time()
    names = make_names(["Dose quantity"] * 20_000, 8, "name")
    assert len(set(names)) == 20_000
    assert names[-1] == "Do_20000"
    assert time.process_time() - begin < 5  # 0.03 s; a minute if each searches from the beginning


def test_later_quantities_of_topas_belong_to_their_output():
    document = project(projects.quantity("Dose"), projects.quantity("Fluence", "profile"), projects.quantity("Energy"))
    outputs = ["depth dose", "depth_dose_profile", "depth_dose-2-mine"]
    for name in outputs[1:]:
        document["scoringManager"]["outputs"].append(projects.output(name, "along"))
    files = re.findall(r'OutputFile = "(.*)"', written("topas", "topas.txt", document))
    assert files[:4] == ["depth_dose", "depth_dose-2-profile", "depth_dose-3-Energy", "depth_dose_profile"]
    assert [find_output("topas", file, outputs) for file in files] == [0, 0, 0, 1, 2]
    assert find_output("topas", "depth_dose-2-mine", outputs) == 2
    assert find_output("topas", "other-2-mine", outputs) is None


def test_results_are_matched_with_outputs_by_the_names_that_were_written():
    outputs = ["depth dose", "depth_dose", "plane"]
    assert name_files(outputs) == ["depth_dose_2", "depth_dose", "plane"]
    for code in ("shieldhit", "topas"):
        of = get_simulator(code).output_of
        assert [of(file, outputs) for file in ("depth_dose", "depth_dose_2", "plane_", "depth dose")] == [1, 0, 2, 0]


def beam(**changes):
    return "\n".join(lines("shieldhit", "beam.dat", project(**changes), ""))


def test_the_beam_of_shieldhit():
    text = beam(
        sigma={"type": "Flat circular", "x": 0, "y": 3},
        direction=[0, -1, 0],
        position=[1, 2, 3],
        sad={"type": "double", "x": 200, "y": 256},
        divergence={"x": 1, "y": 2, "distanceToFocal": 50},
    )
    for line in (
        *("JPART0 2", "TMAX0 100 0.6  ! MeV per nucleon, sigma", "NSTAT 1600 0", "BEAMPOS 1 2 3"),
        *("BEAMDIR 90 270  ! degrees", "BEAMSIGMA 3 -3", "BEAMDIV 1 2 50  ! mrad, mrad, cm", "BEAMSAD 200 256"),
        *("STRAGG 2", "MSCAT 2", "NUCRE 1", "DELTAE 0.03"),
    ):
        assert line in text.splitlines()
    assert "BEAMSIGMA -2 -1" in beam(sigma={"type": "Flat square", "x": 2, "y": 1})
    assert "BEAMSAD" not in beam()


def test_energies_of_ions_are_per_nucleon():
    carbon = {"id": 25, "a": 12, "z": 6, "name": "Carbon"}
    text = beam(particle=carbon, energy=200, energySpread=2, energyUnit="MeV/nucl")
    assert "HIPROJ 12 6" in text
    assert "TMAX0 200 2 " in text
    assert "TMAX0 200 2 " in beam(particle=carbon, energy=2400, energySpread=24, energyUnit="MeV")
    deck = written("fluka", "fl_sim.inp", project(particle=carbon, energy=200, energySpread=0, energyUnit="MeV/nucl"))
    assert "BEAM            -0.2" in deck
    assert "HI-PROPE         6.0      12.0" in deck


def test_a_file_of_spots_goes_along():
    document = project(sourceType="file", sourceFile={"name": "plan.txt", "value": "0.15 0 0 1 1\n"})
    files = get_converter("shieldhit").convert(read_project(document)).files
    assert files["sobp.dat"] == "0.15 0 0 1 1\n"
    assert "USECBEAM sobp.dat" in files["beam.dat"]
    assert get_simulator("shieldhit").check(files).primaries == 1600
    for code in ("fluka", "topas", "geant4"):
        assert refusal(code, document).startswith("Project, beam: the file 'plan.txt' describes the particles")


def test_the_detectors_of_shieldhit():
    energy = [{"diffType": "E", "lowerLimit": 1, "upperLimit": 160, "binsNumber": 64, "isLog": True}]
    document = project(
        projects.quantity("Dose", rescale=2.5),
        projects.quantity("Fluence", filter="primaries", modifiers=energy),
        detector=projects.zone_detector("along", "Tank"),
    )
    assert written("shieldhit", "detect.dat", document) == (
        "Geometry Zone\n    Name along\n    Zone 1\n\n"
        "Filter\n    Name Primaries\n    Z == 1\n    A == 1\n    GEN == 0\n\n"
        "Settings\n    Name Scale\n    Rescale 2.5\n\n"
        "Output\n    Filename depth_dose.bdo\n    Geo along\n"
        "    Quantity Dose Scale\n    Quantity Fluence Primaries\n    Diff1 1 160 64 log\n    Diff1Type E\n"
    )
    assert "Geometry All\n" in written("shieldhit", "detect.dat", project(detector=projects.everywhere("along")))


def test_the_beam_of_fluka_has_full_widths_in_momentum():
    fwhm = 2 * math.sqrt(2 * math.log(2))
    (card,) = lines("fluka", "fl_sim.inp", project(sigma={"type": "Gaussian", "x": 0.3, "y": 0.2}), "BEAM  ")
    fields = [card[at : at + 10] for at in range(10, 70, 10)]
    momentum = math.sqrt(0.1 * (0.1 + 2 * 0.938272))
    assert float(fields[0]) == -0.1
    assert float(fields[1]) == pytest.approx(-fwhm * 0.0006 * (0.1 + 0.938272) / momentum, rel=1e-3)
    assert [float(field) for field in fields[2:]] == pytest.approx([0, -fwhm * 0.3, -fwhm * 0.2, 0], rel=1e-5)
    assert card[70:] == "PROTON"


def test_the_beam_of_fluka_has_its_own_axes():
    document = project(direction=[1, 0, 0], position=[-9, 0, 1], sigma={"type": "Flat square", "x": 1, "y": 2})
    cards = lines("fluka", "fl_sim.inp", document, "BEAM")
    assert cards[0][40:70].split() == ["2.0", "4.0", "0.0"]
    assert cards[1].split() == ["BEAMPOS", "-9.0", "0.0", "1.0", "0.0", "0.0"]
    assert cards[2].split() == ["BEAMAXES", "0.0", "0.0", "-1.0", "1.0", "0.0", "0.0"]


def test_materials_of_fluka():
    lead = {"uuid": "other", "name": "LEAD", "icru": 82, "density": 11.0}
    glass = {"uuid": "glass", "name": "Glass", "icru": 169, "density": 2.3}
    zones = [
        projects.zone("Lead", ("other",), "plate", customMaterial=lead),
        projects.zone("Glass", ("glass",), "pane", customMaterial=glass),
    ]
    figures = [projects.box("plate", (5, 5, 1), at=(0, 0, 25)), projects.box("pane", (5, 5, 1), at=(0, 0, 30))]
    cards = lines(
        "fluka",
        "fl_sim.inp",
        project(figures=figures, zones=zones),
        *("MATERIAL", "COMPOUND", "LOW-MAT", "MAT-PROP", "ASSIGNMA"),
    )
    assert [card.split() for card in cards] == [
        ["MATERIAL", "5.0", "1.0", "BORON"],
        ["MATERIAL", "19.0", "1.0", "POTASSIU"],
        ["MATERIAL", "82.0", "11.0", "MAT00001"],
        ["LOW-MAT", "MAT00001", "LEAD"],
        ["MAT-PROP", "823.0", "MAT00001"],
        ["MATERIAL", "2.3", "MAT00002"],
        ["COMPOUND", "-0.040064", "BORON", "-0.539561", "OXYGEN", "-0.028191", "SODIUMMAT00002"],
        ["COMPOUND", "-0.011644", "ALUMINUM", "-0.377219", "SILICON", "-0.003321", "POTASSIUMAT00002"],
        ["MAT-PROP", "134.0", "MAT00002"],
        ["ASSIGNMA", "WATER", "REG00001"],
        ["ASSIGNMA", "MAT00001", "REG00002"],
        ["ASSIGNMA", "MAT00002", "REG00003"],
        ["ASSIGNMA", "AIR", "REG00004"],
        ["ASSIGNMA", "BLCKHOLE", "REG00005"],
    ]


def rules(name, **values):
    conditions = [{"keyword": key, "operator": "==", "value": value} for key, value in values.items()]
    return {"uuid": name, "name": name, "rules": conditions}


def test_the_scoring_of_fluka():
    document = project(
        projects.quantity("Dose", filter="protons"),
        projects.quantity("Fluence", "Carbon", filter="carbon"),
        projects.quantity("Fluence", "Primaries", filter="primaries"),
        filters=[rules("carbon", Z=6, A=12)],
        detector=projects.rings("along", 5, 20, (2, 400), at=(1, 2, 10), inner=1),
    )
    assert [card.split() for card in lines("fluka", "fl_sim.inp", document, "USRBIN", "AUXSCORE")] == [
        ["USRBIN", "11.0", "DOSE", "-21.0", "5.0", "2.0", "20.0Dose"],
        ["USRBIN", "1.0", "1.0", "0.0", "2.0", "1.0", "400.0&"],
        ["AUXSCORE", "USRBIN", "PROTON", "Dose", "Dose", "1.0"],
        ["USRBIN", "11.0", "ALL-PART", "-21.0", "5.0", "2.0", "20.0Carbon"],
        ["USRBIN", "1.0", "1.0", "0.0", "2.0", "1.0", "400.0&"],
        ["AUXSCORE", "USRBIN", "-1200600.", "Carbon", "Carbon", "1.0"],
        ["USRBIN", "11.0", "BEAMPART", "-21.0", "5.0", "2.0", "20.0Primarie"],
        ["USRBIN", "1.0", "1.0", "0.0", "2.0", "1.0", "400.0&"],
    ]


def test_the_scorers_of_topas():
    energy = [{"diffType": "E", "lowerLimit": 0, "upperLimit": 160, "binsNumber": 64}]
    document = project(
        projects.quantity("Dose"),
        projects.quantity("Fluence", "Primary fluence", filter="primaries", modifiers=energy),
        projects.quantity("tLET", filter="protons"),
    )
    text = written("topas", "topas.txt", document)
    for line in (
        's:Sc/depth_dose/Quantity = "DoseToMedium"',
        's:Sc/depth_dose_2_Primary_fluence/OnlyIncludeParticlesOfGeneration = "Primary"',
        "i:Sc/depth_dose_2_Primary_fluence/OnlyIncludeParticlesOfAtomicMass = 1",
        "i:Sc/depth_dose_2_Primary_fluence/EBins = 64",
        "d:Sc/depth_dose_2_Primary_fluence/EBinMax = 160. MeV",
        's:Sc/depth_dose_3_tLET/WeightBy = "Track"',
        'b:Ge/along_Grid/IsParallel = "True"',
        "i:So/Beam/NumberOfHistoriesInRun = 1600",
    ):
        assert line in text.splitlines()


def test_the_macro_of_geant4():
    document = project(projects.quantity("DoseGy"), projects.quantity("Fluence", filter="protons"), direction=[1, 0, 0])
    text = written("geant4", "run.mac", document)
    for line in (
        *("/gps/particle proton", "/gps/pos/rot1 0 0 -1", "/gps/pos/rot2 0 1 0", "/gps/direction 1 0 0"),
        *("/score/create/cylinderMesh depth_dose", "/score/mesh/nBin 1 400 1", "/score/quantity/doseDeposit DoseGy"),
        *("/score/filter/particle FluenceFilter proton", "/run/beamOn 1600"),
        "/score/dumpQuantityToFile depth_dose Fluence depth_dose_Fluence.txt",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("title", ["* a comment", "#if x", "$START", ""])
def test_a_title_of_fluka_is_neither_comment_nor_directive(title):
    document = project()
    document["project"]["title"] = title
    assert written("fluka", "fl_sim.inp", document).splitlines()[1] == f"Project {title}".rstrip()


@pytest.mark.parametrize(
    ("primaries", "field"), [(1600, "      1600"), (123456789, " 123456789"), (1234567890, "1234567890")]
)
def test_primaries_of_fluka_are_plain_digits(primaries, field):
    deck = written("fluka", "fl_sim.inp", project(numberOfParticles=primaries))
    assert f"START     {field}" in deck.splitlines()
    assert get_simulator("fluka").check({"fl_sim.inp": deck}).primaries == primaries


def test_primaries_with_too_many_digits_for_fluka_are_refused():
    assert refusal("fluka", project(numberOfParticles=12345678901)).startswith("Project, beam: numberOfParticles has")


def plate(depth, z):
    return project(
        figures=[projects.box("plate", (5, 5, depth), at=(0, 0, z))], zones=[projects.zone("P", projects.LEAD, "plate")]
    )


def test_negative_numbers_of_bodies_have_all_columns():
    (card,) = [line for line in lines("shieldhit", "geo.dat", plate(2e-6, -25.432112), "  RPP") if "-25.4" in line]
    assert [card[at : at + 10] for at in (50, 60)] == ["-25.432113", "-25.432111"]


def test_a_thin_body_that_columns_would_change_is_refused():
    assert refusal("shieldhit", plate(3e-6, -35.123456)).startswith(
        "Project, figure 'plate': the columns of geo.dat would change its thickness from 3e-06 to "
    )
    assert written("shieldhit", "geo.dat", plate(3e-6, 0))


def test_a_detector_beyond_the_only_figure_has_a_black_hole_around_it():
    inside, beyond = (projects.mesh("along", (2, 2, size), (1, 1, 10)) for size in (70, 90))
    for code, name, vacuum in (
        ("topas", "topas.txt", 's:Ge/World/Material = "G4_Galactic"'),
        ("geant4", "geometry.gdml", 'ref="G4_Galactic"'),
    ):
        assert vacuum in written(code, name, project(detector=inside))
        assert vacuum not in written(code, name, project(detector=beyond))
        energies = [
            get_converter(code).convert(read_project(project(projects.quantity("Energy"), detector=detector))).left_out
            for detector in (inside, beyond)
        ]
        assert ["reaches into a black hole" in "".join(left_out) for left_out in energies] == [False, True]


def test_other_units_and_totals_are_named():
    document = project(projects.quantity("Dose"), projects.quantity("Fluence"), _LET)
    assert get_converter("topas").convert(read_project(document)).left_out == (
        (
            "Output 'depth dose': TOPAS gives "
            "doses in Gy, not MeV/g; fluences per mm2, not cm2; LET in MeV/mm/(g/cm3), not keV/um"
        ),
        "Scoring: TOPAS gives totals of the run, not means per primary, except for LET",
    )
    assert get_converter("geant4").convert(read_project(project())).left_out == (
        "Output 'depth dose': Geant4 gives doses in Gy, not MeV/g",
        "Scoring: Geant4 gives totals of the run, not means per primary",
    )


_OFF_AXIS = projects.rings("along", 5, 20, (1, 400), at=(1, 0, 10))
_LET = projects.quantity("dLET", "let", filter="protons")
_SECONDARIES = {
    "uuid": "secondaries",
    "name": "Secondaries",
    "rules": [{"keyword": "GEN", "operator": ">=", "value": 1}],
}
_TWICE = rules("twice", Z=1)
_TWICE["rules"] *= 2
_FILTERS = [_SECONDARIES, rules("nothing", Z=0, A=0), rules("charged", Z=3, A=0), _TWICE]
REFUSED = [
    ("shieldhit", {"detector": _OFF_AXIS}, "Project, detector 'along': SHIELD-HIT12A has rings around the z axis only"),
    ("shieldhit", {"particle": {"id": 15, "name": "Muon µ-"}}, "Project, beam: SHIELD-HIT12A has no beam"),
    ("fluka", {"divergence": {"x": 1, "y": 2}}, "Project, beam: FLUKA has one divergence, not 1 mrad along x and 2"),
    ("fluka", {"energyLowCutoff": 99.5}, "Project, beam: FLUKA cannot cut the energies of the beam at 99.5 and 1000"),
    ("fluka", {"detector": projects.everywhere("along")}, "Project, output 'depth dose': yaptide converts detectors"),
    ("topas", {"detector": projects.everywhere("along")}, "Project, detector 'along': yaptide converts detectors"),
    ("geant4", {"detector": projects.everywhere("along")}, "Project, output 'depth dose': Geant4 scores in boxes"),
    ("fluka", {"position": [0, 0, 50]}, "The beam starts in a black hole, at 0 0 50 cm"),
]
REFUSED_QUANTITIES = [
    ("shieldhit", projects.quantity("Kerma"), "SHIELD-HIT12A does not score 'Kerma'"),
    ("fluka", _LET, "yaptide cannot convert 'dLET' for FLUKA"),
    (
        "fluka",
        projects.quantity("Fluence", filter="secondaries"),
        "FLUKA has no filter with the rules of 'Secondaries'",
    ),
    ("fluka", projects.quantity("Dose", rescale=2), "FLUKA does not multiply results by a factor"),
    ("fluka", projects.quantity("Fluence", modifiers=[{"diffType": "E"}]), "yaptide cannot convert spectra in 'E'"),
    ("topas", projects.quantity("dLET"), "TOPAS averages LET over all protons"),
    ("fluka", projects.quantity("Fluence", filter="nothing"), "FLUKA has no filter 'nothing': A must be 1 to 300"),
    ("fluka", projects.quantity("Fluence", filter="charged"), "FLUKA has no filter 'charged': A must be 1 to 300"),
    ("topas", projects.quantity("Fluence", filter="twice"), "TOPAS has no filter with several rules of 'Z'"),
    ("topas", projects.quantity("AvgEnergy"), "yaptide cannot convert 'AvgEnergy' for TOPAS"),
    ("topas", projects.quantity("Fluence", modifiers=[{"diffType": "LET"}]), "TOPAS has spectra in energy"),
    ("geant4", projects.quantity("Fluence", filter="primaries"), "Geant4 has no filter 'Primaries'"),
    ("shieldhit", projects.quantity("Dose", medium="water"), "yaptide cannot convert its own medium"),
]


@pytest.mark.parametrize(("code", "changes", "message"), REFUSED, ids=[f"{code}-{why}" for code, _, why in REFUSED])
def test_what_a_code_cannot_express_is_refused_with_its_place(code, changes, message):
    assert refusal(code, project(**changes)).startswith(message)


@pytest.mark.parametrize(
    ("code", "quantity", "message"), REFUSED_QUANTITIES, ids=[f"{code}-{why}" for code, _, why in REFUSED_QUANTITIES]
)
def test_what_a_code_cannot_score_is_refused_with_its_place(code, quantity, message):
    where = f"Project, output 'depth dose', quantity '{quantity['name']}': "
    assert refusal(code, project(quantity, filters=_FILTERS)).startswith(where + message)


def test_physics_that_is_off_is_refused_where_it_cannot_be():
    document = project()
    document["physic"] = {"enableNuclearReactions": False}
    assert "NUCRE 0" in written("shieldhit", "beam.dat", document)
    for code in ("fluka", "topas", "geant4"):
        assert refusal(code, document).startswith("Project, physic: yaptide cannot turn off nuclear reactions in")


def test_distances_of_the_source_are_named_where_they_are_ignored():
    document = project(sad={"type": "double", "x": 200, "y": 256})
    for code in ("fluka", "topas", "geant4"):
        assert get_converter(code).convert(read_project(document)).left_out[0].startswith("Beam: the source-axis dist")


def test_an_unknown_material_is_refused():
    unknown = {"uuid": "u", "name": "Unobtainium", "icru": 999, "density": 3}
    document = project(
        figures=[projects.ball("ball", 1, at=(0, 0, 25))],
        zones=[projects.zone("Ball", ("u",), "ball", customMaterial=unknown)],
    )
    for code in ("shieldhit", "fluka", "topas", "geant4"):
        assert refusal(code, document).startswith("Project, material 'Unobtainium': the composition of ICRU number 999")


def test_names_of_zones_do_not_meet_those_of_other_components():
    figures = [projects.ball(name, 1, at=(0, 0, 25 + 3 * n)) for n, name in enumerate("abc")]
    names = ["BeamPosition", "along_Grid", "WorldVolume"]
    zones = [projects.zone(name, projects.LEAD, figure) for name, figure in zip(names, "abc", strict=True)]
    job = written("topas", "topas.txt", project(figures=figures, zones=zones))
    settings = [line.partition(" = ")[0].rpartition(":")[2] for line in job.splitlines() if " = " in line]
    assert len(settings) == len(set(settings))
    gdml = written("geant4", "geometry.gdml", project(figures=figures, zones=zones))
    assert gdml.count('volume name="WorldVolume"') == 1

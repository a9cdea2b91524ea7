"""Input on which MCsquare fails, hangs or simulates something else is rejected, with advice."""

import base64
import contextlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked
from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.mcsquare.sample import water_sample

HEADER = "NDims = 3\nDimSize = 4 3 2\nElementSpacing = 30 67 60\nElementType = MET_SHORT\nElementDataFile = ct.raw\n"


def changed(name, old, new):
    files = water_sample()
    assert old in files[name]
    return {**files, name: files[name].replace(old, new, 1)}


def with_image(header=HEADER, values=None, dtype="<i2"):
    raw = np.zeros(24, dtype) if values is None else np.asarray(values, dtype)
    files = {name: text for name, text in water_sample().items() if name != "ct.txt"}
    return {**files, "ct.mhd": header, "ct.raw.base64": base64.encodebytes(raw.tobytes()).decode()}


def without(name):
    return {key: text for key, text in water_sample().items() if key != name}


def refusal(files):
    with pytest.raises(InvalidInput) as caught:
        MCsquare().check(files)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_sample_passes():
    assert MCsquare().check(water_sample()) == Checked(primaries=1600, quantum=160, seed=1, voxels=720_000)


def test_an_image_does_as_well_as_a_description():
    assert MCsquare().check(with_image()).primaries == 1600
    header = HEADER.replace("SHORT", "DOUBLE")
    assert MCsquare().check(with_image(header, dtype="<f8")).primaries == 1600


@pytest.mark.parametrize("name", water_sample())
def test_a_missing_file_is_named(name):
    assert name in refusal(without(name))


@pytest.mark.parametrize("name", water_sample())
def test_an_empty_file_is_refused(name):
    if name == "config.txt":  # all of its keys have defaults, but then nothing is named as it is here
        assert "HU_Density_Conversion.txt" in refusal({**water_sample(), name: ""})
    else:
        assert name in refusal({**water_sample(), name: ""})


@pytest.mark.parametrize("name", water_sample())
def test_garbage_is_refused_in_one_line(name):
    assert name in refusal({**water_sample(), name: "\x00\x01 garbage ===\n1 2 3\n"})


@pytest.mark.parametrize("name", water_sample())
def test_dos_line_ends_are_fine(name):
    files = water_sample()
    files[name] = files[name].replace("\n", "\r\n")
    assert MCsquare().check(files) == MCsquare().check(water_sample())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Num_Primaries 1600", "Num_Primaries 0", "Num_Primaries"),
        ("Num_Primaries 1600", "Num_Primaries -5", "Num_Primaries"),
        ("Num_Primaries 1600", "Num_Primaries 9", "between 10"),
        ("Num_Primaries 1600", "Num_Primaries many", "must be a number"),
        ("Num_Primaries 1600", "Num_Primaries 12.5", "whole number"),
        ("Num_Primaries 1600", "Num_Primaries 1e13", "between 10 and 1e+12"),
        ("Num_Primaries 1600", "Num_Primaries 1e999", "must be a number"),
        ("Num_Primaries 1600", "Num_Primaries 1600 1600", "more than one value"),
        ("Num_Primaries 1600", "Num_Primaries", "no value"),
        ("RNG_Seed 1", "RNG_Seed -1", "RNG_Seed"),
        ("RNG_Seed 1", "RNG_Seed 4294967296", "RNG_Seed"),
        ("LET_MHD_Output True", "LET_MHD_Output maybe", "True or False"),
        ("LET_MHD_Output True", "LET_MHDOutput True", "did you mean LET_MHD_Output"),
        ("LET_MHD_Output True", "LET_MHD_Output=True", "no key"),
        ("LET_MHD_Output True", "Num_Primaries 3200", "is repeated, after line 1"),
        ("LET_MHD_Output True", "Stat_uncertainty 1.0", "must be 0"),
        ("LET_MHD_Output True", "Max_Simulation_time 5", "must be 0"),
        ("LET_MHD_Output True", "Beamlet_Mode True", "not supported"),
        ("LET_MHD_Output True", "Robustness_Mode 1", "not supported"),
        ("LET_MHD_Output True", "4D_Mode yes", "not supported"),
        ("LET_MHD_Output True", "Independent_scoring_grid True", "not supported"),
        ("LET_MHD_Output True", "E_Cut_Pro 0", "E_Cut_Pro must be between 0.001 and 200"),
        ("LET_MHD_Output True", "D_Max thick", "D_Max"),
        ("LET_MHD_Output True", "Dose_to_Water_conversion Always", "Disabled or PostProcessing or OnlineSPR"),
        ("BDL_Plan_File plan.txt", "BDL_Plan_File plans/..", "must be the name of an input file"),
        ("BDL_Plan_File plan.txt", "BDL_Plan_File /etc/passwd", "'passwd' is missing"),
        ("BDL_Plan_File plan.txt", "BDL_Plan_File other.txt", "'other.txt' is missing"),
    ],
)
def test_configuration(old, new, words):
    assert words in refusal(changed("config.txt", old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("##NumberOfFields\n1", "##NumberOfFields\n2", "is 2, but there are 1"),
        ("###NumberOfControlPoints\n1", "###NumberOfControlPoints\n2", "is 2, but there are 1"),
        ("####NbOfScannedSpots\n1", "####NbOfScannedSpots\n2", "is 2, but there are 1"),
        ("####NbOfScannedSpots\n1", "####NbOfScannedSpots\n0", "NbOfScannedSpots"),
        ("0 0 1\n", "", "is 1, but there are 0"),
        ("0 0 1\n", "0 0 0\n", "all weights of the plan are 0"),
        ("0 0 1\n", "0 0 heavy\n", "weight must be a number"),
        ("0 0 1\n", "0 0 -1\n", "weight must be between 0"),
        ("0 0 1\n", "0 0 1e300\n", "weight must be between 0"),
        ("0 0 1\n", "0 0\n", "x y weight"),
        ("0 0 1\n", "0 0 nan\n", "must be a number"),
        ("150.0", "fast", "Energy in MeV must be a number"),
        ("150.0", "69.9", "covers 70 to 230"),
        ("150.0", "230.1", "covers 70 to 230"),
        ("####Energy (MeV)\n150.0\n", "", "has no Energy"),
        ("###IsocenterPosition\n60 100 60\n", "", "has no IsocenterPosition"),
        ("60 100 60", "60 100", "3 numbers"),
        ("60 100 60", "60 100 121", "misses the CT"),
        ("60 100 60", "-1 100 60", "misses the CT"),
        ("###GantryAngle\n0.0\n", "###GantryAngle\nup\n", "GantryAngle"),
        ("###GantryAngle\n0.0\n", "###GantryAngle\n0.0\n###GantryAngle\n90\n", "given twice"),
        ("###GantryAngle\n0.0\n", "###GantryAngle\n", "one line with its value"),
        ("###GantryAngle\n0.0\n", "###GantryAngel\n0.0\n", "unknown tag 'GantryAngel'"),
        ("#SPOTS-DESCRIPTION", "#SPOTS-DESCRIPTION\nrubbish\n", "expected a tag here"),
        ("####Energy (MeV)", "####Energy (keV)", "the columns must be Energy (MeV), not 'Energy (keV)'"),
        ("####X Y Weight", "####X Weight Y", "the columns must be X Y Weight, not 'X Weight Y'"),
    ],
)
def test_plan(old, new, words):
    assert words in refusal(changed("plan.txt", old, new))


@pytest.mark.parametrize("where", ["#FIELD-DESCRIPTION", "#SPOTS-DESCRIPTION", "####ControlPointIndex", "####X Y"])
def test_a_plan_that_is_cut_short(where):
    plan = water_sample()["plan.txt"]
    assert "plan.txt" in refusal({**water_sample(), "plan.txt": plan[: plan.index(where)]})


def test_blank_lines_in_a_plan_may_be_missing():
    assert MCsquare().check({**water_sample(), "plan.txt": water_sample()["plan.txt"].replace("\n\n", "\n")})


ROW = "150 150 0.6 1e8 1 4 0.003 0.0001 4 0.003 0.0001 0 4 0.003 0.0001 4 0.003 0.0001"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("3 energies", "4 energies", "4 energies are declared, but there are 3"),
        ("3 energies", "0 energies", "number of energies"),
        ("3 energies", "some energies", "number of energies"),
        ("--UPenn", "UPenn", "first line"),
        ("SMX to Isocenter distance\n2000\n", "", "'SMX to Isocenter distance' is missing"),
        ("SMY to Isocenter distance\n2000\n", "SMY to Isocenter distance\n0\n", "SMY"),
        ("Beam parameters", "Beam", "Beam"),
        ("SpotSize1x Divergence1x", "Divergence1x SpotSize1x", "the columns must be NominalEnergy MeanEnergy"),
        (ROW, ROW.replace("0.6", "nan"), "must be a number"),
        (ROW, ROW.removesuffix(" 0.0001"), "18 numbers"),
        (ROW, ROW.replace("150 150", "70 150"), "larger than that of the row before"),
        (ROW, ROW.replace("1e8 1 4", "1e8 0 4"), "Weight1 or Weight2"),
        (ROW, ROW.replace("1 4 0.003 0.0001", "1 0 0.003 0.0001", 1), "SpotSize1x"),
        (ROW, ROW.replace("1 4 0.003 0.0001", "1 4 0 0.0001", 1), "Divergence1x"),
        (ROW, ROW.replace("1 4 0.003 0.0001", "1 4 0.003 1.5", 1), "Correlation1x"),
        (ROW, ROW.replace("1 4 0.003 0.0001", "1 4 0.003 0", 1), "Correlation1x of 1e-4 instead of 0"),
        (ROW, ROW.replace("1 4 0.003 0.0001 4 0.003 0.0001", "1 4 0.003 0.0001 4 0.003 0", 1), "Correlation1y of 1e-4"),
        (ROW, ROW.replace("1e8 1", "1e8 .5").replace(" 0 4 0.003 0.0001", " .5 4 0.003 0", 1), "Correlation2x of 1e-4"),
    ],
)
def test_beam_data_library(old, new, words):
    assert words in refusal(changed("BDL.txt", old, new))


def test_a_spot_without_weight_may_be_anything():
    assert MCsquare().check(changed("BDL.txt", ROW, ROW.replace(" 0 4 0.003 0.0001 4 0.003 0.0001", " 0 0 0 0 0 0 0")))


SHIFTER = (
    "Range Shifter parameters\nRS_ID = RS\nRS_type = binary\nRS_material = 64\nRS_density = 1.2\nRS_WET = 74.1\n\n"
    "Beam parameters"
)
FIELD_SHIFTER = "###RangeShifterID\nRS\n###RangeShifterType\nbinary\n###NumberOfControlPoints"
POINT_SHIFTER = (
    "####RangeShifterSetting\nIN\n####IsocenterToRangeShifterDistance\n100\n"
    "####RangeShifterWaterEquivalentThickness\n74.1\n####NbOfScannedSpots"
)


def with_shifter(bdl=SHIFTER, field=FIELD_SHIFTER, point=POINT_SHIFTER):
    files = changed("BDL.txt", "Beam parameters", bdl)
    plan = files["plan.txt"].replace("###NumberOfControlPoints", field).replace("####NbOfScannedSpots", point)
    return {**files, "plan.txt": plan}


def test_range_shifter():
    assert MCsquare().check(with_shifter())
    assert "range shifter that is not in the BDL" in refusal(with_shifter(bdl="Beam parameters"))
    assert "IN or OUT" in refusal(with_shifter(point=POINT_SHIFTER.replace("IN", "HALF")))
    assert "has no IsocenterToRangeShifterDistance" in refusal(
        with_shifter(point="####RangeShifterSetting\nIN\n####NbOfScannedSpots")
    )
    assert "RS_WET" in refusal(with_shifter(bdl=SHIFTER.replace("RS_WET = 74.1\n", "")))
    assert "binary or analog" in refusal(with_shifter(bdl=SHIFTER.replace("binary", "wooden")))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("HU_Density.txt", "0 1\n", "at least 2 rows of a HU and a value are needed, but there are 1"),
        ("HU_Density.txt", "# nothing\n", "at least 2 rows of a HU and a value are needed, but there are 0"),
        ("HU_Density.txt", "-1000 0\n0 1\n", "density"),
        ("HU_Density.txt", "-1000 air\n0 1\n", "density"),
        ("HU_Density.txt", "0 1\n-1000 0.001\n", "larger than in the row before"),
        ("HU_Density.txt", "0 1\n0 1\n", "larger than in the row before"),
        ("HU_Density.txt", "0 1 1\n10 1 1\n", "but there are 3 words"),
        ("HU_Density.txt", "1 1\n10 1.1\n", "begins at HU 1, but the CT contains 0"),
        ("HU_Material.txt", "", "at least 1 rows of a HU and a value are needed, but there are 0"),
        ("HU_Material.txt", "-1000 0\n", "between 1 and 82"),
        ("HU_Material.txt", "-1000 83\n", "between 1 and 82"),
        ("HU_Material.txt", "-1000 17.5\n", "whole number"),
    ],
)
def test_tables(name, text, words):
    message = refusal({**water_sample(), name: text})
    assert message.startswith(name)
    assert words in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("NDims = 3", "NDims = 2", "NDims must be 3"),
        ("NDims = 3\n", "", "NDims is missing"),
        ("DimSize = 4 3 2", "DimSize = 4 3", "three numbers"),
        ("DimSize = 4 3 2", "DimSize = 4 3 0", "number of voxels"),
        ("DimSize = 4 3 2", "DimSize = 4 3 3", "72 bytes are needed for 4 x 3 x 3 voxels, but there are 48"),
        ("DimSize = 4 3 2", "DimSize = 4 3 1", "24 bytes are needed"),
        ("DimSize = 4 3 2", "DimSize = 9999 9999 9999", "exceed the limit"),
        ("ElementSpacing = 30 67 60", "ElementSpacing = 30 67 0", "spacing"),
        ("MET_SHORT", "MET_STRING", "ElementType must be"),
        ("NDims = 3", "NDims = 3\nElementByteOrderMSB = True", "must be False"),
        ("NDims = 3", "NDims = 3\nCompressedData = True", "must be False"),
        ("NDims = 3", "NDims = 3\nnonsense", "Key = value"),
        ("= ct.raw", "= other.raw", "'other.raw.base64' is missing"),
        ("= ct.raw", "= LOCAL", "the voxels must be in one file of their own"),
    ],
)
def test_image(old, new, words):
    assert words in refusal(with_image(HEADER.replace(old, new)))


#: Headers of images along x, y and z, as programs write them.
WRITTEN = {
    "SimpleITK": (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -60 -100.5 1e1\nCenterOfRotation = 0 0 0\n"
        "AnatomicalOrientation = RAI\nElementSpacing = 30 67 60\n0008|0060 = CT\n0028|1053 = 2\n"
        "0018|5100 = HFS\nITK_original_direction = 1 0 0 0 1 0 0 0 1\nITK_InputFilterName = MetaImageIO\n"
        "DimSize = 4 3 2\nElementType = MET_SHORT\nElementDataFile = ct.raw\n"
    ),
    "matRad": (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nCenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\n"
        "ElementSpacing = 30.000000 67.000000 60.000000\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
        "ElementDataFile = ct.raw\n"
    ),
    "MCsquare": (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 30.000000 67.000000 60.000000\n"
        "Offset = 0.000000 0.000000 0.000000\nElementType = MET_SHORT\nElementByteOrderMSB = False\n"
        "ElementDataFile = ct.raw\n"
    ),
    "by hand": (
        "Comment = made by hand = easily\nName =\nPatient Name = X\nNDims=3\nDimSize=4 3 2\nHeaderSize = -1\n"
        "Modality = MET_MOD_CT\nDistanceUnits = mm\nElementSize = 30 67 60.0\nElementMin = 0\nElementMax = 0\n"
        "ElementNumberOfChannels = 1\nElementToIntensityFunctionSlope = 1.0\nRescaleIntercept = 0\nColor = 1 0 0 1\n"
        "AnatomicalOrientation = ???\nElementSpacing=30 67 60\nElementType=MET_SHORT\nElementDataFile=ct.raw\n"
    ),
}


@pytest.mark.parametrize("program", WRITTEN)
def test_headers_of_programs_are_taken(program):
    assert MCsquare().check(with_image(WRITTEN[program])).primaries == 1600


@pytest.mark.parametrize("key", ["TransformMatrix", "Orientation", "Rotation"])
@pytest.mark.parametrize(
    "matrix", ["1 0 0 0 1 0 0 0 1", "1.0 0.0 -0 0 1e0 0 +0 .0 1", "0.99999999 1e-9 0 -1e-9 1 0 0 0 1.00000001"]
)
def test_the_identity_may_be_spelled_in_any_way(key, matrix):
    assert MCsquare().check(with_image(f"{key} = {matrix}\n{HEADER}")).primaries == 1600


@pytest.mark.parametrize(
    "line",
    [
        "TransformMatrix = 1 0 0 0 -1 0 0 0 -1",
        "TransformMatrix = -1 0 0 0 1 0 0 0 1",
        "Orientation = 0 1 0 1 0 0 0 0 1",
        "Rotation = 0.999 0.0447 0 -0.0447 0.999 0 0 0 1",
        "TransformMatrix = 0 0 0 0 0 0 0 0 0",
        *(f"AnatomicalOrientation = {acronym}" for acronym in ("LAI", "RPI", "LPS", "RAS", "ASL", "rai")),
    ],
)
def test_a_ct_that_its_header_turns_or_mirrors_is_refused(line):
    message = refusal(with_image(line + "\n" + HEADER))
    assert message.startswith("ct.mhd, line 1: ")
    assert "resample the CT so that its axes are x, y and z" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("TransformMatrix = 1 0 0 0 1 0", "9 numbers are needed, but there are 6"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 one", "must be a number"),
        ("Offset = 1 2", "3 numbers are needed"),
        ("Offset = 0 0 1e300", "between -1e+06 and 1e+06"),
        ("Offset = 1 2 3\nOrigin = 1 2 4", "line 2: Origin contradicts its synonym Offset"),
        ("NDims = 3", "line 2: 'NDims' is repeated, after line 1"),
        ("ElementSpacing = 3 6.7 6", "'ElementSpacing' is repeated, after line 1"),
        ("ObjectType = Mesh", "ObjectType must be Image, not 'Mesh'"),
        ("BinaryData = False", "BinaryData must be True, not 'False'"),
        ("BinaryDataByteOrderMSB = True", "must be False"),
        ("ElementNumberOfChannels = 3", "must be 1"),
        ("HeaderSize = 512", "HeaderSize must be 0"),
        ("DistanceUnits = cm", "DistanceUnits must be mm"),
        ("Modality = MET_MOD_MR", "Modality must be MET_MOD_CT"),
        ("ElementSize = 30 67 61", "ElementSize differs from ElementSpacing"),
        ("ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionSlope must be 1"),
        ("ElementToIntensityFunctionOffset = -1024", "ElementToIntensityFunctionOffset must be 0"),
        ("RescaleSlope = 0.5", "RescaleSlope must be 1: the raw file must contain HU"),
        ("RescaleIntercept = -1024", "RescaleIntercept must be 0"),
        ("offset = 1 2 3", "did you mean Offset?"),
        ("TransfromMatrix = -1 0 0 0 1 0 0 0 1", "did you mean TransformMatrix?"),
        ("ElementByteOrder = MSB", "did you mean ElementByteOrderMSB?"),
        (" = 3", "Key = value"),
        ("\n".join(f"key{number} = 1" for number in range(1000)), "at most 1000 lines"),
    ],
)
def test_what_a_header_says_beside_is_not_ignored(line, words):
    assert words in refusal(with_image(line + "\n" + HEADER))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_an_image_with_senseless_voxels(bad):
    values = np.zeros(24)
    values[7] = bad
    assert "have an invalid HU" in refusal(with_image(HEADER.replace("SHORT", "DOUBLE"), values, "<f8"))


def test_times_beside_the_spots_are_fine():
    assert MCsquare().check(changed("plan.txt", "####X Y Weight\n0 0 1", "####X Y Weight Time\n0 0 1 0.5"))


def test_data_that_is_not_base64():
    assert "not base64" in refusal({**with_image(), "ct.raw.base64": "(-:"})


def test_without_a_seed_one_is_drawn():
    for config in (water_sample()["config.txt"].replace("RNG_Seed 1\n", ""), water_sample(seed=0)["config.txt"]):
        seeds = {MCsquare().check({**water_sample(), "config.txt": config}).seed for _ in range(3)}
        assert len(seeds) == 3
        assert all(0 < seed < 2**31 for seed in seeds)


@given(st.sampled_from(sorted(water_sample())), st.text(max_size=300))
def test_hostile_text_is_refused_and_nothing_else_happens(name, text):
    with contextlib.suppress(InvalidInput):
        MCsquare().check({**water_sample(), name: text})


LINES = st.sampled_from([line for text in water_sample().values() for line in text.splitlines()])


@given(st.sampled_from(sorted(water_sample())), st.lists(LINES, max_size=30))
def test_lines_in_the_wrong_place_are_refused_and_nothing_else_happens(name, lines):
    with contextlib.suppress(InvalidInput):
        MCsquare().check({**water_sample(), name: "\n".join(lines)})


def test_it_is_recognised_by_the_keys_of_its_configuration():
    assert MCsquare().recognises(water_sample())
    assert not MCsquare().recognises({"config.txt": "something = else\n"})
    assert not MCsquare().recognises({})

"""A run is believed only if everything about it is right, and its numbers land on the right axes."""

import base64
import re
import signal

import numpy as np
import pytest

from yaptide.domain.errors import SimulationFailed
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare import MCsquare, metaimage
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.sample import water_sample

GRID = Grid((3, 4, 5), (40.0, 50.0, 24.0))
LOG = "\n 10.0 % \n 100.0 % (stat uncertainty: 2.1 %) \n\nNbr primaries simulated: 1600 \nMC computation time: 1 s \n"


def plan_of(*fields, couch=0.0):
    """A plan with these fields: gantry angle, isocentre, spots."""
    head, _, field = water_sample()["plan.txt"].partition("#FIELD-DESCRIPTION")
    text = head.replace("Fields\n1", f"Fields\n{len(fields)}")
    for gantry, isocentre, spots in fields:
        changes = {
            "GantryAngle\n0.0": f"GantryAngle\n{gantry}",
            "SupportAngle\n0": f"SupportAngle\n{couch}",
            "60 100 60": isocentre,
            "NbOfScannedSpots\n1": f"NbOfScannedSpots\n{len(spots)}",
            "0 0 1\n": "".join(f"{spot}\n" for spot in spots),
        }
        text += "#FIELD-DESCRIPTION" + field
        for old, new in changes.items():
            before, result, after = text.rpartition(old)
            assert result
            text = before + new + after
    return text


def finished(folder, gantry=0.0, couch=0.0, log=LOG, more=None, **images):
    """A folder as a run with GRID leaves it: `more` input files, images filled with random numbers unless given."""
    plan = plan_of((gantry, "30 60 90", ["0 0 1"]), couch=couch)
    files = {**water_sample(), "ct.txt": "grid 3 4 5\nspacing 40 50 24\n", "plan.txt": plan, **(more or {})}
    MCsquare().prepare(files, 1600, 1, folder)
    (folder / OUTPUT_LOG).write_text(log)
    (folder / "Outputs").mkdir()
    random = np.random.default_rng(1)
    for name in ("Dose", "Energy", "LET"):
        values = images.get(name, random.random(GRID.shape[::-1], dtype=np.float32))
        metaimage.write_image(folder / "Outputs", name, GRID, values)
    return folder


def image(folder, name):
    return metaimage.read_image(folder / "Outputs", f"{name}.mhd")[1].astype(float)


def pages(folder, name):
    """Depth curve, slice and grid of a quantity."""
    by_name = {estimator.name: estimator.pages for estimator in MCsquare().read(folder, 0).estimators}
    return [page for part in ("", " slice", " grid") for page in by_name[name + part]]


def test_estimators_pages_and_primaries(tmp_path):
    """Whoever opens one of them, as the web front end does, is sent pages of one dimension."""
    output = MCsquare().read(finished(tmp_path), 0)
    assert output.primaries == 1600
    expected = [
        (f"{quantity}{ending}", f"{quantity}.mhd", f"{quantity}, {part}", axes, unit)
        for quantity, unit in (("Dose", "eV/g"), ("Energy", "eV"), ("LET", "keV/um"))
        for ending, part, axes in (("", "depth curve", 1), (" slice", "slice", 2), (" grid", "grid", 3))
    ]
    for (name, file_name, page_name, axes, unit), estimator in zip(expected, output.estimators, strict=True):
        [page] = estimator.pages
        assert (estimator.name, estimator.file_name) == (name, file_name)
        assert (page.number, page.name, page.dimension, page.unit) == (0, page_name, axes, unit)
        assert page.values.shape == (np.prod([axis.values.size for axis in page.axes]),)


def test_the_grid_is_exactly_as_simulated(tmp_path):
    page = pages(finished(tmp_path), "Dose")[2]
    assert [axis.name for axis in page.axes] == ["x", "y", "z"]
    assert np.array_equal(page.axes[1].values, [25, 75, 125, 175])
    assert page.values.tobytes() == (tmp_path / "Outputs" / "Dose.raw").read_bytes()


# Isocentre at (30, 60, 90) in the plan: voxel (2, 1, 3) of the grid, since x is mirrored.
@pytest.mark.parametrize(
    ("gantry", "couch", "depth_first", "transverse"),
    [
        (0, 0, lambda a: a[3, ::-1, :], "x"),  # from high y
        (180, 0, lambda a: a[3, :, :], "x"),
        (90, 0, lambda a: a[3, :, :].T, "y"),  # from low x
        (270, 0, lambda a: a[3, :, ::-1].T, "y"),
        (90, 90, lambda a: a[:, 1, :], "x"),  # from low z
        (90, 270, lambda a: a[::-1, 1, :], "x"),
        (0.00001, -0.00001, lambda a: a[3, ::-1, :], "x"),  # off the axis by less than a thousandth of a voxel
    ],
)
def test_depth_begins_where_the_beam_enters(tmp_path, gantry, couch, depth_first, transverse):
    curve, cut, _ = pages(finished(tmp_path, gantry, couch), "Dose")
    expected = depth_first(image(tmp_path, "Dose"))
    assert [axis.name for axis in cut.axes] == [transverse, "depth"]
    assert np.array_equal(cut.values.reshape(expected.shape), expected)
    assert np.array_equal(curve.axes[0].values, cut.axes[1].values)
    assert curve.axes[0].values[0] == np.diff(curve.axes[0].values)[0] / 2


@pytest.mark.parametrize(("gantry", "across"), [(180, (0, 2)), (90, (0, 1))])
def test_a_curve_along_an_axis_is_the_same_bit_for_bit_as_ever(tmp_path, gantry, across):
    """Users compare it with what they have stored."""
    finished(tmp_path, gantry)
    dose, energy, let = (
        metaimage.read_image(tmp_path / "Outputs", f"{name}.mhd")[1] for name in ("Dose", "Energy", "LET")
    )
    mean = dose.mean(axis=across, dtype=np.float64)
    weighted = np.sum(let * dose.astype(np.float64), axis=across) / dose.sum(axis=across, dtype=np.float64)
    assert np.array_equal(pages(tmp_path, "Dose")[0].values, mean)
    assert np.array_equal(pages(tmp_path, "Energy")[0].values, energy.sum(axis=across, dtype=np.float64))
    assert np.array_equal(pages(tmp_path, "LET")[0].values, weighted)
    assert np.array_equal(pages(tmp_path, "LET")[0].weights, mean)


def test_a_layer_is_a_mean_of_dose_and_a_sum_of_energy_and_a_weighted_mean_of_let(tmp_path):
    finished(tmp_path, gantry=180)
    dose, energy, let = (image(tmp_path, name) for name in ("Dose", "Energy", "LET"))
    assert pages(tmp_path, "Dose")[0].values == pytest.approx(dose.mean(axis=(0, 2)))
    assert pages(tmp_path, "Energy")[0].values == pytest.approx(energy.sum(axis=(0, 2)))
    page = pages(tmp_path, "LET")[0]
    assert page.values == pytest.approx((let * dose).sum(axis=(0, 2)) / dose.sum(axis=(0, 2)))
    assert page.weights == pytest.approx(dose.mean(axis=(0, 2)))


@pytest.mark.parametrize("hu", [0, -1000])
def test_layers_across_an_oblique_beam_miss_nothing(tmp_path, hu):
    """Neither of a block of water nor of a CT with air about it."""
    finished(tmp_path, 70, 20, more={"ct.txt": f"grid 3 4 5\nspacing 40 50 24\nfill {hu}\nbox 40 80 50 150 0 120 0\n"})
    dose, energy, let = (image(tmp_path, name) for name in ("Dose", "Energy", "LET"))
    curve = pages(tmp_path, "Dose")[0]
    (thickness,) = set(np.diff(curve.axes[0].values).round(6))
    x, y, z = (abs(float(part)) for part in curve.metadata["beam_direction"].split())
    area = x * 200 * 120 + y * 120 * 120 + z * 120 * 200
    assert curve.values.sum() * thickness * area == pytest.approx(dose.sum() * 40 * 50 * 24, rel=1e-5)
    assert pages(tmp_path, "Energy")[0].values.sum() == pytest.approx(energy.sum())
    page = pages(tmp_path, "LET")[0]
    assert page.weights == pytest.approx(curve.values)
    assert page.values @ page.weights / page.weights.sum() == pytest.approx((let * dose).sum() / dose.sum())


def test_an_oblique_slice_holds_voxels_and_nothing_outside_of_the_grid(tmp_path):
    finished(tmp_path, 30, 0)  # in the plane of x and y
    for name in ("Dose", "Energy", "LET"):
        cut = pages(tmp_path, name)[1]
        assert [axis.name for axis in cut.axes] == ["across", "depth"]
        assert cut.metadata["slice_normal"] in {"0 0 1", "0 0 -1"}
        entry, direction = (np.array(cut.metadata[key].split(), float) for key in ("beam_entry", "beam_direction"))
        side = np.cross(direction, np.array(cut.metadata["slice_normal"].split(), float))
        across, depth = (axis.values for axis in cut.axes)
        places = entry + depth[:, None, None] * direction + across[:, None] * side
        index = np.floor(places / GRID.spacing).astype(int)
        inside = np.all((index >= 0) & (index < GRID.shape), axis=-1)
        x, y, z = np.where(inside[..., None], index, 0).transpose(2, 0, 1)
        assert set(np.unique(z)) == {0, 3}  # where the isocentre is
        expected = np.where(inside, image(tmp_path, name)[z, y, x], 0)
        assert cut.values.reshape(expected.shape) == pytest.approx(expected)
    weights = inside * image(tmp_path, "Dose")[z, y, x]
    assert cut.weights.reshape(expected.shape) == pytest.approx(weights)  # of LET


def test_what_is_said_of_the_beam_is_the_same_for_a_beam_along_an_axis(tmp_path):
    finished(tmp_path, 270)
    curve, cut, grid = pages(tmp_path, "Dose")
    assert (curve.metadata["beam_direction"], curve.metadata["beam_entry"]) == ("-1 0 0", "120 60 90")
    assert cut.metadata["slice_normal"] == "0 0 1"
    assert "no_range" not in curve.metadata
    assert not set(grid.metadata) & {"beam_direction", "slice_normal"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(0, "30 60 90"), (90, "30 60 90"), (180, "30 60 90")], "3 fields: a range is defined for one beam only"),
        ([(0, "30 60 90"), (0, "31 60 90")], "2 fields: a range is defined for one beam only"),
        ([(30, "30 60 90"), (390, "30 60 90")], None),  # the layers of one beam, in two fields
    ],
)
def test_several_fields_have_no_range(tmp_path, fields, reason):
    plan = plan_of(*((*field, ["0 0 1"]) for field in fields))
    finished(tmp_path, more={"plan.txt": plan})
    for name in ("Dose", "Energy", "LET"):
        curve, *others = pages(tmp_path, name)
        assert curve.metadata.get("no_range") == reason
        assert all("no_range" not in page.metadata for page in others)


@pytest.mark.parametrize(
    ("gantry", "spots", "reason"),
    [
        (45, ["0 0 1", "60 0 1"], "the spots are 42.4 mm from the ray (root mean square), which is 45.0 degrees from"),
        (45, ["0 0 1", "0 0 5"], None),
        (45, ["0 60 0", "0 0 1"], None),  # a spot without weight
        (5, ["0 0 1", "60 0 1"], None),  # 4 mm, in layers of 25 mm
        (0, ["-60 0 1", "60 0 1"], None),
    ],
)
def test_an_oblique_beam_that_is_wide_has_no_range(tmp_path, gantry, spots, reason):
    finished(tmp_path, more={"plan.txt": plan_of((gantry, "30 60 90", spots))})
    said = pages(tmp_path, "Dose")[0].metadata.get("no_range")
    assert said is None if reason is None else said.startswith(reason)


@pytest.mark.parametrize(
    ("isocentre", "reason"),
    [
        ("120 200 90", None),  # flies in at this edge
        ("120 0 90", "the ray through the isocenter leaves the CT where it enters"),
    ],
)
def test_a_ray_that_only_touches_the_grid_has_no_range(tmp_path, isocentre, reason):
    finished(tmp_path, more={"plan.txt": plan_of((45, isocentre, ["0 0 1"]))})
    assert pages(tmp_path, "Dose")[0].metadata.get("no_range") == reason


def placed(line):
    """A CT as an image whose header has this line."""
    header = f"NDims = 3\n{line}DimSize = 3 4 5\nElementSpacing = 40 50 24\nElementType = MET_SHORT\n"
    raw = base64.b64encode(bytes(120)).decode()
    return {"ct.mhd": header + "ElementDataFile = ct.raw\n", "ct.raw.base64": raw}


@pytest.mark.parametrize("key", ["Offset", "Position", "Origin"])
def test_axes_are_those_of_the_ct(tmp_path, key):
    finished(tmp_path, 270, more=placed(f"{key} = -97.3 1e2 7\n"))
    for name in ("Dose", "LET"):
        curve, cut, grid = pages(tmp_path, name)
        assert grid.axes[0].values.tolist() == [-97.3, -97.3 + 40, -97.3 + 80]
        assert grid.axes[1].values.tolist() == [100, 150, 200, 250]
        assert grid.axes[2].values.tolist() == [7, 31, 55, 79, 103]
        assert cut.axes[0].values.tolist() == [100, 150, 200, 250]  # y
        assert curve.axes[0].values.tolist() == cut.axes[1].values.tolist() == [20, 60, 100]  # from the face on
        x, y, z = map(float, curve.metadata["beam_entry"].split())
        assert (x, y, z) == pytest.approx((-97.3 - 20 + 120, 100 - 25 + 60, 7 - 12 + 90))


def test_axes_of_an_image_without_an_offset_begin_at_0_and_of_a_description_at_its_corner(tmp_path):
    image, description = tmp_path / "image", tmp_path / "description"
    for folder, more in ((image, placed("")), (description, None)):
        folder.mkdir()
        finished(folder, more=more)
    assert pages(image, "Dose")[2].axes[1].values.tolist() == [0, 50, 100, 150]
    assert pages(description, "Dose")[2].axes[1].values.tolist() == [25, 75, 125, 175]


def test_let_is_zero_where_there_is_no_dose(tmp_path):
    dose = np.zeros(GRID.shape[::-1], np.float32)
    dose[:, 0] = 1
    finished(tmp_path, gantry=180, Dose=dose)
    assert np.all(pages(tmp_path, "LET")[0].values[1:] == 0)


def test_only_let_carries_weights_and_they_are_the_dose(tmp_path):
    finished(tmp_path)
    for doses, lets in zip(pages(tmp_path, "Dose"), pages(tmp_path, "LET"), strict=True):
        assert doses.weights is None
        assert np.array_equal(lets.weights, doses.values)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGSEGV, "crashed"),
        (-signal.SIGBUS, "truncated"),
        (-signal.SIGABRT, "missing"),
        (-signal.SIGTERM, "terminated"),
        (-signal.SIGKILL, "memory"),
        (128 + signal.SIGSEGV, "crashed"),  # as a shell reports it
        (-55, "signal 55"),
        (1, "exit code 1"),
    ],
)
def test_exit_codes_become_words(tmp_path, code, words):
    with pytest.raises(SimulationFailed, match=words):
        MCsquare().read(finished(tmp_path), code)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (' Error: "abc" is not a valid value for Energy in "plan.txt"\n' + LOG, 'reports: Error: "abc" is not a valid'),
        (' ERROR: File "BDL.txt" is missing! \n' + LOG, "is missing!"),
        (
            LOG.replace("simulated: 1600", "simulated: 1600 (1600 generated outside the geometry)"),
            "100% of the protons miss",
        ),
        (LOG.replace("simulated: 1600", "simulated: 0"), "no primaries"),
        (" 10.0 % \n", "no primaries"),
        ("", "no primaries"),
        ("Please verify that both the operating system and the processor support Intel(R)", "processor"),
    ],
)
@pytest.mark.parametrize("code", [0])
def test_a_log_with_an_error_is_not_believed(tmp_path, log, words, code):
    with pytest.raises(SimulationFailed, match=re.escape(words)):
        MCsquare().read(finished(tmp_path, log=log), code)


def test_the_first_error_is_quoted_with_a_crash(tmp_path):
    with pytest.raises(SimulationFailed, match=r"crashed.*: Error: bad thing"):
        MCsquare().read(finished(tmp_path, log=" Error: bad thing\n Error: worse\n"), -11)


def test_a_few_protons_may_miss(tmp_path):
    log = LOG.replace("simulated: 1600", "simulated: 1600 (30 generated outside the geometry)")
    assert MCsquare().read(finished(tmp_path, log=log), 0).primaries == 1600


def test_no_dose_is_a_failure(tmp_path):
    with pytest.raises(SimulationFailed, match="no dose"):
        MCsquare().read(finished(tmp_path, Dose=np.zeros(GRID.shape[::-1], np.float32)), 0)


def test_a_dose_that_is_no_number_is_a_failure(tmp_path):
    with pytest.raises(SimulationFailed, match="not numbers"):
        MCsquare().read(finished(tmp_path, Dose=np.full(GRID.shape[::-1], np.nan, np.float32)), 0)


def test_missing_cut_and_foreign_results_are_failures(tmp_path):
    finished(tmp_path)
    raw = tmp_path / "Outputs" / "LET.raw"
    raw.write_bytes(raw.read_bytes()[:-4])
    with pytest.raises(SimulationFailed, match="bytes are needed"):
        MCsquare().read(tmp_path, 0)
    metaimage.write_image(
        tmp_path / "Outputs", "LET", Grid((1, 1, 1), (1.0, 1.0, 1.0)), np.zeros((1, 1, 1), np.float32)
    )
    with pytest.raises(SimulationFailed, match="another grid"):
        MCsquare().read(tmp_path, 0)
    raw.unlink()
    with pytest.raises(SimulationFailed, match="cannot be read"):
        MCsquare().read(tmp_path, 0)


@pytest.mark.parametrize(
    ("log", "primaries"),
    [
        (None, 0),
        ("", 0),
        ("Initialization time: 0.2 s \n", 0),
        (" 10.0 % \n", 160),
        (" 10.0 % \n 20.0 % \n", 320),
        (" 50.0 % (stat uncertainty: 1.11 %) \n 60.0 % (stat uncertainty: 99.00 %) \n", 960),
        (" 10.0 % \n 2", 160),  # in the middle of a line
        ("x" * 100_000 + "\n 70.0 % \n", 1120),
        (LOG, 1600),
    ],
)
def test_progress(tmp_path, log, primaries):
    if log is not None:
        (tmp_path / OUTPUT_LOG).write_text(log)
    assert MCsquare().progress(tmp_path, 1600) == primaries

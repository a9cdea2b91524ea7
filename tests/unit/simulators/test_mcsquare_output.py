"""A run is believed only if everything about it is right, and its numbers land on the right axes."""

import re
import signal

import numpy as np
import pytest

from yaptide.domain.errors import SimulationFailed
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare import MCsquare, metaimage
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.sample import water

GRID = Grid((3, 4, 5), (40.0, 50.0, 24.0))
LOG = "\n 10.0 % \n 100.0 % (stat uncertainty: 2.1 %) \n\nNbr primaries simulated: 1600 \nMC computation time: 1 s \n"


def finished(folder, gantry=0.0, couch=0.0, log=LOG, **images):
    """A folder as a run with GRID leaves it, with images filled with random numbers unless given."""
    files = {**water(gantry=gantry), "ct.txt": "grid 3 4 5\nspacing 40 50 24\n"}
    files["plan.txt"] = (
        files["plan.txt"].replace("SupportAngle\n0", f"SupportAngle\n{couch}").replace("60 100 60", "30 60 90")
    )
    MCsquare().prepare(files, 1600, 1, folder)
    (folder / OUTPUT_LOG).write_text(log)
    (folder / "Outputs").mkdir()
    random = np.random.default_rng(1)
    for name in ("Dose", "Energy", "LET"):
        values = images.get(name, random.random(GRID.shape[::-1], dtype=np.float32))
        metaimage.write(folder / "Outputs", name, GRID, values)
    return folder


def image(folder, name):
    return metaimage.read(folder / "Outputs", f"{name}.mhd")[1].astype(float)


def pages(folder, name):
    output = MCsquare().read(folder, 0)
    return next(estimator for estimator in output.estimators if estimator.name == name).pages


def test_estimators_pages_and_primaries(tmp_path):
    output = MCsquare().read(finished(tmp_path), 0)
    assert output.primaries == 1600
    assert [estimator.name for estimator in output.estimators] == ["Dose", "Energy", "LET"]
    assert [estimator.file_name for estimator in output.estimators] == ["Dose.mhd", "Energy.mhd", "LET.mhd"]
    for estimator, unit in zip(output.estimators, ["eV/g", "eV", "keV/um"], strict=True):
        assert [page.number for page in estimator.pages] == [0, 1, 2]
        assert [page.name.partition(", ")[2] for page in estimator.pages] == ["depth curve", "slice", "grid"]
        assert [page.dimension for page in estimator.pages] == [1, 2, 3]
        assert {page.unit for page in estimator.pages} == {unit}
        for page in estimator.pages:
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
        (10, 0, lambda a: a[3, ::-1, :], "x"),  # snapped to the nearest axis
    ],
)
def test_depth_begins_where_the_beam_enters(tmp_path, gantry, couch, depth_first, transverse):
    curve, cut, _ = pages(finished(tmp_path, gantry, couch), "Dose")
    expected = depth_first(image(tmp_path, "Dose"))
    assert [axis.name for axis in cut.axes] == [transverse, "depth"]
    assert np.array_equal(cut.values.reshape(expected.shape), expected)
    assert np.array_equal(curve.axes[0].values, cut.axes[1].values)
    assert curve.axes[0].values[0] == np.diff(curve.axes[0].values)[0] / 2


def test_a_layer_is_a_mean_of_dose_and_a_sum_of_energy_and_a_weighted_mean_of_let(tmp_path):
    finished(tmp_path, gantry=180)
    dose, energy, let = (image(tmp_path, name) for name in ("Dose", "Energy", "LET"))
    assert pages(tmp_path, "Dose")[0].values == pytest.approx(dose.mean(axis=(0, 2)))
    assert pages(tmp_path, "Energy")[0].values == pytest.approx(energy.sum(axis=(0, 2)))
    page = pages(tmp_path, "LET")[0]
    assert page.values == pytest.approx((let * dose).sum(axis=(0, 2)) / dose.sum(axis=(0, 2)))
    assert page.weights == pytest.approx(dose.mean(axis=(0, 2)))


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
        (-signal.SIGBUS, "cut short"),
        (-signal.SIGABRT, "missing"),
        (-signal.SIGTERM, "told to stop"),
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
    with pytest.raises(SimulationFailed, match="no numbers"):
        MCsquare().read(finished(tmp_path, Dose=np.full(GRID.shape[::-1], np.nan, np.float32)), 0)


def test_missing_cut_and_foreign_results_are_failures(tmp_path):
    finished(tmp_path)
    raw = tmp_path / "Outputs" / "LET.raw"
    raw.write_bytes(raw.read_bytes()[:-4])
    with pytest.raises(SimulationFailed, match="bytes are needed"):
        MCsquare().read(tmp_path, 0)
    metaimage.write(tmp_path / "Outputs", "LET", Grid((1, 1, 1), (1.0, 1.0, 1.0)), np.zeros((1, 1, 1), np.float32))
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

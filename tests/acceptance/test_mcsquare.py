"""MCsquare itself: the physics it gives through yaptide, and the failures that its exit code hides."""

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from scripts.decks import read_decks
from tests.support import processes
from yaptide.domain.depth_dose import bragg_peak
from yaptide.domain.errors import SimulationFailed
from yaptide.domain.splitting import split_primaries
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.mcsquare.sample import water_sample

#: MeV, and the range in mm of water: CSDA range of the PSTAR tables of NIST.
RANGES = [(70.0, 40.8), (125.0, 114.5), (150.0, 157.7)]

#: What an estimator's name has behind that of the quantity: depth curve, slice, grid.
PARTS = ("", " slice", " grid")


@pytest.fixture(scope="module")
def installation():
    return processes.installation()


def start(installation, folder):
    command = MCsquare().command(installation, folder)
    command.make_links(folder)
    with (folder / OUTPUT_LOG).open("wb") as log:
        environment = {**os.environ, **command.environment}
        return subprocess.Popen(command.arguments, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture
def simulate(installation, tmp_path_factory):
    """Check, prepare and run `files`, having changed the prepared ones by `spoil`; returns folder and exit code."""

    def run(files, primaries=1600, seed=1, spoil=None):
        folder = tmp_path_factory.mktemp("task")
        MCsquare().check(files)
        MCsquare().prepare(files, primaries, seed, folder)
        for name, (old, new) in (spoil or {}).items():
            text = (folder / name).read_text()
            assert old in text
            (folder / name).write_bytes(text.replace(old, new).encode())
        return folder, start(installation, folder).wait(processes.DEADLINE)

    return run


@pytest.fixture
def scores(simulate):
    """Pages of a run of `files` by quantity: depth curve, slice, grid."""

    def run(files, primaries=1600, seed=1):
        output = MCsquare().read(*simulate(files, primaries, seed))
        by_name = {estimator.name: estimator.pages for estimator in output.estimators}
        return {name: [page for part in PARTS for page in by_name[name + part]] for name in ("Dose", "Energy", "LET")}

    return run


def r80(pages):
    curve = pages["Dose"][0]
    return bragg_peak(curve.axes[0].values, curve.values)[1]


@pytest.mark.parametrize(("energy", "expected"), RANGES)
def test_protons_stop_at_their_range_in_water(scores, energy, expected):
    assert r80(scores(water_sample(energy=energy))) == pytest.approx(expected, abs=1.0)


def test_a_long_path_to_the_installation_makes_no_difference(installation, tmp_path):
    """MCsquare has room for 190 characters."""
    home = tmp_path / ("d" * 200) / ("e" * 200)
    shutil.copytree(installation.program.parent, home)
    MCsquare().test_program(replace(installation, program=home / installation.program.name))


@pytest.mark.parametrize("gantry", [90.0, 270.0])
def test_depth_follows_the_gantry(scores, gantry):
    pages = scores(water_sample(energy=100.0, gantry=gantry))
    assert pages["Dose"][0].axes[0].values.size == 60  # along x
    assert r80(pages) == pytest.approx(77.2, abs=1.5)  # in steps of 2 mm


@pytest.mark.parametrize(
    ("gantry", "box"),
    [(0, "0 120 170 200 0 120"), (180, "0 120 0 30 0 120"), (90, "0 30 0 200 0 120"), (270, "90 120 0 200 0 120")],
)
def test_ct_and_dose_share_their_axes(scores, gantry, box):
    """30 mm of air where the beam enters move the range by 30 mm."""
    files = water_sample(energy=70.0, gantry=gantry)
    files["ct.txt"] += f"box {box} -1000\n"
    assert r80(scores(files)) == pytest.approx(40.8 + 30, abs=1.0)


def test_the_slice_holds_the_axis_of_the_beam(scores):
    files = water_sample()
    files["plan.txt"] = files["plan.txt"].replace("60 100 60", "40.5 100 20.5")
    pages = scores(files)
    cut, grid = pages["Dose"][1], pages["Dose"][2].values.reshape(60, 200, 60).astype(float)
    x, z = (grid.sum(axis=axes) @ pages["Dose"][2].axes[0].values / grid.sum() for axes in ((0, 1), (1, 2)))
    assert (x, z) == (pytest.approx(120 - 40.5, abs=1), pytest.approx(20.5, abs=1))  # x is mirrored
    assert np.array_equal(cut.values.reshape(200, 60), grid[10, ::-1])


def turned(gantry, couch, spacing):
    """A beam of 70 MeV through the middle of a cube of 96 mm of water, or nearly."""
    shape = [round(96 / size) for size in spacing]
    files = water_sample(energy=70.0, gantry=gantry)
    files["ct.txt"] = f"grid {' '.join(map(str, shape))}\nspacing {' '.join(map(str, spacing))}\n"
    middle = " ".join(str(count * size / 2) for count, size in zip(shape, spacing, strict=True))
    files["plan.txt"] = files["plan.txt"].replace("60 100 60", middle).replace("Angle\n0\n", f"Angle\n{couch}\n")
    return files


@pytest.mark.parametrize(("gantry", "couch"), [(30, 0), (90, 45), (90, 20), (120, 60), (225, 300)])
def test_protons_stop_at_their_range_at_any_angle(scores, gantry, couch):
    pages = scores(turned(gantry, couch, (3.1, 2.7, 2.3)), primaries=3200)
    assert "no_range" not in pages["Dose"][0].metadata
    assert r80(pages) == pytest.approx(40.8, abs=0.7)
    energy = pages["Energy"]
    assert energy[0].values.sum() == pytest.approx(energy[2].values.sum())


def test_the_slice_of_an_oblique_beam_shows_it_from_its_entry_to_its_end(scores):
    cut = scores(turned(60, 30, (2.0, 2.0, 2.0)))["Dose"][1]
    across, depth = (axis.values for axis in cut.axes)
    dose = cut.values.reshape(depth.size, across.size)
    before = (depth > 5) & (depth < 35)
    middle = dose[before] @ across / dose[before].sum(axis=1)
    assert np.all(np.abs(middle) < 2)
    assert dose[before].sum() > 0.5 * dose.sum()
    assert dose[depth > 50].sum() < 0.01 * dose.sum()


def test_energy_is_dose_times_mass_and_most_of_the_beams(scores):
    pages = scores(water_sample())
    mass = 0.004  # g: 2 x 1 x 2 mm of water
    dose, energy = (pages[name][2].values.astype(float) for name in ("Dose", "Energy"))
    assert np.allclose(energy, dose * mass, rtol=1e-4)
    assert 140e6 < energy.sum() < 150e6  # eV per proton; neutrons carry some away
    assert pages["Energy"][0].values.sum() == pytest.approx(energy.sum())


def test_let_is_in_kev_per_um(scores):
    files = water_sample()
    files["config.txt"] += "Simulate_Nuclear_Interactions False\n"
    pages = scores(files)
    let = pages["LET"][0].values
    assert let[5] == pytest.approx(0.55, rel=0.05)  # stopping power of water for 148 MeV protons (PSTAR)
    assert 7 < let[int(r80(pages))] < 14  # averaged over protons near their end


def test_two_fields_are_both_simulated(scores):
    files = water_sample(energy=70.0)
    one = files["plan.txt"][files["plan.txt"].index("#FIELD") :]
    both = files["plan.txt"].replace("Fields\n1", "Fields\n2") + one.replace("Angle\n0.0", "Angle\n180")
    curve = scores({**files, "plan.txt": both})["Dose"][0].values
    assert curve[10] == pytest.approx(curve[-11], rel=0.2)
    assert curve[10] > 100 * curve[100]


def test_a_range_shifter_shortens_the_range(scores):
    files = water_sample()
    shifter = "RS_ID = RS\nRS_type = binary\nRS_material = 64\nRS_density = 1.19\nRS_WET = 50\n"
    files["BDL.txt"] = files["BDL.txt"].replace("Beam par", f"Range Shifter parameters\n{shifter}\nBeam par")
    field = "###RangeShifterID\nRS\n###RangeShifterType\nbinary\n###NumberOfControlPoints"
    point = "####RangeShifterSetting\nIN\n####IsocenterToRangeShifterDistance\n200\n"
    point += "####RangeShifterWaterEquivalentThickness\n50\n####NbOfScannedSpots"
    files["plan.txt"] = (
        files["plan.txt"].replace("###NumberOfControlPoints", field).replace("####NbOfScannedSpots", point)
    )
    assert r80(scores(files)) == pytest.approx(157.7 - 50, abs=1.5)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(simulate):
    raws = [
        (simulate(water_sample(), 320, seed)[0] / "Outputs" / f"{name}.raw").read_bytes()
        for name in ("Dose", "LET")
        for seed in (7, 7, 8)
    ]
    assert raws[0] == raws[1] != raws[2]
    assert raws[3] == raws[4] != raws[5]


@pytest.mark.parametrize(("asked", "tasks"), [(10, 1), (161, 1), (1000, 2), (4999, 3)])
def test_each_task_simulates_exactly_its_share(simulate, asked, tasks):
    checked = MCsquare().check(water_sample(asked))
    for share in split_primaries(checked.primaries, tasks, checked.quantum):
        assert MCsquare().read(*simulate(water_sample(asked), share)).primaries == share


def test_progress_grows_during_the_run(installation, tmp_path):
    MCsquare().prepare(water_sample(), 16000, 1, tmp_path)
    seen, running = [MCsquare().progress(tmp_path, 16000)], start(installation, tmp_path)
    while running.poll() is None:
        seen.append(MCsquare().progress(tmp_path, 16000))
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(timeout=0.05)
    seen.append(MCsquare().progress(tmp_path, 16000))
    assert (seen[0], seen[-1]) == (0, 16000)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("plan.txt", "150.0", "abc", 'Error: "abc" is not a valid value for Energy'),
        ("plan.txt", "0.0 0.0 1.0", "0.0 0.0 heavy", "Spot_Weight"),
        ("plan.txt", "60.0 100.0 60.0", "600.0 100.0 60.0", "miss the CT"),
        ("plan.txt", "###IsocenterPosition\n60.0 100.0 60.0\n", "", "miss the CT"),
        ("BDL.txt", "\n", "\r\n", "miss the CT"),
        ("BDL.txt", "0.003 0.0001", "0.003 0", "miss the CT"),
        ("config.txt", "Num_Primaries 1600", "Num_Primaries 1", "no primaries"),
    ],
)
def test_exit_code_0_is_not_believed(simulate, name, old, new, words):
    folder, code = simulate(water_sample(), spoil={name: (old, new)})
    assert code == 0
    with pytest.raises(SimulationFailed, match=words):
        MCsquare().read(folder, code)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("config.txt", "RNG_Seed 1", "RNG_Seed -1", "RNG_Seed"),
        ("config.txt", "plan.txt", "none.txt", "MCsquare"),
        ("config.txt", "HU_Material.txt", "none.txt", "aborted"),
        ("plan.txt", "NumberOfFields\n1", "NumberOfFields\n2", "crashed"),
        ("HU_Material.txt", " 17", " 99", "crashed"),
    ],
)
def test_failures_are_told_in_words(simulate, name, old, new, words):
    folder, code = simulate(water_sample(), spoil={name: (old, new)})
    assert code != 0
    with pytest.raises(SimulationFailed, match=words):
        MCsquare().read(folder, code)


def test_a_run_that_is_stopped_has_no_result(installation, tmp_path):
    MCsquare().prepare(water_sample(), 160_000_000, 1, tmp_path)
    running = start(installation, tmp_path)
    running.terminate()
    assert running.wait(processes.DEADLINE) == -signal.SIGTERM
    with pytest.raises(SimulationFailed, match="terminated"):
        MCsquare().read(tmp_path, running.returncode)


def test_a_good_installation_is_kept(installation):
    said = []
    assert MCsquare().install(processes.SIMULATORS, said.append) == installation
    assert said == [f"MCsquare {installation.version} is installed and works"]


#: Decks whose beam data library or plan MCsquare itself reads as yaptide does.
READ_ALIKE = [
    *("rows-after-count", "19-columns", "shifter-without-setting", "shifter-out", "isocentre-outside"),
    *("layer-without-weight", "layer-without-spots", "spot-tune-id", "plan-name"),
]
DECKS = {deck.name: deck for deck in read_decks()}


@pytest.mark.parametrize("name", READ_ALIKE)
def test_the_program_reads_the_files_of_users_as_yaptide_does(name, simulate):
    files = {file: data.decode() for file, data in DECKS[f"mcsquare-{name}"].files.items()}
    folder, exit_code = simulate(files)
    assert exit_code == 0
    generated = {file: (folder / file).read_text() for file in ("BDL.txt", "plan.txt")}
    spoil = {file: (text, files[file]) for file, text in generated.items() if text != files[file]}
    theirs, exit_code = simulate(files, spoil=spoil)
    assert exit_code == 0
    assert (theirs / "Outputs/Dose.raw").read_bytes() == (folder / "Outputs/Dose.raw").read_bytes()

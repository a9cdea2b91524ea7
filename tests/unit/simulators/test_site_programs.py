"""SHIELD-HIT12A, FLUKA and TOPAS as a site has them: prepared, run, followed, read and merged, with stand-ins."""

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pymchelper.input_output import fromfilelist
from typer.testing import CliRunner

from tests.support.processes import until
from tests.support.recorded import OUTPUTS, UNITS, fluka_files, shieldhit_files
from tests.support.standins import fluka, make_program, shieldhit, topas
from tests.support.standins.formats import write_bdo, write_table, write_usrbin
from tests.support.standins.running import Refused
from yaptide.admin import cli
from yaptide.disk import is_full
from yaptide.domain.errors import InvalidInput, NotConfigured, SimulationFailed, Unavailable
from yaptide.domain.estimators import Aggregation, Estimator, TaskOutput
from yaptide.domain.merging import PagesDiffer, merge_pages
from yaptide.persistence import task_outputs
from yaptide.platforms.direct import running
from yaptide.platforms.direct.running import Job, run_task
from yaptide.simulators import get_simulator, licensed, output_files, programs
from yaptide.simulators.base import OUTPUT_LOG, Installation
from yaptide.simulators.fluka.sample import SAMPLE as FLUKA
from yaptide.simulators.licensed import Written
from yaptide.simulators.output_files import read_output_files
from yaptide.simulators.output_reader import DISK_FULL
from yaptide.simulators.shieldhit.sample import SAMPLE as SHIELDHIT
from yaptide.simulators.topas.sample import SAMPLE as TOPAS
from yaptide.simulators.topas.simulator import share_histories

CODES = ("shieldhit", "fluka", "topas")
SAMPLES = {"shieldhit": SHIELDHIT, "fluka": FLUKA, "topas": TOPAS}
READERS = {
    "shieldhit": shieldhit.read_deck,
    "fluka": lambda folder: fluka.read_deck(next(folder.glob("*.inp")).read_text()),
    "topas": lambda folder: topas.read_deck(max(folder.glob("*.txt"))),
}
tail = licensed._tail
CELL = ("MSH", "Cell", [0.0] * 3, [1.0] * 3, [1] * 3)


class Reports:
    """Receives the reports of a task."""

    def __init__(self):
        self.progress, self.output, self.failure, self.returned = [], None, None, None

    def report_progress(self, simulated, estimated):
        self.progress.append(simulated)
        return True

    def complete_task(self, output):
        self.output = output

    def fail_task(self, reason, logs):
        self.failure = reason, logs

    def report_canceled(self, logs):
        raise AssertionError

    def return_task(self, reason):
        self.returned = reason


def run(code, folder, files=None, primaries=100, seed=7, limit=60.0, **settings):
    """Run a task of a stand-in; return its reports."""
    program = make_program(folder / "bin", code, **settings)
    reports = Reports()
    installation = Installation(program, "", "")
    job = Job(get_simulator(code), installation, files or SAMPLES[code], primaries, seed, folder / "run", limit)
    run_task(job, reports, threading.Event(), threading.Event())
    return reports


# Preparing.


@pytest.mark.parametrize("code", CODES)
def test_a_task_has_its_own_primaries_and_seed(code, tmp_path):
    get_simulator(code).prepare(SAMPLES[code], 123, 456, tmp_path)
    deck = READERS[code](tmp_path)
    assert (deck.get("primaries", deck.get("histories")), deck["seed"]) == (123, 456)


def prepared_deck(text, primaries, seed, folder):
    get_simulator("fluka").prepare({"a.inp": text}, primaries, seed, folder)
    return (folder / "task.inp").read_text()


def test_no_other_column_of_fluka_moves(tmp_path):
    start = f"{'START':<10}{'5000.0':>10}{'':>40}{'1.0':>10}NAME\n"
    text = f"{'RANDOMIZ':<10}{'1.0':>10}{'137':>10}{'':>40}\n{start}STOP\n"
    written = prepared_deck(text, 9_999_999_999, 899_999_998, tmp_path)
    assert written == (
        f"{'RANDOMIZ':<10}{'1.0':>10}{'899999998':>10}{'':>40}\n{'START':<10}9999999999{'':>40}{'1.0':>10}NAME\nSTOP\n"
    )


def test_a_seed_is_added_to_a_deck_of_fluka_and_stays_below_its_limit(tmp_path):
    written = prepared_deck("START        100.0\nSTOP\n", 50, 2**31 - 1, tmp_path)
    first, second, _ = written.split("\n", 2)
    assert re.fullmatch(r"RANDOMIZ   {9}( {1}|\d)*", first[:30]) or first.startswith("RANDOMIZ")
    assert 1 <= int(first[20:30]) < 9e8
    assert second == f"{'START':<10}{'50':>10}"


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("START 3000.0 ! all", "START, 50 ! all"),
        ("START, 3000.0, 0.0", "START, 50, 0.0"),
        ("START;;;5.", "START, 50, , 5."),
    ],
)
def test_free_format_of_fluka_keeps_its_other_numbers(line, written, tmp_path):
    text = prepared_deck(f"FREE\nRANDOMIZE,,99.0\n{line}\nSTOP\n", 50, 3, tmp_path)
    assert text == f"FREE\nRANDOMIZE, , 3\n{written}\nSTOP\n"


def test_values_and_comments_of_shieldhit_stay(tmp_path):
    files = {**SHIELDHIT, "beam.dat": "nstat\t1000 50 ! all\r\nJPART0 2\r\nTMAX0 150 1.5 # MeV\r\n"}
    get_simulator("shieldhit").prepare(files, 9, 8, tmp_path)
    written = (tmp_path / "beam.dat").read_bytes()
    assert written == b"nstat\t9 50 ! all\nJPART0 2\nTMAX0 150 1.5 # MeV\nRNDSEED 8\n"


def test_topas_gets_the_types_of_the_users_file_and_shares_for_all_sources(tmp_path):
    text = TOPAS["water.txt"] + 'ic:So/Other/NumberOfHistoriesInRun = 3000\ns:So/Other/Type = "Beam"\n'
    text += 's:So/Other/Component = "Start"\nb:Ts/PauseBeforeQuit = "True"\n'
    get_simulator("topas").prepare({"water.txt": text}, 1001, 5, tmp_path)
    lines = (tmp_path / "yaptide_task.txt").read_text().splitlines()
    assert lines[0] == "includeFile = water.txt"
    assert {"ic:So/Other/NumberOfHistoriesInRun = 751", "i:So/Protons/NumberOfHistoriesInRun = 250"} <= set(lines)
    assert {"i:Ts/Seed = 5", "i:Ts/NumberOfThreads = 1", 'b:Ts/PauseBeforeQuit = "False"'} <= set(lines)


def test_shares_of_sources_add_up():
    for total in range(50):
        shares = share_histories({"a": 1, "b": 1, "c": 5, "d": 0}, total)
        assert sum(shares.values()) == total
        assert shares["d"] == 0


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("fluka", {"a.inp": "#include task.inp\nSTART        100.0\n", "task.inp": "* nothing\n"}),
        ("topas", {"a.txt": "includeFile = yaptide_task.txt\n" + TOPAS["water.txt"], "yaptide_task.txt": ""}),
    ],
)
def test_the_name_of_a_tasks_own_file_is_refused(code, files):
    with pytest.raises(InvalidInput, match="another name"):
        get_simulator(code).check(files)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("shieldhit", ["shieldhit_0000.log", "depth_dose.bdo.base64", "output.log"]),
        ("fluka", ["task001.out", "task001_fort.21.base64", "output.log"]),
        ("topas", ["depth_dose.csv", "output.log"]),
    ],
)
def test_files_of_an_earlier_run_are_left_out(code, names, tmp_path):
    files = {**SAMPLES[code], "notes.md": "kept", **dict.fromkeys(names, "")}
    get_simulator(code).prepare(files, 10, 1, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert not {name.removesuffix(".base64") for name in names} & written
    assert "notes.md" in written


@pytest.mark.parametrize(
    ("code", "name", "old", "new", "words"),
    [
        ("shieldhit", "detect.dat", "Filename depth_dose.bdo", "", "a Filename"),
        ("fluka", "water.inp", "     -21.0", "      21.0", "a binary unit"),
        ("fluka", "water.inp", "USRBIN", "USRYIELD", "add a USRBIN"),
        ("topas", "water.txt", 'OutputType = "csv"', 'OutputType = "binary"', 'OutputType = "csv"'),
    ],
)
def test_input_without_results_is_recognised(code, name, old, new, words):
    files = dict(SAMPLES[code])
    assert get_simulator(code).check(files).no_results == ""
    assert old in files[name]
    files[name] = files[name].replace(old, new)
    assert words in get_simulator(code).check(files).no_results


# Running.


@pytest.mark.parametrize("code", CODES)
def test_a_run_reports_progress_and_ends_with_results_and_logs(code, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "REPORT_EVERY", 0.0)
    reports = run(code, tmp_path, pause=0.15)
    assert reports.failure is None
    assert max(number for number in reports.progress if number < 100) > 0
    assert reports.progress == sorted(reports.progress)
    assert reports.output.primaries == 100
    own = {"shieldhit": "shieldhit_0001.log", "fluka": "task001.out", "topas": OUTPUT_LOG}
    assert {OUTPUT_LOG, own[code]} <= reports.output.logs.keys()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kill", "did not run to its end"),
        ("quiet", r"did not run to its end \(exit code 0\)"),
        ("disk", r"did not run to its end \(exit code 29\)"),
        ("short", "incomplete|cannot be read"),
    ],
)
def test_a_run_that_fails_says_why(code, fault, words, tmp_path):
    reason, logs = run(code, tmp_path, fault=fault).failure
    assert re.search(words, reason)
    assert logs


@pytest.mark.parametrize("code", CODES)
def test_a_full_disk_returns_the_task(code, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "has_free_space", lambda _: False)
    assert "no disk space" in run(code, tmp_path, fault="disk").returned


def test_a_run_that_hangs_ends_at_its_limit(tmp_path):
    reason, _ = run("topas", tmp_path, limit=1.0, fault="hang").failure
    assert "ran for more than" in reason


def test_an_exit_code_alone_does_not_fail_a_run(tmp_path):
    assert run("shieldhit", tmp_path, fault="code").output.primaries == 100


def test_fewer_primaries_than_requested_fail(tmp_path):
    """A version for evaluation simulates only some."""
    code = get_simulator("shieldhit")
    code.prepare(SHIELDHIT, 1000, 1, tmp_path)
    (tmp_path / "shieldhit_0001.log").write_text(" Run time: 0 hour(s) 0 minute(s) 1 second(s)\n")
    with pytest.raises(SimulationFailed, match="has not written 'depth_dose'"):
        code.read(tmp_path, 0)
    write_bdo(tmp_path / "depth_dose_0001.bdo", "v1.0.1", 100, CELL, [{"quantity": "dose", "values": [1.0]}])
    with pytest.raises(SimulationFailed, match="100 of 1000 primaries"):
        code.read(tmp_path, 0)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("filler", ["\n", " ", "History: ", "End of FLUKA ", " * ====== End of FLUKA" + " " * 1000])
def test_hostile_logs_are_read_in_linear_time(code, filler, tmp_path):
    """A quadratic pattern would need minutes for a log of this size."""
    simulator = get_simulator(code)
    simulator.prepare(SAMPLES[code], 100, 1, tmp_path)
    text = (filler * (1 << 18))[: 1 << 18]
    for name in (OUTPUT_LOG, "shieldhit_0001.log", "task001.out", "task001.err"):
        (tmp_path / name).write_text(text)
    begun = time.process_time()
    with pytest.raises(SimulationFailed, match="did not run to its end"):
        simulator.read(tmp_path, 0)
    assert re.search(simulator.progress_rule.done, text, re.MULTILINE) is None
    assert re.findall(simulator.progress_rule.percent, text, re.MULTILINE) == []
    assert time.process_time() - begun < 20


def test_few_log_files_are_read(tmp_path, monkeypatch):
    code = get_simulator("shieldhit")
    code.prepare(SHIELDHIT, 100, 1, tmp_path)
    for number in range(50):
        (tmp_path / f"shieldhit_{number:04}.log").write_text(f"stopped {number}\n\n")
    read = []
    monkeypatch.setattr(licensed, "_tail", lambda path: read.append(path) or tail(path))
    with pytest.raises(SimulationFailed, match=r"its last words: stopped 4$"):
        code.read(tmp_path, 0)
    assert len(read) < 10


def test_a_run_that_changes_the_file_of_its_task_fails(tmp_path):
    (tmp_path / ".yaptide-task.json").write_text("{}")
    with pytest.raises(SimulationFailed, match="has changed or removed"):
        licensed.read_task(tmp_path)


def test_an_absurd_number_in_a_log_is_no_progress_beyond_the_end(tmp_path):
    (tmp_path / OUTPUT_LOG).write_text(f"History: {'9' * 400}\n")
    assert get_simulator("topas").progress(tmp_path, 80) == 80


def test_names_that_a_code_has_not_written_are_shortened():
    with pytest.raises(SimulationFailed) as caught:
        get_simulator("shieldhit").require_outputs(["a" * 1000], [])
    assert len(str(caught.value)) < 200


# Reading.


def test_results_have_the_names_units_axes_and_filters_of_the_front_end(tmp_path):
    output = run("shieldhit", tmp_path, shieldhit_files(), 50).output
    assert [estimator.name for estimator in output.estimators] == list(OUTPUTS)
    for estimator in output.estimators:
        assert get_simulator("shieldhit").output_of(estimator.file_name, list(OUTPUTS)) is not None
        described = [
            (page.name, page.unit, [(axis.name, axis.unit, axis.values.size) for axis in page.axes])
            for page in estimator.pages
        ]
        assert described == [page[:3] for page in OUTPUTS[estimator.name]]
        assert [page.metadata.get("page_filter_name") for page in estimator.pages] == [
            page[3] for page in OUTPUTS[estimator.name]
        ]
        assert estimator.metadata["code_version"] == "v1.0.1-stand-in"


def test_results_of_fluka_are_called_by_their_units(tmp_path):
    output = run("fluka", tmp_path, fluka_files(), 50).output
    assert {each.name: (each.pages[0].name, each.pages[0].unit) for each in output.estimators} == UNITS
    names = ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert [get_simulator("fluka").output_of(each.file_name, names) for each in output.estimators] == list(range(8))
    (plane,) = output.estimators[1].pages
    assert [(axis.name, axis.values.size) for axis in plane.axes] == [("Position (Y)", 500), ("Position (Z)", 500)]


def test_each_usrbin_of_a_unit_has_its_own_axes(tmp_path):
    one = {"name": "one", "type": 10, "particle": 228, "axes": [(0, 1, 1), (0, 1, 1), (0, 4, 4)], "values": [1.0] * 4}
    other = one | {"name": "other", "axes": [(0, 1, 1), (0, 1, 1), (10, 14, 4)]}
    write_usrbin(tmp_path / "a_fort.21", "title", 10, [one, other])
    (output,) = read_output_files("fluka", [tmp_path / "a_fort.21"], tmp_path)
    assert [page.axes[0].values[0] for page in output.pages] == [0.5, 10.5]
    assert [page.values[0] for page in output.pages] == [1000.0, 1000.0]  # MeV/g


def test_the_last_axis_of_topas_is_turned_to_the_first(tmp_path):
    axes = [("X", 2, 1.0, "cm"), ("Y", 1, 1.0, "cm"), ("Z", 3, 0.5, "cm")]
    columns = {"Sum": [0.0, 1, 2, 10, 11, 12]}
    write_table(tmp_path / "a.csv", "a", "Box", "DoseToMedium", "Gy", axes, columns)
    (output,) = read_output_files("topas", [tmp_path / "a.csv"], tmp_path)
    (page,) = output.pages
    assert page.grid().tolist() == [[0, 1, 2], [10, 11, 12]]
    assert (page.aggregation, page.unit, page.axes[1].values.tolist()) == (Aggregation.SUM, "Gy", [0.25, 0.75, 1.25])


def test_the_let_of_topas_is_a_mean_although_it_calls_it_a_sum(tmp_path):
    axes = [(name, 1, 1.0, "cm") for name in "XYZ"]
    write_table(tmp_path / "a.csv", "a", "Box", "ProtonLET", "MeV/mm/(g/cm3)", axes, {"Sum": [0.5]})
    (output,) = read_output_files("topas", [tmp_path / "a.csv"], tmp_path)
    (page,) = output.pages
    assert (page.aggregation, page.unit) == (Aggregation.MEAN, "MeV/mm/(g/cm3)")


def test_a_phase_space_and_differential_axes(tmp_path):
    pages = [
        {"quantity": "mcpl", "values": [float(number) for number in range(16)], "filter": "Carbon"},
        {"quantity": "fluence", "values": [0.0] * 50, "diff": [(0.01, 100.0, 10, True), (0.0, 3.0, 5, False)]},
    ]
    write_bdo(tmp_path / "a.bdo", "v1.1.1", 100, CELL, pages)
    (output,) = read_output_files("shieldhit", [tmp_path / "a.bdo"], tmp_path)
    particles, spectrum = output.pages
    assert (particles.aggregation, particles.metadata["columns"], particles.axes) == ("concatenate", "8", ())
    assert [(axis.name, axis.unit) for axis in spectrum.axes] == [("Kinetic energy", "MeV"), ("Angle", "deg")]
    assert spectrum.axes[0].values == pytest.approx(np.geomspace(0.01, 100, 21)[1::2])
    assert spectrum.unit == "/cm^2/MeV/deg/prim"


@pytest.mark.parametrize("quantity", ["count", "dose", "dlet", "mcpl", "rho"])
def test_merged_pages_equal_the_averages_of_pymchelper(quantity, tmp_path):
    draw = np.random.default_rng(5)
    primaries, paths = [100, 250, 50, 1000], []
    mesh = ("MSH", "Line", [0.0] * 3, [1.0] * 3, [1, 1, 40])
    for task, count in enumerate(primaries):
        paths.append(tmp_path / f"a_{task:04}.bdo")
        values = draw.random(40 if quantity != "mcpl" else 8 * (task + 1)) * 1000
        write_bdo(paths[-1], "v1.0.1", count, mesh, [{"quantity": quantity, "values": values}])
    (theirs,) = fromfilelist(list(map(str, paths))).pages
    outputs = read_output_files("shieldhit", paths, tmp_path)
    ours = merge_pages([output.pages[0] for output in outputs], primaries)
    assert ours.values == pytest.approx(np.ravel(theirs.data_raw), rel=1e-12)


def test_a_phase_space_without_particles_in_one_task(tmp_path):
    for name, values in (("a", []), ("b", [1.0] * 8)):
        write_bdo(tmp_path / f"{name}.bdo", "v1.0.1", 10, CELL, [{"quantity": "mcpl", "values": values}])
    outputs = read_output_files("shieldhit", [tmp_path / "a.bdo", tmp_path / "b.bdo"], tmp_path)
    empty, filled = (TaskOutput(10, (Estimator("a", "a", output.pages),)) for output in outputs)
    with (tmp_path / "empty").open("wb") as file:
        task_outputs.write_output(file, empty)
    task_outputs.check_output(tmp_path / "empty", 10_000)
    pages = [output.estimators[0].pages[0] for output in (empty, filled)]
    assert merge_pages(pages, [10, 10]).values.tolist() == [1.0] * 8
    with pytest.raises(PagesDiffer, match="no particle"):
        merge_pages(pages[:1], [10])


def hostile_files():
    yield "huge", b"xSH12AII1.0".ljust(24, b"\0") + b"\xbb\xdd" + b"\0" * 6 + b"<f8\0\0\0\0\0" + b"\xff" * 7 + b"\0"
    yield "objects", b"xSH12AII1.0".ljust(24, b"\0") + b"\xbb\xdd" + b"\0" * 6 + b"|O\0\0\0\0\0\0" + b"\1" + b"\0" * 7
    yield "empty", b""
    yield "text", b"Hello"
    yield "other machine", b"xSH12AMM1.0".ljust(24, b"\0")


@pytest.mark.parametrize(("name", "data"), list(hostile_files()))
def test_a_hostile_file_costs_its_task(name, data, tmp_path):
    (tmp_path / "a.bdo").write_bytes(data)
    with pytest.raises(SimulationFailed, match="cannot be read"):
        read_output_files("shieldhit", [tmp_path / "a.bdo"], tmp_path)


def test_bins_without_values_cost_the_reader_and_not_the_server(tmp_path):
    mesh = ("MSH", "Cell", [0.0] * 3, [1.0] * 3, [10**6, 10**6, 10**3])
    write_bdo(tmp_path / "a.bdo", "v1.0.1", 1, mesh, [{"quantity": "dose", "values": [1.0]}])
    with pytest.raises(SimulationFailed, match="incomplete"):
        read_output_files("shieldhit", [tmp_path / "a.bdo"], tmp_path)


@pytest.mark.parametrize(("limit", "value"), [("_OWN_MEMORY", 64 << 20), ("_OWN_SECONDS", 0)])
def test_the_reader_ends_at_its_limits(limit, value, tmp_path, monkeypatch):
    write_bdo(tmp_path / "a.bdo", "v1.0.1", 1, CELL, [{"quantity": "dose", "values": [1.0]}])
    monkeypatch.setattr(output_files, limit, value)
    with pytest.raises(SimulationFailed, match="cannot be read"):
        read_output_files("shieldhit", [tmp_path / "a.bdo"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bdo"]


def test_a_table_cannot_have_another_file_read(tmp_path):
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # whoever opened it would wait
    axes = [(name, 1, 1.0, "cm") for name in "XYZ"]
    write_table(tmp_path / "a.csv", "a", "Box", "DoseToMedium", "Gy", axes, {"Mean": [1.0]})
    text = (tmp_path / "a.csv").read_text().replace("yaptide_task.txt", str(secret))
    (tmp_path / "a.csv").write_text(text)
    (output,) = read_output_files("topas", [tmp_path / "a.csv"], tmp_path)
    assert (output.primaries, output.pages[0].values.tolist()) == (0, [1.0])


def run_reader(tmp_path, monkeypatch, text):
    """Read an output file with a program in place of the reader, whose first argument is the folder of its answer."""
    script = tmp_path / "reader.py"
    script.write_text(f"import pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n{text}\n")
    monkeypatch.setattr(output_files, "_READER", str(script))
    (tmp_path / "a.bdo").touch()
    return read_output_files("shieldhit", [tmp_path / "a.bdo"], tmp_path)


@pytest.mark.parametrize("text", ["", "(folder / 'index.json').write_text('[{')", "(folder / 'index.json').touch()"])
def test_an_index_that_cannot_be_read_costs_its_task(text, tmp_path, monkeypatch):
    with pytest.raises(SimulationFailed, match="left no index"):
        run_reader(tmp_path, monkeypatch, text)


@pytest.mark.parametrize("name", ["values.f8", "index.part", "a.csv"])
def test_a_full_disk_while_reading_is_no_failure_of_the_task(name, tmp_path, monkeypatch):
    axes = [(name, 1, 1.0, "cm") for name in "XYZ"]
    write_table(tmp_path / "a.csv", "a", "Box", "DoseToMedium", "Gy", axes, {"Mean": [1.0]})
    (tmp_path / "answer").mkdir()
    (tmp_path / "answer" / name).symlink_to("/dev/full")
    arguments = [str(tmp_path / "answer"), str(1 << 30), "60", "topas", str(tmp_path / "a.csv")]
    done = subprocess.run([sys.executable, "-I", output_files._READER, *arguments], check=False)
    assert done.returncode == DISK_FULL
    with pytest.raises(OSError, match="No space left") as caught:
        run_reader(tmp_path, monkeypatch, f"sys.exit({DISK_FULL})")
    assert is_full(caught.value)


def test_a_full_disk_while_reading_returns_the_task(tmp_path, monkeypatch):
    script = tmp_path / "reader.py"
    script.write_text(f"import sys; sys.exit({DISK_FULL})")
    monkeypatch.setattr(output_files, "_READER", str(script))
    assert "no disk space" in run("shieldhit", tmp_path).returned


def test_a_huge_file_does_not_get_more_memory_and_time_than_the_fixed_limits(tmp_path, monkeypatch):
    with (tmp_path / "huge.bdo").open("wb") as file:
        file.truncate(1 << 40)
    started = []
    monkeypatch.setattr(output_files, "_run_reader", lambda command, _, timeout: started.append((command, timeout)))
    with pytest.raises(SimulationFailed, match="left no index"):
        read_output_files("shieldhit", [tmp_path / "huge.bdo"], tmp_path)
    (command, timeout), *_ = started
    assert int(command[4]) <= 4 << 30
    assert max(int(command[5]), timeout) <= 1200


def test_two_readers_at_once_and_a_limit_for_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(output_files, "_LONGEST_WAIT", 0.01)
    with output_files._turn():
        with output_files._turn(), pytest.raises(Unavailable, match="try again"):
            read_output_files("shieldhit", [], tmp_path)
        with output_files._turn():
            pass


def test_the_reader_is_the_first_to_end_if_memory_runs_out(tmp_path):
    table = tmp_path / "a.csv"
    os.mkfifo(table)
    command = [sys.executable, "-I", output_files._READER, str(tmp_path), str(1 << 30), "60", "topas", str(table)]
    with subprocess.Popen(command) as process, table.open("w"):  # opened as soon as it reads
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"


SPECTRUM = "# Binned by incident track energy in 2 bins of 0.5 MeV from 0 MeV to 1e+00 MeV\n"
IN_ONE_BIN = "".join(f"# {name} in 1 bin of 1e-05 cm\n" for name in "XYZ")


@pytest.mark.parametrize(
    ("header", "columns", "rows", "values"),
    [
        (IN_ONE_BIN, "Sum   Mean", "0, 0, 0, 4, 2\n", [2]),
        (IN_ONE_BIN, "Mean", "2\n", [2]),
        ("", "Mean", "0, 0, 0, 2\n", [2]),
        (SPECTRUM, "Mean", "9, 1, 2, 9, 9\n", [1, 2]),
        (SPECTRUM, "Sum   Mean", "9, 9, 5, 1, 5, 2, 9, 9, 9, 9\n", [1, 2]),
        (IN_ONE_BIN + SPECTRUM, "Mean", "0, 0, 0, 9, 1, 2, 9, 9\n", [1, 2]),
        (
            IN_ONE_BIN.replace("Z in 1 bin", "Z in 2 bins") + SPECTRUM,
            "Mean",
            "0, 0, 0, 9, 1, 2, 9, 9\n0, 0, 1, 9, 3, 4, 9, 9\n",
            [1, 3, 2, 4],
        ),
    ],
)
def test_tables_with_few_rows_and_spectra(header, columns, rows, values, tmp_path):
    head = "# TOPAS Version: 4.2.p3\n# Results for scorer: a\n# Scored in component: Box\n"
    (tmp_path / "a.csv").write_text(f"{head}{header}# Fluence ( /mm2 ) : {columns}   \n{rows}")
    (output,) = read_output_files("topas", [tmp_path / "a.csv"], tmp_path)
    assert output.pages[0].values.tolist() == values


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Fluence", "OwnQuantity"),
        ("# Fluence", "# Binned by own thing in 2 bins of 1 cm from 0 cm to 2 cm\n# Fluence"),
        ("# Fluence", SPECTRUM.replace("from 0", "from -1") + "# Fluence"),
    ],
)
def test_a_sound_table_that_cannot_be_kept_does_not_cost_the_others(old, new, tmp_path):
    axes = [(name, 1, 1.0, "cm") for name in "XYZ"]
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.csv", name, "Box", "Fluence", "/mm2", axes, {"Mean": [1.0]})
    (tmp_path / "b.csv").write_text((tmp_path / "b.csv").read_text().replace(old, new))
    written = [Written(name, name, tmp_path / f"{name}.csv") for name in ("a", "b")]
    (kept,) = get_simulator("topas").read_files(written, tmp_path, 10).estimators
    assert (kept.name, kept.metadata["left_out"][:18]) == ("a", "b.csv: pymchelper ")
    with pytest.raises(SimulationFailed, match=r"cannot be kept: b\.csv: pymchelper"):
        get_simulator("topas").read_files(written[1:], tmp_path, 10)


@pytest.mark.parametrize("number", [-1, 1 << 40])
def test_texts_and_numbers_of_pages_can_be_stored(number, tmp_path):
    pages = [{"quantity": "dose", "values": [1.0]}, {"quantity": "fluence", "values": [2.0]}]
    pages[1] |= {"number": number, "unit": "\1Gy\x1b" + "y" * 100_000}
    write_bdo(tmp_path / "a.bdo", "v1.0.1", 100, CELL, pages)
    (output,) = read_output_files("shieldhit", [tmp_path / "a.bdo"], tmp_path)
    assert [page.number for page in output.pages] == [0, 1]
    assert re.fullmatch("Gyy{1,500}", output.pages[1].unit)
    with (tmp_path / "stored").open("wb") as file:
        task_outputs.write_output(file, TaskOutput(100, (Estimator("a", "a", output.pages),)))
    task_outputs.check_output(tmp_path / "stored", 10_000)


# Wrong decks: each change makes the program refuse its input. The words are the chapter of its manual.


SHIELDHIT_DECKS = [
    ("beam.dat", None, None, "beam.dat"),
    ("mat.dat", None, None, "mat.dat"),
    ("beam.dat", "NSTAT 1000 0", "", "beam.dat, NSTAT"),
    ("beam.dat", "NSTAT 1000", "NSTAT 1e3", "beam.dat, NSTAT"),
    ("beam.dat", "NSTAT 1000", "NSTAT 0", "beam.dat, NSTAT"),
    ("beam.dat", "RNDSEED 1", "RNDSEED 0", "beam.dat, RNDSEED"),
    ("beam.dat", "JPART0 2", "JPART0 25", "beam.dat, HIPROJ"),
    ("beam.dat", "TMAX0 150.0 1.5", "TMAX0 much", "beam.dat, TMAX0"),
    ("beam.dat", "STRAGG 2", "STRAG 2", "beam.dat"),
    ("beam.dat", "STRAGG 2", "STRAGG", "beam.dat, STRAGG"),
    ("mat.dat", "MEDIUM 1", "MEDIUM 2", "mat.dat, MEDIUM"),
    ("mat.dat", "END", "", "mat.dat, END"),
    ("mat.dat", "ICRU 276", 'LOADDEDX "Water.txt"', "mat.dat, LOADDEDX"),
    ("geo.dat", "    0    0 ", "water      ", "geo.dat, title"),
    ("geo.dat", "  RCC    1       0.0       0.0", "  RCC    1 0.0 0.0", "geo.dat, bodies"),
    ("geo.dat", "                 5.5\n", "", "geo.dat, bodies"),
    ("geo.dat", "  RCC    2", "  RCB    2", "geo.dat, bodies"),
    ("geo.dat", "  END\n    1", "    1", "geo.dat, zones"),
    ("geo.dat", "     -2     +3", "      -2    +3", "geo.dat, zones"),
    ("geo.dat", "     +3     -1", "     +4     -1", "geo.dat, zones"),
    ("geo.dat", "    1 1000    0", "    1 1000", "geo.dat, media"),
    ("geo.dat", "    1 1000    0", "    1 1000    7", "geo.dat, media"),
    ("detect.dat", "Geo Depth", "Geo Width", "detect.dat, Output"),
    ("detect.dat", "Quantity Dose", "Quantity Doze", "detect.dat, Quantity"),
    ("detect.dat", "Quantity Dose", "Quantity Dose Protons", "detect.dat, Filter"),
    ("detect.dat", "R 0 5 1", "R 0 5", "detect.dat, Geometry"),
    ("detect.dat", "Filename depth_dose.bdo", "", "detect.dat, Output"),
]
FLUKA_DECKS = [
    ("DEFAULTS  ", "DEFAULT   ", "7 Description"),
    ("BEAM           -0.15 ", "BEAM      \t-0.15", "2.3 Input alignment"),
    ("BEAM           -0.15", "BEAM -0.15          ", "7 Description"),
    ("BEAM           -0.15", "BEAM            0.15", "7 BEAM"),
    ("PROTON\n", "PROTONS\n", "7 BEAM"),
    ("BEAMPOS          0.0       0.0", "BEAMPOS     0.0 0.0           ", "2.3 Input alignment"),
    ("    0    0\n", "", "8.2.1 Geometry title card"),
    ("20.0 5.0\nEND\nBLACK", "20.0 5.0\nBLACK", "8.2"),
    ("RCC water      0.0", "RCC water     ", "8.2.3 Body data"),
    ("WATER        5 +water", "WATER        5 +watr", "8.2.5 Region data"),
    ("END\nGEOEND", "GEOEND", "8.2.5 Region data"),
    ("GEOEND\n", "", "7 GEOEND"),
    ("ASSIGNMA       WATER     WATER\n", "", "7 ASSIGNMAt"),
    ("ASSIGNMA       WATER", "ASSIGNMA       WATTR", "7 ASSIGNMAt"),
    ("     -21.0", "      21.0", "7 USRBIN"),
    ("      DOSE", "     DOSIS", "5 Particle and material codes"),
    ("     400.0&", "       0.0&", "7 USRBIN"),
    ("     400.0&\n", "     400.0\n", "5 Particle|7 USRBIN"),
    ("RANDOMIZ         1.0         1", "RANDOMIZ         1.0    1E+12", "7 RANDOMIZe"),
    ("RANDOMIZ         1.0         1", "RANDOMIZ         1.0  1       ", "2.3 Input alignment"),
    ("START         1000.0\n", "", "7 START"),
    ("STOP\n", "", "7 STOP"),
]
TOPAS_DECKS = [
    ("d:Ge/World/HLZ = 30. cm", "", "Geometry, World"),
    ("30. cm", "30.", "Parameter File Basics, Units"),
    ("30. cm", "30. cmm", "Parameter File Basics, Units"),
    ("i:Ge/Water/ZBins = 400", "i:Ge/Water/ZBins = 400.", "Parameter File Basics, Types"),
    ("i:Ge/Water/ZBins = 400", "Ge/Water/ZBins = 400", "Parameter File Basics"),
    ("i:Ge/Water/ZBins", "i:Gee/Water/ZBins", "Parameter File Basics"),
    ('"G4_WATER"', "G4_WATER", "Parameter File Basics, Types"),
    ('"G4_WATER"', '"Watr"', "Materials"),
    ('s:Ge/Water/Parent = "World"', 's:Ge/Water/Parent = "Word"', "Geometry, Parent"),
    ('s:Ge/Water/Type = "TsBox"', "", "Geometry, Type"),
    ('s:So/Protons/Component = "Start"', 's:So/Protons/Component = "Stop"', "Particle Sources, Component"),
    ('s:So/Protons/Type = "Beam"', "", "Particle Sources"),
    ("i:So/Protons/NumberOfHistoriesInRun = 1000", "", "Particle Sources"),
    ("i:Ts/Seed = 1", "i:Ts/Seed = 1\ni:Ts/Seed = 2", "Parameter File Basics"),
    ("i:Ts/Seed = 1", "includeFile = other.txt", "Parameter File Chains"),
    ('"DoseToMedium"', '"Dose"', "Scoring, Quantity"),
    ('Component = "Water"', 'Component = "Wine"', "Scoring, Component"),
    ('= 1 "Mean"', '= 1 "Average"', "Scoring, Report"),
    ('= 1 "Mean"', '= 2 "Mean"', "Parameter File Basics, Vectors"),
    ("i:Ts/Seed = 1", 'b:Ts/PauseBeforeQuit = "True"', "Overall Control, Pausing"),
    ("i:Ts/Seed = 1", "i:Ts/NumberOfThreads = 0", "Overall Control"),
]
WRONG = [
    *(("shieldhit", *deck) for deck in SHIELDHIT_DECKS),
    *(("fluka", "water.inp", *deck) for deck in FLUKA_DECKS),
    *(("topas", "water.txt", *deck) for deck in TOPAS_DECKS),
]


@pytest.mark.parametrize(("code", "file", "old", "new", "chapter"), WRONG)
def test_the_stand_ins_refuse_what_the_programs_refuse(code, file, old, new, chapter, tmp_path):
    files = dict(SAMPLES[code])
    if old is None:
        del files[file]
    else:
        assert old in files[file]
        files[file] = files[file].replace(old, new, 1)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=rf"\[({chapter})"):
        READERS[code](tmp_path)


# The program of a site.


@pytest.mark.parametrize("code", CODES)
def test_a_program_is_added_after_its_sample_and_tested_again(code, tmp_path, monkeypatch):
    monkeypatch.setenv("YAPTIDE_SIMULATORS_DIR", str(tmp_path / "simulators"))
    program = make_program(tmp_path, code)
    added = CliRunner().invoke(cli.app, ["simulators", "add", code, "--program", str(program)])
    assert added.exit_code == 0, added.output
    done = CliRunner().invoke(cli.app, ["simulators", "test", code, "--json"])
    assert done.exit_code == 0, done.output
    tested = json.loads(done.stdout)
    assert tested["ok"] is True
    assert abs(tested["range_mm"] - tested["expected_mm"]) < tested["tolerance_mm"] == 2.0
    assert tested["version"] in {"v1.0.1-stand-in", "4-3.3", "4.2.p3"}


def test_a_program_with_another_range_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("YAPTIDE_SIMULATORS_DIR", str(tmp_path / "simulators"))
    code, program = get_simulator("shieldhit"), make_program(tmp_path, "shieldhit")
    code.add(tmp_path / "simulators", program, print)
    changed = {**SHIELDHIT, "beam.dat": SHIELDHIT["beam.dat"].replace("150.0", "155.0")}
    monkeypatch.setattr(type(code), "sample", lambda _: changed)
    with pytest.raises(NotConfigured, match=r"the range .* is \d+\.\d mm instead of 157.1 mm"):
        code.add(tmp_path / "others", program, print)
    done = CliRunner().invoke(cli.app, ["simulators", "test", "shieldhit", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (1, False)


def is_open(pipe):
    """Return whether a process has this pipe open."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True


def test_a_sample_that_takes_too_long_is_stopped_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setenv("YAPTIDE_SIMULATORS_DIR", str(tmp_path / "simulators"))
    monkeypatch.setattr(programs, "_TIMEOUT", 0.5)
    program, alive = tmp_path / "rfluka", tmp_path / "alive"
    os.mkfifo(alive)
    program.write_text(f"#!/bin/sh\nsleep 600 3<>{alive} &\nwait\n")
    program.chmod(0o755)
    programs.write_pointer(tmp_path / "simulators", "fluka", Installation(program, "", programs.sha256_of(program)))
    done = CliRunner().invoke(cli.app, ["simulators", "test", "fluka"])
    assert isinstance(done.exception, NotConfigured)
    assert str(done.exception) == "the sample ran for more than 0.5 s and was stopped"
    until(lambda: not is_open(alive), "its child has ended")

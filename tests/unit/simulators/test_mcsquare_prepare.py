"""The input of a task is the checked input, in a form that MCsquare cannot misread."""

import base64
import time

import numpy as np
import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.domain.splitting import split_primaries
from yaptide.simulators.mcsquare import MCsquare, beam_library, config, ct, plan, tables
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.sample import water_sample

POSITION = st.floats(-1e4, 1e4)


@st.composite
def plans(draw):
    spots = st.lists(st.tuples(POSITION, POSITION, st.floats(1e-3, 1e6)), min_size=1, max_size=4).map(tuple)
    setting = st.builds(plan.ShifterSetting, st.sampled_from(["IN", "OUT"]), POSITION, st.floats(0, 100))
    with_shifter = draw(st.booleans())
    points = st.builds(plan.ControlPoint, st.floats(1, 300), spots, setting if with_shifter else st.none())
    fields = st.builds(
        plan.Field,
        gantry=st.floats(-360, 360),
        couch=st.floats(-360, 360),
        isocentre=st.tuples(POSITION, POSITION, POSITION),
        points=st.lists(points, min_size=1, max_size=3).map(tuple),
        shifter=st.just(("RS_1", "binary")) if with_shifter else st.none(),
    )
    return plan.Plan(tuple(draw(st.lists(fields, min_size=1, max_size=3))))


@given(plans())
def test_a_plan_survives_writing_and_reading(some):
    assert plan.parse_plan("plan.txt", plan.format_plan(some)) == some


def test_writing_a_long_plan_takes_a_time_that_grows_with_its_length_only():
    field = plan.Field(0.0, 0.0, (0.0, 0.0, 0.0), (plan.ControlPoint(100.0, ((0.0, 0.0, 0.1),)),) * 40_000)
    begun = time.process_time()
    text = plan.format_plan(plan.Plan((field,)))
    assert time.process_time() - begun < 2
    assert text.count("CumulativeMetersetWeight") == 40_000


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9))
def test_the_cumulative_weight_of_a_control_point_includes_its_own(weights):
    points = tuple(plan.ControlPoint(100.0, ((0.0, 0.0, weight),)) for weight in weights)
    lines = plan.format_plan(plan.Plan((plan.Field(0.0, 0.0, (0.0, 0.0, 0.0), points),))).splitlines()
    items = [float(lines[n + 1]) for n, line in enumerate(lines) if line == "####CumulativeMetersetWeight"]
    assert items == [sum(weights[: n + 1]) for n in range(len(weights))]


ROWS = st.lists(
    st.tuples(st.floats(-1e4, 1e4), st.floats(1e-3, 50)), min_size=2, max_size=6, unique_by=lambda row: row[0]
)


@given(ROWS)
def test_a_table_survives_writing_and_reading(rows):
    table = tables.Table(tuple(sorted(rows)))
    assert tables.parse_densities("HU", tables.format_table(table)) == table


def test_a_beam_data_library_survives_writing_and_reading():
    shifter = beam_library.RangeShifter("RS", "analog", 64, 1.2, 74.1)
    library = beam_library.BDL(
        (400.0, 2000.0, 1900.5), (shifter,), beam_library.parse_bdl("BDL.txt", water_sample()["BDL.txt"]).rows
    )
    assert beam_library.parse_bdl("BDL.txt", beam_library.format_bdl(library)) == library


EDGE = st.integers(0, 12)


@given(st.lists(st.tuples(EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, st.integers(-1000, 3000)), max_size=4))
def test_boxes_fill_the_voxels_whose_centres_they_hold(boxes):
    shape, spacing = (4, 5, 6), (2.5, 2.0, 1.5)
    lines = [f"grid {shape[0]} {shape[1]} {shape[2]}", "spacing 2.5 2 1.5", "fill 7"]
    lines += ["box " + " ".join(map(str, box)) for box in boxes]
    x, y, z = (spacing[axis] * (np.arange(shape[axis]) + 0.5) for axis in range(3))
    expected, empty = np.full(shape[::-1], 7.0), False
    for x0, x1, y0, y1, z0, z1, hu in boxes:
        inside = np.ix_((z0 <= z) & (z < z1), (y0 <= y) & (y < y1), (x0 <= x) & (x < x1))
        empty |= not expected[inside].size
        expected[inside] = hu
    if empty:
        with pytest.raises(InvalidInput, match="contains no voxel"):
            ct.make_ct("ct.txt", "\n".join(lines))
    else:
        assert np.array_equal(ct.make_ct("ct.txt", "\n".join(lines)).hu, expected)


@given(st.lists(st.sampled_from([-1000.0, 0.0, 10.0, 12345.5]), min_size=60, max_size=60), st.booleans())
def test_a_ct_survives_its_description_row_by_row(values, extruded):
    hu = np.array(values, dtype=np.float32).reshape(5, 4, 3)
    if extruded:
        hu = np.repeat(hu[:1], 5, axis=0)
    given = ct.CT(Grid((3, 4, 5), (0.1, 2.5, 1 / 3)), hu)
    text = ct.format_ct(given)
    result = ct.make_ct("ct.txt", text)
    assert result.grid == given.grid
    assert np.array_equal(result.hu, given.hu)
    assert not extruded or text.count("slices") == 1


def test_what_comes_later_in_a_description_wins():
    text = "grid 3 2 2\nspacing 1 1 1\nslices 0 1\nrows 0 1 3*5\nbox 0 1 0 1 0 1 7\nslices 1 1\nrows 1 1 8 2*9\n"
    hu = ct.make_ct("ct.txt", text).hu
    assert hu.tolist() == [[[7, 5, 5], [5, 5, 5]], [[5, 5, 5], [8, 9, 9]]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spacing 1 1 1", "the line grid is missing"),
        ("grid 2 2 2", "the line spacing is missing"),
        ("grid 2 2\nspacing 1 1 1", "ct.txt, line 1: three numbers"),
        ("grid 301 300 300\nspacing 1 1 1", "exceed the limit of 27000000"),
        ("grid 2 2 2\nspacing 1 -1 1", "line 2: The spacing"),
        ("grid 2 2 2\nspacing 1 1 1\nfill", "line 3: fill needs one HU"),
        (
            "grid 2 2 2\nspacing 1 1 1\n\nball 1 2 3",
            "line 4: a line must begin with grid, spacing, fill, box, slices, rows, not 'ball'",
        ),
        ("grid 2 2 2\nspacing 1 1 1\ngrid 3 3 3", "line 3: grid is repeated, after line 1"),
        ("grid 2 2 2\nspacing 1 1 1\nbox 0 1 0 1 0 1", "line 3: box needs"),
        ("grid 2 2 2\nspacing 1 1 1\nbox 0 1 0 1 5 9 0", "contains no voxel along z"),
        ("grid 2 2 2\nspacing 1 1 1\nbox 0 1e300 0 1 0 -1e300 0", "contains no voxel along z"),
        ("grid 2 2 2\nspacing 1 1 1\nfill nan", "must be a number"),
        ("grid 2 2 2\nspacing 1 1 1\n" + "box 0 1 0 1 0 1 0\n" * 1001, "line 1003: more than 1000 boxes"),
        ("grid 2 2 2\nspacing 1 1 1\nrows 0 1 2*0", "line 3: a line with slices must come first"),
        ("grid 2 2 2\nspacing 1 1 1\nslices 0 2", "line 3: The last of the slices must be between 0 and 1"),
        ("grid 2 2 2\nspacing 1 1 1\nslices 0 1\nrows 1 0 2*0", "line 4: The last of the rows must be between 1 and 1"),
        ("grid 2 2 2\nspacing 1 1 1\nslices 0 1\nrows 0 0 1*0 2*5", "line 4: a row has 2 voxels, not 3"),
        ("grid 2 2 2\nspacing 1 1 1\nslices 0 1\nrows 0 0", "line 4: a row has 2 voxels, not 0"),
        ("grid 2 2 2\nspacing 1 1 1\nslices 0 1\nrows 0 0 two*5", "line 4: The number of voxels must be a number"),
        ("grid 2 2 2\nspacing 1 1 1\nslices 0 1\nrows 0 0 2*", "line 4: The HU must be a number, not ''"),
    ],
)
def test_a_wrong_description_is_refused_with_its_line(text, words):
    with pytest.raises(InvalidInput) as caught:
        ct.make_ct("ct.txt", text)
    assert words in str(caught.value)


def test_boxes_that_fill_a_large_grid_over_and_over_are_refused():
    """A client waits for the check, which took seconds, and anyone can send the next one."""
    whole = "grid 300 300 300\nspacing 1 1 1\n" + "box 0 300 0 300 0 300 5\n" * 1000
    with pytest.raises(InvalidInput, match=r"line 23: .* as an image"):
        ct.make_ct("ct.txt", whole)


def test_a_task_gets_its_own_primaries_and_seed_and_one_thread(tmp_path):
    files = water_sample()
    files["config.txt"] += "Num_Threads 8\nD_Max 0.1\nSimulate_Nuclear_Interactions no\nOutput_Directory elsewhere\n"
    MCsquare().prepare(files, 320, 77, tmp_path)
    settings = dict(line.split() for line in (tmp_path / "config.txt").read_text().splitlines())
    assert settings["Num_Primaries"] == "320"
    assert settings["RNG_Seed"] == "77"
    assert settings["Num_Threads"] == "1"
    assert settings["Output_Directory"] == "Outputs"
    assert settings["D_Max"] == "0.1"
    assert settings["Simulate_Nuclear_Interactions"] == "False"


def test_a_prepared_folder_is_a_valid_input_itself(tmp_path):
    files = water_sample()
    files["ct.txt"] += "box 0 120 150 200 0 120 -1000\n"
    MCsquare().prepare({name: text.replace("\n", "\r\n") for name, text in files.items()}, 320, 77, tmp_path)
    raw = (tmp_path / "ct.raw").read_bytes()
    again = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "ct.raw"}
    again["ct.raw.base64"] = base64.b64encode(raw).decode()
    assert MCsquare().check(again).primaries == 320
    assert all("\r" not in text for text in again.values())
    hu = np.frombuffer(raw, "<f4").reshape(60, 200, 60)
    assert np.all(hu[:, 150:] == -1000)
    assert np.all(hu[:, :150] == 0)


def test_the_dose_is_scored_even_if_it_is_switched_off():
    text = water_sample()["config.txt"].replace("Dose_MHD_Output True", "Dose_MHD_Output False")
    assert config.parse_config(text.replace("LET_MHD_Output True", "LET_MHD_Output 0")).quantities == ("Dose", "Energy")


@given(st.integers(10, 10**12), st.integers(1, 100))
def test_what_is_split_is_what_is_simulated(asked, tasks):
    total = config.simulated_primaries(asked)
    parts = split_primaries(total, tasks, config.QUANTUM)
    assert sum(parts) == total >= asked - 9
    assert [config.simulated_primaries(part) for part in parts] == parts

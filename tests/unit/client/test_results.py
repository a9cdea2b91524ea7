"""Results as tables and files: everything can be read back, whatever it is called and however much of it is unknown."""

import csv
import io
import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from yaptide.client import Results
from yaptide.domain.errors import NotFound
from yaptide.domain.estimators import Axis, Estimator, Page

DOCUMENT = Path(__file__).parents[3] / "docs/results.md"
SIZES = (2, 3, 2, 2, 2)


def a_page(number=0, dimension=1, values=None, errors=None, names=None, metadata=None):
    """A page whose value at indices i, j, k, ... is i + 10 j + 100 k ..."""
    sizes = SIZES[:dimension]
    names = names or [f"a{n}" for n in range(1, dimension + 1)]
    axes = tuple(
        Axis(name, unit, np.arange(size) + 0.5 * n)
        for n, (name, unit, size) in enumerate(zip(names, ("cm", "mm", "MeV", "", "s"), sizes, strict=False))
    )
    if values is None:
        values = np.array([sum(10**n * i for n, i in enumerate(place)) for place in places(sizes)], dtype=np.float64)
    return Page(number, f"q{number}", "MeV/g", axes, values, errors, metadata=metadata or {})


def places(sizes):
    """Indices of values, the first fastest."""
    return [tuple(reversed(place)) for place in product(*(range(size) for size in reversed(sizes)))]


def results(*pages, name="dose"):
    return Results((Estimator(name, name, pages),))


def table(result):
    text = io.StringIO()
    result.write_csv(text)
    return list(csv.DictReader(io.StringIO(text.getvalue()), restkey="too many", restval="too few"))


def archive(result, path):
    result.save_npz(path)
    with np.load(path) as file:
        return json.loads(str(file["index"])), dict(file)


EVERY = results(*(a_page(dimension, dimension) for dimension in range(6)))
ODD = results(
    a_page(0, values=np.array([np.nan, 1.5]), errors=np.array([np.nan, 0.25])),
    a_page(1, values=np.array([2**53 + 1, -(2**63)])),
    a_page(2, values=np.array([np.inf, -np.inf]), errors=np.array([0.5, np.inf])),
)


# --- CSV


@pytest.mark.parametrize("name", ['=HYPERLINK("http://example.org")', "+1+1", "@SUM(A1)", "-2+3", "\t=1"])
def test_a_name_is_nothing_to_calculate(name):
    (row, *_) = table(results(a_page(names=[name]), name=name))
    assert (row["estimator"], row["axis1_name"]) == (f"'{name}", f"'{name}")


@pytest.mark.parametrize("name", ["-", "+", "a=b", "Dose", "", "two\nlines"])
def test_other_names_stay_as_they_are(name):
    (row, *_) = table(results(a_page(names=[name]), name=name))
    assert (row["estimator"], row["axis1_name"]) == (name, name)


def test_a_page_of_any_dimension_has_a_cell_for_each_heading():
    rows = table(EVERY)
    assert list(rows[0]) == [
        *("estimator", "page", "quantity", "unit"),
        *(column for n in range(1, 6) for column in (f"axis{n}_name", f"axis{n}_unit", f"axis{n}")),
        *("value", "error"),
    ]
    for dimension in range(6):
        own = [row for row in rows if row["page"] == str(dimension)]
        assert {(row["estimator"], row["quantity"], row["unit"]) for row in own} == {("dose", f"q{dimension}", "MeV/g")}
        for row, place in zip(own, places(SIZES[:dimension]), strict=True):
            cells = [row[f"axis{n}"] for n in range(1, 6)]
            assert cells[dimension:] == [""] * (5 - dimension)
            assert list(map(float, cells[:dimension])) == [i + 0.5 * n for n, i in enumerate(place)]
            assert float(row["value"]) == sum(10**n * i for n, i in enumerate(place))
    last = rows[-1]
    assert [last[f"axis{n}_name"] for n in range(1, 6)] == ["a1", "a2", "a3", "a4", "a5"]
    assert [last[f"axis{n}_unit"] for n in range(1, 6)] == ["cm", "mm", "MeV", "", "s"]
    assert {row["axis1_name"] for row in rows if row["page"] == "0"} == {""}


def test_there_are_the_columns_of_the_axes_that_there_are():
    assert [len(table(results(a_page(0, dimension)))[0]) for dimension in range(6)] == [6, 9, 12, 15, 18, 21]
    assert table(Results(())) == []


def test_what_is_unknown_is_an_empty_cell_and_integers_are_whole():
    rows = [(row["value"], row["error"]) for row in table(ODD)]
    assert rows == [
        *[("", ""), ("1.5", "0.25")],
        *[("9007199254740993", ""), ("-9223372036854775808", "")],
        *[("", "0.5"), ("", "")],
    ]


def test_a_list_of_particles_keeps_its_order():
    numbers = np.array([2212.0, 0.25, 2112.0, 0.5])
    assert [float(row["value"]) for row in table(results(a_page(0, 0, numbers)))] == numbers.tolist()


# --- NPZ


def test_names_units_and_axes_are_read_back_without_pickles(tmp_path):
    errors = np.arange(12.0)
    known = {"simulator": "ż"}
    page = a_page(7, 3, errors=errors, names=["Position (Y)", "", "z"], metadata=known)
    index, arrays = archive(Results((Estimator("a/b ż", "f", (page,), known),)), tmp_path / "no-ending")
    assert index == {
        "layout": 1,
        "estimators": [
            {
                "name": "a/b ż",
                "metadata": known,
                "pages": [
                    {
                        "number": 7,
                        "name": "q7",
                        "unit": "MeV/g",
                        "values": "e0_p0_values",
                        "errors": "e0_p0_errors",
                        "axes": [
                            {"name": "Position (Y)", "unit": "cm", "values": "e0_p0_axis1"},
                            {"name": "", "unit": "mm", "values": "e0_p0_axis2"},
                            {"name": "z", "unit": "MeV", "values": "e0_p0_axis3"},
                        ],
                        "metadata": known,
                    }
                ],
            }
        ],
    }
    assert arrays["e0_p0_values"].shape == arrays["e0_p0_errors"].shape == (2, 3, 2)
    assert arrays["e0_p0_values"][1, 2, 1] == 121
    assert arrays["e0_p0_errors"].ravel(order="F").tolist() == errors.tolist()
    assert arrays["e0_p0_axis2"].tolist() == [0.5, 1.5, 2.5]


def test_no_two_arrays_share_a_key_whatever_their_names(tmp_path):
    pages = [(a_page(0, 1, np.array([1.0, 0.0])),), (a_page(0, 1, np.array([2.0, 0.0])),)]
    loaded = Results((Estimator("a b", "a b", pages[0]), Estimator("a-b", "a-b", pages[1])))
    index, arrays = archive(loaded, tmp_path / "a.npz")
    read = {e["name"]: arrays[e["pages"][0]["values"]][0] for e in index["estimators"]}
    assert read == {"a b": 1, "a-b": 2}


def test_a_file_of_every_dimension(tmp_path):
    index, arrays = archive(EVERY, tmp_path / "a.npz")
    shapes = [arrays[page["values"]].shape for page in index["estimators"][0]["pages"]]
    assert shapes == [SIZES[:dimension] for dimension in range(6)]
    assert arrays["e0_p5_values"][1, 2, 0, 1, 1] == 11021
    assert {page["errors"] for page in index["estimators"][0]["pages"]} == {None}


def test_unknown_values_and_large_integers_stay_what_they_are(tmp_path):
    _, arrays = archive(ODD, tmp_path / "a.npz")
    assert np.isnan(arrays["e0_p0_values"]).tolist() == np.isnan(arrays["e0_p0_errors"]).tolist() == [True, False]
    assert arrays["e0_p1_values"].tolist() == [2**53 + 1, -(2**63)]


def test_the_documented_lines_read_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    EVERY.save_npz(tmp_path / "results.npz")
    *_, snippet = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec(snippet, {})  # noqa: S102 - it is ours
    said = capsys.readouterr().out
    assert "dose 3 q3 MeV/g (2, 3, 2)\n  along a1 cm [0. 1.]\n  along a2 mm [0.5 1.5 2.5]\n" in said


# --- pandas and xarray


def test_a_data_frame_is_the_csv():
    for result in (EVERY, ODD, results(a_page(0, 0))):
        rows, frame = table(result), result.to_pandas()
        assert list(frame.columns) == list(rows[0])
        assert len(frame) == len(rows)
        for column in frame.columns:
            read = [row[column] for row in rows]
            if frame[column].dtype.name == "category":
                assert frame[column].tolist() == read
            else:
                numbers = [float(cell) if cell else np.nan for cell in read]
                finite = frame[column].where(np.isfinite(frame[column].astype(float)))
                assert np.array_equal(finite.astype(float), numbers, equal_nan=True)
    assert len(Results(()).to_pandas()) == 0


def test_a_data_frame_of_integers_keeps_their_digits():
    frame = results(ODD.estimators[0].pages[1]).to_pandas()
    assert frame["value"].tolist() == [2**53 + 1, -(2**63)]


def test_a_data_set_knows_its_axes_units_and_errors():
    page = a_page(3, 2, errors=np.arange(6.0), names=["Position (Y)", "Position (Z)"])
    loaded = results(page).to_xarray()["dose", 3]
    assert loaded["value"].dims == ("Position (Y)", "Position (Z)")
    assert loaded["value"].sel({"Position (Y)": 1.0, "Position (Z)": 2.5}).item() == 21
    assert loaded["error"].values.ravel(order="F").tolist() == page.errors.tolist()
    assert loaded["value"].attrs["units"] == loaded["error"].attrs["units"] == "MeV/g"
    assert [loaded[name].attrs["units"] for name in loaded["value"].dims] == ["cm", "mm"]
    assert (loaded.attrs["estimator"], loaded.attrs["page"], loaded.attrs["quantity"]) == ("dose", 3, "q3")


@pytest.mark.parametrize("names", [["x", "x"], ["", "y"], ["value", "y"]])
def test_axes_without_names_of_their_own_are_numbered(names):
    loaded = results(a_page(0, 2, names=names)).to_xarray()["dose", 0]
    assert loaded["value"].dims == ("axis1", "axis2")
    assert [loaded[name].attrs["long_name"] for name in ("axis1", "axis2")] == names


def test_data_sets_of_every_dimension_and_of_what_is_unknown():
    sets = EVERY.to_xarray()
    assert [sets["dose", dimension]["value"].shape for dimension in range(6)] == [SIZES[:n] for n in range(6)]
    assert "error" not in sets["dose", 0]
    assert np.isnan(ODD.to_xarray()["dose", 0]["value"].values).tolist() == [True, False]
    particles = results(a_page(0, 0, np.arange(4.0))).to_xarray()["dose", 0]
    assert particles["value"].values.tolist() == [0, 1, 2, 3]


# --- what the server sends


def sent(values, **data):
    axis = {"name": "z", "unit": "cm", "values": [0.5, 1.5]}
    return {"dimensions": 1, "data": {"name": "q", "unit": "1", "values": values, **data}, "axis_dim1": axis}


def test_a_page_that_cannot_be_read_is_left_out_alone():
    pages = [sent([1, 2]), sent([1, 2, 3]), sent(["a", "b"]), {}, sent([3, 4])]
    loaded = Results.from_document({"estimators": [{"name": "e", "pages": pages}]})
    assert [page.values.tolist() for page in loaded.estimators[0].pages] == [[1, 2], [3, 4]]
    assert len(loaded.left_out) == 3
    assert loaded.left_out[0] == "e, page 1 of the response: it has 3 values, but 2 points on its axes"


def test_a_grid_that_came_as_an_address_is_left_out_with_what_to_ask_for():
    address = {"dimensions": 3, "results_url": "/results?values=1", "metadata": {"page_number": "1", "name": "q"}}
    loaded = Results.from_document({"pages": [sent([1, 2]), address]}, "e")
    assert [page.values.tolist() for page in loaded.estimators[0].pages] == [[1, 2]]
    assert loaded.left_out == (
        "e, page 1 of the response: the response does not include its values; request them with values=1",
    )


def test_errors_of_another_length_are_not_known():
    loaded = Results.from_document({"estimators": [{"name": "e", "pages": [sent([1, 2], errors=[0.1])]}]})
    assert loaded.page("e", 0).errors is None


def test_pages_without_a_number_are_counted():
    loaded = Results.from_document({"estimators": [{"name": "e", "pages": [sent([1, 2]), sent([3, 4])]}]})
    assert loaded.page("e", 1).values.tolist() == [3, 4]


# --- ranges


def curve(name, **changes):
    given = {"axis": "Z", "unit": "cm", "doses": [1.0, 5.0, 4.0], "metadata": {}} | changes
    axis = Axis(given["axis"], given["unit"], np.array([0.5, 1.5, 2.5]))
    return Page(0, name, "Gy", (axis,), np.array(given["doses"]), metadata=given["metadata"])


def test_the_first_curve_with_a_range_is_taken():
    lateral, rising, good, other = (
        curve("lateral", axis="X"),
        curve("rising", doses=[1.0, 2.0, 3.0]),
        curve("good"),
        curve("other", unit="mm"),
    )
    loaded = results(lateral, rising, good, other)
    assert loaded.depth_curve() is good
    assert (loaded.find_range().depth_mm, loaded.bragg_peak()) == (15, (15, 25))
    assert results(lateral, rising).depth_curve() is rising


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ([curve("lateral", axis="Position (X)")], "no page with one axis along the beam scores dose"),
        ([a_page(0, 2)], "no page with one axis along the beam scores dose"),
        ([curve("q", unit="furlong")], "unknown unit of length 'furlong' for depths"),
        ([curve("q", doses=[1.0, 2.0, 3.0])], "The depth-dose curve has no peak with a distal fall-off"),
        ([curve("q", metadata={"no_range": "2 fields"}), curve("q", doses=[0.0] * 3)], "2 fields"),
    ],
)
def test_without_a_range_the_reason_is_told(pages, reason):
    loaded = results(*pages)
    with pytest.raises(NotFound, match=re.escape(reason)):
        loaded.find_range()
    assert loaded.bragg_peak() is None

"""Incoming pages: their errors, and the form in which they are stored."""

import json

import numpy as np
import pytest

from tests.support.payloads import page, with_hidden_numbers
from yaptide.domain.errors import InvalidInput
from yaptide.services import pages
from yaptide.services.large_json import slim_json

#: So many numbers that `slim` leaves them out, wherever they stand.
MANY = [number / 7 for number in range(20_000)]


def check(document, position=0, order="F", taken=()):
    """Check a page as pages of any size are checked: without its long lists."""
    body = slim_json([json.dumps(document).encode()])
    return pages.check_page(body.text, body, position, order, taken)


def anew(document, folder, order="F"):
    """The page in the form that is stored."""
    text = json.dumps(document).encode()
    body = slim_json([text])
    read = lambda start, length: text[start : start + length]  # noqa: E731
    return json.loads(b"".join(pages.write_anew(body.text, body, read, order, folder)))


def data(*values, **more):
    return {"name": "q", "unit": "Gy", "values": list(values)} | more


def test_a_page_that_can_be_kept_as_it_came():
    checked = check(page(7, "LET"))
    assert (checked.number, checked.name, checked.dimension, checked.written_anew) == (7, "LET", 1, False)
    assert check(page(0, values=MANY)).written_anew is False


def test_without_a_number_it_has_that_of_its_place():
    assert check(page() | {"metadata": {}}, position=5).number == 5
    assert check(page() | {"metadata": {}}, position=5).name == "DOSE"


@pytest.mark.parametrize("number", [-1, "x", "", "1.0", "1" * 10, "\u0663", None])
def test_what_is_no_number_of_a_page(number):
    spoilt = page() | {"metadata": {"page_number": number}}
    with pytest.raises(InvalidInput, match="is not a page number"):
        check(spoilt)
    assert pages.number_of(json.dumps(spoilt).encode(), 3) == 3


def test_the_largest_number_of_a_page():
    assert check(page() | {"metadata": {"page_number": "9" * 9}}).number == 999_999_999


def test_a_number_that_is_taken():
    with pytest.raises(InvalidInput, match="another page with this number"):
        check(page(3), taken={3})


@pytest.mark.parametrize(
    "spoilt",
    [
        page(values=()),
        page() | {"data": data(), "axis_dim1": {"values": []}},
        page() | {"dimensions": 0, "data": data()},
        page() | {"data": data([]), "axis_dim1": {"values": []}},
    ],
    ids=["no values", "as many as its axis has", "a single one that is missing", "rows of nothing"],
)
def test_a_page_without_values_is_none(spoilt):
    """As from a scorer without any particle; such a page cannot be displayed."""
    with pytest.raises(InvalidInput, match="it has 0 values"):
        check(spoilt)


def test_a_list_of_particles_without_axes_may_have_any_length():
    metadata = {"aggregation": "concatenate"}
    for rows in ([1.0], MANY, [[1.0, 2.0], [3.0, 4.0]]):
        assert check({"dimensions": 0, "data": data(*rows), "metadata": metadata})
    with pytest.raises(InvalidInput, match="it has 0 values"):
        check({"dimensions": 0, "data": data(), "metadata": metadata})


@pytest.mark.parametrize("name", ["", "x" * 501, "a\0b"], ids=["nothing", "long", "zero"])
@pytest.mark.parametrize("place", ["data", "metadata"])
def test_what_is_no_name(name, place):
    named = page()
    del named["metadata"]["name"]
    named[place]["name"] = name
    with pytest.raises(InvalidInput, match="the name must have 1 to 500 characters"):
        check(named)


def test_a_run_of_numbers_is_no_name_though_little_is_left_of_it():
    """What stands for the numbers that were left out would be stored for a name."""

    def make(padding, name):
        return json.dumps({"padding": padding} | page() | {"metadata": {"name": name}}).encode()

    text = with_hidden_numbers(make)
    body = slim_json([text])
    assert len(body.text) < len(text) - 60_000
    with pytest.raises(InvalidInput, match="the name must have 1 to 500 characters"):
        pages.check_page(body.text, body, 0, "F")


def test_a_few_numbers_are_a_name():
    assert check(page(0, "1.5,2.5")).name == "1.5,2.5"


@pytest.mark.parametrize("number", [2**53 - 1, 10**15, 9 * 10**15])
def test_large_numbers_are_not_taken_for_what_stands_for_others(number):
    """Two numbers stand for a piece that is left out: a mark of 16 digits, drawn each time, and which piece it is."""
    values = [*MANY, float(number), 0.0, *MANY]
    document = page(0, values=values)
    text = json.dumps(document).encode()
    body = slim_json([text])
    assert len(body.text) < len(text) / 2
    assert check(document).written_anew is False
    short = page(0, values=(float(number), 0.0, 1.0))
    assert check({**short, "axis_dim1": {"values": [number, 0, 1]}}).written_anew is False


def test_where_the_last_axis_is_the_fastest_it_is_written_anew(tmp_path):
    shape = (3, 2)
    grid = page(values=tuple(map(float, range(6)))) | {"dimensions": 2}
    for number, size in enumerate(shape, 1):
        grid[f"axis_dim{number}"] = {"values": list(range(size))}
    grid["data"]["errors"] = [None, *map(float, range(5))]
    assert check(grid).written_anew is False
    assert check(grid, order="C").written_anew is True
    written = anew(grid, tmp_path, "C")["data"]
    assert written["values"] == np.arange(6.0).reshape(shape).ravel(order="F").tolist()
    assert written["errors"] == [None, 1, 3, 0, 2, 4]
    assert check(page(), order="C").written_anew is False, "one axis is in any order"


def test_values_that_do_not_exist_are_named(tmp_path):
    holed = page(values=(None, *MANY, None))
    assert check(holed).written_anew is True
    written = anew(holed, tmp_path)["data"]
    assert written["missing"] == [[0, 0], [20_001, 20_001]]
    assert written["values"] == [0.0, *MANY, 0.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dimensions": 6}, "it has 6 dimensions, but must have 0 to 5"),
        ({"dimensions": -1}, "it has -1 dimensions"),
        ({"dimensions": 2}, "not as many axes"),
        ({"axis_dim1": {"values": [0.5, None, 2.5]}}, "an axis has values that are not numbers"),
        ({"data": data(1, 2)}, "it has 2 values, but its axes need 3"),
        ({"data": data(1, 2, 3, errors=[1, 2])}, "it has 3 values and 2 errors"),
        ({"data": data(1, 2, 3, missing=[[2, 3]])}, "lists values that do not exist"),
        ({"data": data(1, 2, 3, missing=[[-1, 0]])}, "lists values that do not exist"),
        ({"data": data(1, 2, 3, missing=[[1, 0]])}, "lists values that do not exist"),
        ({"data": data([1], [2, 3])}, "its rows differ in length"),
        ({"metadata": {"aggregation": "guess"}}, "aggregation: "),
    ],
)
def test_what_does_not_fit_together(change, reason):
    with pytest.raises(InvalidInput, match=reason):
        check(page() | change)

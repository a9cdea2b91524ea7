"""Pages with values that JSON cannot express, and invalid pages."""

import math

import pytest

from yaptide.domain.estimators import RefusedPage, TaskOutput, has_missing_values, refused_metadata, with_missing_named


def page(*values, unit="Gy", **changes):
    return {"data": {"name": "Dose", "unit": unit, "values": list(values)}} | changes


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_a_page_with_a_value_that_does_not_exist(missing):
    assert has_missing_values(page(1.0, missing, 2))
    assert has_missing_values(page(missing))


@pytest.mark.parametrize(
    "document",
    [
        page(1.0, 2, 0),
        page(1.0, None, "2"),
        page(None, [1.0]),
        page(),
        {"data": {"values": None}},
        {"data": {"values": "NaN"}},
        {"data": {"values": {"a": None}}},
        {"data": [None]},
        {"data": None},
        {},
        [None],
        None,
    ],
)
def test_what_is_no_such_page(document):
    assert has_missing_values(document) is False


def test_a_zero_is_put_in_the_place_of_each_and_its_place_named():
    before = page(math.nan, None, 1.5, math.inf, -2, metadata={"page_number": "3"})
    result = with_missing_named(before)
    assert result["data"] == {
        "name": "Dose",
        "unit": "Gy",
        "values": [0.0, 0.0, 1.5, 0.0, -2],
        "missing": [[0, 1], [3, 3]],
    }
    assert result["metadata"] == {"page_number": "3"}
    assert math.isnan(before["data"]["values"][0]), "the page itself stays as it is"
    assert "missing" not in before["data"]


@pytest.mark.parametrize(
    ("before", "metadata"),
    [
        (page(None, math.nan), {"unit": "Gy"}),
        (page(None, metadata={"page_number": "3"}), {"unit": "Gy", "page_number": "3"}),
        (page(None, metadata={"unit": "mGy"}), {"unit": "mGy"}),
        (page(None, metadata=[1]), {"unit": "Gy"}),
        ({"data": {"values": [None]}}, {"unit": ""}),
    ],
)
def test_a_page_without_any_value_says_so_and_keeps_its_unit(before, metadata):
    result = with_missing_named(before)
    assert result["data"]["unit"] == "(no value)"
    assert set(result["data"]["values"]) == {0.0}
    assert result["metadata"] == metadata


def test_a_refused_page_is_named_in_one_line():
    assert str(RefusedPage("dose", 0, "it has no values")) == "page 0 of estimator 'dose': it has no values"
    assert str(RefusedPage("dose", None, "it has no pages")) == "estimator 'dose': it has no pages"


def test_the_metadata_of_an_estimator_tell_which_pages_were_refused():
    assert refused_metadata([]) == {}
    refused = [RefusedPage("dose", 3, "no"), RefusedPage("dose", None, "nothing")]
    expected = [{"page": 3, "reason": "no"}, {"page": None, "reason": "nothing"}]
    assert refused_metadata(refused) == {"refused_pages": expected}


def test_what_a_task_leaves_stays_as_it_was():
    output = TaskOutput(10, ())
    assert (output.primaries, output.estimators, output.logs) == (10, (), {})
    with pytest.raises(AttributeError):
        output.primaries = 5

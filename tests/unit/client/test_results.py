"""Results as the client reads them, and the range that they tell."""

import re

import numpy as np
import pytest

from yaptide.client import Results
from yaptide.domain.errors import NotFound
from yaptide.domain.estimators import Axis, Estimator, Page


def results(*pages, name="dose"):
    return Results((Estimator(name, name, pages),))


# --- what the server sends


def sent(values, **data):
    axis = {"name": "z", "unit": "cm", "values": [0.5, 1.5]}
    return {"dimensions": 1, "data": {"name": "q", "unit": "1", "values": values, **data}, "axis_dim1": axis}


def test_a_page_that_cannot_be_read_is_left_out_alone():
    pages = [sent([1, 2]), sent([1, 2, 3]), sent(["a", "b"]), {}, sent([3, 4])]
    found = Results.from_document({"estimators": [{"name": "e", "pages": pages}]})
    assert [page.values.tolist() for page in found.estimators[0].pages] == [[1, 2], [3, 4]]
    assert len(found.left_out) == 3
    assert found.left_out[0] == "e, page 1 of those sent: it has 3 values, its axes ask for 2"


def test_errors_of_another_length_are_not_known():
    found = Results.from_document({"estimators": [{"name": "e", "pages": [sent([1, 2], errors=[0.1])]}]})
    assert found.page("e", 0).errors is None


def test_pages_without_a_number_are_counted():
    found = Results.from_document({"estimators": [{"name": "e", "pages": [sent([1, 2]), sent([3, 4])]}]})
    assert found.page("e", 1).values.tolist() == [3, 4]


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
    found = results(lateral, rising, good, other)
    assert found.depth_curve() is good
    assert (found.find_range().depth_mm, found.bragg_peak()) == (15, (15, 25))
    assert results(lateral, rising).depth_curve() is rising


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ([curve("lateral", axis="Position (X)")], "no page with one axis along the beam scores dose"),
        ([Page(0, "Dose", "Gy", (), np.ones(1))], "no page with one axis along the beam scores dose"),
        ([curve("q", unit="furlong")], "the depths have the unit 'furlong', which is no known unit of length"),
        ([curve("q", doses=[1.0, 2.0, 3.0])], "The depth-dose curve has no peak with a distal fall-off"),
        ([curve("q", metadata={"no_range": "2 fields"}), curve("q", doses=[0.0] * 3)], "2 fields"),
    ],
)
def test_without_a_range_the_reason_is_told(pages, reason):
    found = results(*pages)
    with pytest.raises(NotFound, match=re.escape(reason)):
        found.find_range()
    assert found.bragg_peak() is None

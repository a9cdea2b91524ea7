"""Answers as the client reads them: the same numbers, bit by bit, whether as arrays or as JSON."""

import json
import math

import httpx
import numpy as np
import orjson
import pytest

from yaptide.domain.errors import NotFound, Unavailable
from yaptide_client import answers
from yaptide_client.results import Results

VALUES = [0.1, 1 / 3, -0.0, 5e-324, math.nextafter(1, 2), 1.7976931348623157e308, 1e22, 3, -7, 2**63]


def answered(content, status=200):
    text = content if isinstance(content, bytes) else orjson.dumps(content)
    return httpx.Response(status, content=text, request=httpx.Request("GET", "http://localhost/results"))


def page(**data):
    axis = {"name": "x", "unit": "mm", "values": list(range(len(VALUES)))}
    data = {"name": "dose", "unit": "Gy", "values": VALUES, **data}
    metadata = {"page_number": "0", "name": "dose", "unit": "Gy"}
    return {"dimensions": 1, "data": data, "axis_dim1": axis, "metadata": metadata}


def test_arrays_have_every_bit():
    document = {"message": "Results", "estimators": [{"name": "e", "metadata": {"a": "ż"}, "pages": [page(), page()]}]}
    results = answers.read_results_document(answered(document))
    values = results["estimators"][0]["pages"][1]["data"]["values"]
    assert values.tobytes() == np.array(VALUES, dtype=np.float64).tobytes()
    read = Results.from_document(results).estimators[0]
    assert read.metadata == {"a": "ż"}
    assert read.pages[0].values.flags.writeable
    assert read.pages[0].axes[0].values.tolist() == list(range(len(VALUES)))


@pytest.mark.parametrize("values", [[1, 2**53 + 1, -(2**63)], [2**63, 2**64 - 1]])
def test_integers_keep_every_digit_however_they_are_read(values):
    document = {"estimators": [{"name": "e", "pages": [counts(values)]}]}
    for read in (document, answers.read_results_document(answered(document))):
        [page] = Results.from_document(read).estimators[0].pages
        assert page.values.tolist() == values
        assert page.axes[0].values.dtype == np.float64


def counts(values):
    axis = {"name": "x", "unit": "mm", "values": list(range(len(values)))}
    return {"dimensions": 1, "data": {"name": "n", "unit": "", "values": values}, "axis_dim1": axis}


@pytest.mark.parametrize("values", [[1, 2.5], [0, 0, 0.1], [-1, 2**64 - 1], [10**30, 1]])
def test_other_numbers_are_doubles(values):
    document = {"estimators": [{"name": "e", "pages": [counts(values)]}]}
    text = json.dumps(document).encode()
    [page] = Results.from_document(answers.read_results_document(answered(text))).estimators[0].pages
    assert (page.values.dtype, page.values.tolist()) == (np.float64, list(map(float, values)))


def test_rows_and_unknown_numbers_stay_lists():
    odd = {"values": [[1, 2], [3, 4]], "errors": [0.5, None], "metadata": {"values": [1]}, "a": {"values": []}}
    assert answers.read_results_document(answered(odd)) == odd


def test_what_is_no_list_of_numbers_is_left_as_it_is():
    odd = {"message": "Results", "values": ["a", None], "errors": {"values": True}, "rest": [[1, "b"], {}, 1.5, None]}
    assert answers.read_results_document(answered(odd)) == odd


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b'{"a":', b"\xff"])
def test_another_answer_is_no_answer(content):
    with pytest.raises(Unavailable):
        answers.read_results_document(answered(content))


def test_a_refusal_is_the_servers_own():
    with pytest.raises(NotFound, match="Results are unavailable"):
        answers.read_results_document(answered({"message": "Results are unavailable"}, 404))


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ([7], np.int64),
        ([2**64 - 1], np.uint64),
        ([0.5], np.float64),
        ([-1, 2**64 - 1], np.float64),
        ([None], np.float64),
    ],
)
def test_lists_that_are_too_long_for_simdjson_keep_their_numbers(last, kind, monkeypatch):
    monkeypatch.setattr(answers, "_LONGEST_BUFFER", 1)
    monkeypatch.setattr(answers, "_BLOCK", 2)
    numbers = [2**53 + 1, 3, 4, *last]
    values = answers.with_arrays(orjson.dumps({"values": numbers}))["values"]
    expected = np.array([math.nan if number is None else number for number in numbers], kind)
    assert values.dtype == kind
    np.testing.assert_array_equal(values, expected)


def test_lists_that_are_too_long_for_simdjson_may_hold_anything(monkeypatch):
    monkeypatch.setattr(answers, "_LONGEST_BUFFER", 1)
    assert answers.with_arrays(b'{"values": [1, "a", {"b": [2]}]}') == {"values": [1, "a", {"b": [2]}]}


def test_a_list_whose_length_simdjson_cannot_count_is_read_whole():
    count = 2**24 + 2**22
    values = answers.with_arrays(b'{"values":[' + b"0," * (count - 2) + b"7,null]}")["values"]
    assert (len(values), values[-2]) == (count, 7)

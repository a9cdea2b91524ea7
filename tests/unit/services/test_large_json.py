"""Texts without their numbers: valid where the whole is, with as many numbers, and the whole can be had back."""

import io
import random
import tempfile

import msgspec
import numpy as np
import orjson
import pytest

from yaptide.domain.errors import InvalidInput
from yaptide.services.large_json import slim_json


def numbers(count, seed=1):
    draw = random.Random(seed)
    return [draw.choice([0.0, draw.random(), -draw.random() * 1e300, draw.randrange(10**9)]) for _ in range(count)]


def chunked(text, size):
    return (text[start : start + size] for start in range(0, len(text), size))


def arrays(document):
    """All the lists in a document, by the way to them."""
    result = {}

    def look(part, way):
        if isinstance(part, dict):
            for name, inner in part.items():
                look(inner, (*way, name))
        elif isinstance(part, list):
            result[way] = part

    look(document, ())
    return result


DOCUMENTS = {
    "one list": {"values": numbers(100_000)},
    "two lists": {"a": {"values": numbers(50_000)}, "b": numbers(30_000, 2), "name": "żółw"},
    "many small ones": {f"n{n}": numbers(300, n) for n in range(200)},
    "few": {"values": [1.5, 2.5]},
    "a list and text": {"values": numbers(20_000), "text": "1,2,3," * 50_000, "rest": "a" * 200_000},
    "no commas": {"text": "x" * 300_000},
}


@pytest.mark.parametrize("size", [1000, 65536, 1 << 20])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_numbers_are_counted_and_the_whole_comes_back(name, size):
    text = orjson.dumps(DOCUMENTS[name])
    thin = slim_json(chunked(text, size))
    document = arrays(orjson.loads(thin.text))
    assert {way: thin.count(values) for way, values in document.items()} == {
        way: len(values) for way, values in arrays(DOCUMENTS[name]).items()
    }
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        assert b"".join(thin.original(thin.text, file)) == text


def test_next_to_nothing_is_left_of_a_long_list():
    text = orjson.dumps({"values": numbers(400_000)})
    assert len(text) > 4_000_000
    assert len(slim_json(chunked(text, 65536)).text) < 200_000


@pytest.mark.parametrize("bad", [b"NaN", b"1e999", b'"1"', b"", b"1 2", b"01", b"[1]", b"1]", b"0x1"])
@pytest.mark.parametrize("place", [0, 50_000, 99_999])
def test_what_is_no_number_is_still_seen(bad, place):
    items = [repr(number).encode() for number in numbers(100_000)]
    items[place] = bad
    text = b'{"values":[' + b",".join(items) + b"]}"
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(slim_json(chunked(text, 65536)).text, type=dict[str, list[float]])


@pytest.mark.parametrize("place", [0, 1, 50_000, 99_999])
def test_null_among_the_numbers_is_counted_and_becomes_nan(place):
    values = numbers(100_000)
    values[place] = None
    text = orjson.dumps({"values": values})
    thin = slim_json(chunked(text, 65536))
    document = orjson.loads(thin.text)["values"]
    assert (thin.count(document), thin.nulls(document)) == (100_000, 1)
    room = np.empty(100_000)
    thin.read_numbers(document, lambda start, length: text[start : start + length], room)
    np.testing.assert_array_equal(room, np.array(values, dtype=float))


@pytest.mark.parametrize("number", [2**53 + 1, -(2**60), 12345678901234567890])
@pytest.mark.parametrize("count", [3, 5000])
def test_whole_numbers_that_would_lose_digits_are_refused(number, count):
    text = orjson.dumps([*range(count), 0.12345678901234567, 1.5e17, number, *range(count)])
    thin = slim_json([text])
    values = orjson.loads(thin.text)
    with pytest.raises(InvalidInput, match="would lose digits"):
        thin.read_numbers(values, lambda start, length: text[start : start + length], np.empty(2 * count + 3))


def test_a_string_with_numbers_in_it_is_told_from_a_short_one():
    text = orjson.dumps({"name": "1.5," * 100_000})
    thin = slim_json(chunked(text, 65536))
    name = orjson.loads(thin.text)["name"]
    assert not thin.is_whole(name)
    assert thin.is_whole("1.5,1.5")


def test_what_stands_for_numbers_is_another_each_time():
    """Nobody can write a text in which something else looks like it."""
    marks = [slim_json([orjson.dumps({"values": numbers(20_000)})]).mark for _ in range(5)]
    assert len(set(marks)) == 5
    assert all(10**15 <= mark < 2**53 for mark in marks), "the same number as a double, and none of a few digits"


def test_the_file_may_stand_anywhere():
    text = orjson.dumps({"values": numbers(20_000)})
    thin = slim_json([text])
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.seek(0, io.SEEK_SET)
        file.read(10)
        assert b"".join(thin.original(thin.text, file)) == text

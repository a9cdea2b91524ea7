"""Decoded pages: decoded once, cached, and cut into slices."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from yaptide.domain.errors import Busy, InvalidInput, NotFound
from yaptide.domain.estimators import Axis, Page
from yaptide.persistence import codec
from yaptide.services import pages, pictures
from yaptide.services.pictures import Cache, Extremes, Numbers, OpenPage


def numbers(*values):
    return np.array(values, dtype=np.float64)


def opened(values, *bins, errors=None):
    axes = tuple(Axis(name, "mm", np.arange(count) + 0.5) for name, count in zip("xyz", bins, strict=False))
    return OpenPage(Page(0, "Dose", "Gy", axes, values, errors), pictures._find_extremes(values))


def test_a_thing_is_made_once_however_many_ask_for_it():
    cache: Cache = Cache(3, 1000)
    begun, made = threading.Event(), []

    def make():
        begun.wait(10)
        made.append(1)
        return numbers(1)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.get, "a", make) for _ in range(4)]
        begun.set()
        assert {id(each.result(10)) for each in asked} == {id(asked[0].result())}
    assert made == [1]


def test_the_oldest_things_are_dropped():
    cache: Cache = Cache(2, 10_000)
    made = []
    for key in "abacab":
        cache.get(key, lambda key=key: (made.append(key), numbers(1))[1])
    assert made == ["a", "b", "c", "b"]  # b was not asked for when c came


def test_a_large_thing_drops_the_others_and_stays():
    cache: Cache = Cache(5, 100)
    made = []
    for key, size in (("a", 5), ("b", 5), ("large", 500), ("large", 500), ("a", 5)):
        cache.get(key, lambda key=key, size=size: (made.append(key), np.zeros(size))[1])
    assert made == ["a", "b", "large", "a"]


def test_what_cannot_be_made_is_tried_again():
    cache: Cache = Cache(2, 100)

    def fail():
        raise InvalidInput("damaged")

    for _ in range(2):
        with pytest.raises(InvalidInput, match="damaged"):
            cache.get("a", fail)
    assert cache.get("a", lambda: numbers(4)) == numbers(4)


def test_no_request_waits_for_ever(monkeypatch):
    monkeypatch.setattr(pictures, "_PATIENCE", 0.01)
    cache: Cache = Cache(2, 100)
    with cache._turn(), pytest.raises(Busy, match="try again"):
        cache.get("a", lambda: numbers(1))
    assert cache.get("a", lambda: numbers(4)) == numbers(4)


def test_others_wait_in_no_thread_when_many_wait_already(monkeypatch):
    cache: Cache = Cache(2, 100)
    cache.get("made", lambda: numbers(4))
    monkeypatch.setattr(pictures, "_WAITING", threading.BoundedSemaphore(1))
    begun, end = threading.Event(), threading.Event()

    def make():
        begun.set()
        end.wait(10)
        return numbers(1)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get, "slow", make)
        assert begun.wait(10)
        for key in ("slow", "other"):
            with pytest.raises(Busy, match="try again"):
                cache.get(key, lambda: numbers(2))
        assert cache.get("made", lambda: numbers(2)) == numbers(4)
        end.set()
        assert first.result(10) == numbers(1)
    assert cache.get("other", lambda: numbers(2)) == numbers(2)


def test_extremes_of_many_blocks(monkeypatch):
    monkeypatch.setattr(pictures, "_BLOCK", 3)
    values = numbers(math.nan, math.nan, math.nan, 0, -2, 1e-9, 5, math.nan, 5, 3)
    assert pictures._find_extremes(values) == Extremes(-2, 5, 1e-9, 6)
    assert pictures._find_extremes(numbers(math.nan)) == Extremes()
    assert pictures._find_extremes(numbers(-1, 0)) == Extremes(-1, 0, None, 1)


def test_where_the_largest_value_is():
    grid = opened(np.arange(24.0), 4, 3, 2)
    assert grid.place(grid.extremes.index) == (3.5, 2.5, 1.5)
    assert opened(numbers(1)).place(0) == ()


def test_a_cut_has_the_first_axis_fastest():
    grid = opened(np.arange(24.0), 4, 3, 2)
    expected = {(1, 3): [3, 7, 11, 15, 19, 23], (2, 0): [0, 1, 2, 3, 12, 13, 14, 15], (3, 1): list(range(12, 24))}
    for (axis, index), values in expected.items():
        assert np.frombuffer(pictures.cut_page(grid, Numbers.VALUES, axis, index), "<f8").tolist() == values
    assert np.frombuffer(pictures.cut_page(grid, Numbers.AXIS, 2), "<f8").tolist() == [0.5, 1.5, 2.5]


def test_what_a_page_does_not_have():
    grid = opened(np.arange(24.0), 4, 3, 2)
    with pytest.raises(NotFound, match="errors"):
        pictures.cut_page(grid, Numbers.ERRORS)
    with pytest.raises(NotFound, match="axis 4"):
        pictures.cut_page(grid, Numbers.VALUES, 4, 0)
    with pytest.raises(InvalidInput, match="needs index"):
        pictures.cut_page(grid, Numbers.VALUES, 1)


@pytest.mark.parametrize("in_memory", [10, 1 << 20], ids=["in files", "in memory"])
def test_a_stored_page_as_arrays(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(pages, "_IN_MEMORY", in_memory)
    values = np.random.default_rng(1).random(20_000) * 1e-10
    values[[7, 19_999]] = math.nan
    errors = values / 7
    axes = (Axis("x", "mm", np.arange(200) + 0.5), Axis("y", "mm", np.arange(100) + 0.5))
    page = Page(3, "Dose", "Gy", axes, values, errors, metadata={"normalisation": "per primary"})
    document = page.document()
    payload = codec.encode_payload(document | {"data": document["data"] | {"errors": np.nan_to_num(errors)}})
    read = pages.read_page(codec.inflate_pieces(payload.chunks()), tmp_path)
    assert (read.number, read.name, read.unit, read.metadata["normalisation"]) == (3, "Dose", "Gy", "per primary")
    assert read.values.tobytes() == values.tobytes()
    assert read.errors.tobytes() == np.nan_to_num(errors).tobytes()
    assert [axis.values.tolist() for axis in read.axes] == [axis.values.tolist() for axis in axes]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", [b"[]", b"{}", b'{"dimensions": 1, "data": {"values": [1]}}', b'{"dimensions": 0, "data": 5}']
)
def test_what_is_not_a_page(tmp_path, text):
    with pytest.raises(InvalidInput):
        pages.read_page([text], tmp_path)

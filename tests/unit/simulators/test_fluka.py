"""Input of FLUKA, in fixed columns and in free format."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked
from yaptide.simulators.fluka import Fluka


def card(keyword, *whats):
    return f"{keyword:<10}" + "".join(f"{what:>10}" for what in whats) + "\n"


GEOMETRY = "GEOBEGIN\n    0    0\nSPH body 0.0 0.0 0.0 1.0\nEND\nSTART        5 +body\nEND\nGEOEND\n"
INPUT = (
    "TITLE\nSTART of it all\n* START 7\n"
    + card("BEAM", "-0.2")
    + GEOMETRY
    + card("RANDOMIZ", "1.0", "137.0")
    + card("START", "10000.0")
    + "STOP\n"
    + card("START", "1.0")
)


def check(text):
    return Fluka().check({"water.inp": text})


def test_primaries_and_seed():
    assert check(INPUT) == Checked(primaries=10000, quantum=1, seed=137)


@pytest.mark.parametrize("number", ["1.0E5", "1.D5", "100000.", "1e5"])
def test_numbers_as_fortran_writes_them(number):
    assert check(card("START", number)).primaries == 100_000


def test_blank_numbers_have_the_defaults_of_the_manual():
    checked = check(card("START") + card("RANDOMIZ"))
    assert checked.primaries == 5000
    assert checked.seed > 0


@pytest.mark.parametrize("first", ["FREE\n", card("GLOBAL", "", "", "", "2.0")])
@pytest.mark.parametrize("line", ["START 3000.0\n", "START, 3000.0, 0.0\n", "START;3000.0/\n"])
def test_free_format(first, line):
    assert check(first + "RANDOMIZE,,99.0\n" + line) == Checked(primaries=3000, quantum=1, seed=99)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("STOP\n", "START card is missing"),
        (card("START", "0.0"), "line 1: WHAT\\(1\\) of START"),
        (card("START", "-5.0"), "WHAT\\(1\\) of START"),
        (card("START", "many"), "must be a number"),
        (card("START", "0.5"), "between 1"),
        (card("START", "10.0") + card("RANDOMIZ", "1.0", "-1.0"), "WHAT\\(2\\) of RANDOMIZ"),
        ("START 10000.0\n", "line 1: START must be in columns 1 to 8"),
        (f"{'START':<9}10000.0\n", "columns 11 to 20"),
        ("     START  1000.0\n", "columns 1 to 8"),
    ],
)
def test_wrong_cards(text, words):
    with pytest.raises(InvalidInput, match=words):
        check(text)


def test_one_input_file():
    with pytest.raises(InvalidInput, match="there are 0"):
        Fluka().check({"water.txt": INPUT})
    with pytest.raises(InvalidInput, match="there are 2"):
        Fluka().check({"a.inp": INPUT, "b.inp": INPUT})


@given(st.text(), st.booleans())
def test_hostile_text_is_refused_and_nothing_else_happens(text, free):
    with contextlib.suppress(InvalidInput):
        check(("FREE\n" if free else "") + text)

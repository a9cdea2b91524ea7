"""Input of FLUKA, in fixed columns and in free format."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked
from yaptide.simulators.fluka import Fluka, preprocessor


def card(keyword, *whats):
    return f"{keyword:<10}" + "".join(f"{what:>10}" for what in whats) + "\n"


GEOMETRY = "GEOBEGIN\n    0    0\nSPH body 0.0 0.0 0.0 1.0\nEND\nSTART        5 +body\nEND\nGEOEND\n"
INPUT = (
    "TITLE\nSTART of it all\n* START 7\n"
    + card("BEAM", "-0.2")
    + GEOMETRY
    + card("USRBIN", "10.0", "PROTON", "-21.0")
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


def test_files_that_include_others_again_and_again_are_refused():
    files = {f"{n}.inp": f"#include {n + 1}.inp\n" * 100 for n in range(10)} | {"10.inp": ""}
    with pytest.raises(InvalidInput, match="too many or too large"):
        Fluka().check(files)


def test_a_large_file_that_is_included_again_and_again_is_refused():
    with pytest.raises(InvalidInput, match=r"a\.inp, line 2: the included files are too many or too large"):
        Fluka().check({"a.inp": "#include b.inp\n" * 3, "b.inp": "*" * 6_000_000})


def test_variables_do_not_make_a_word_huge():
    with pytest.raises(InvalidInput, match="line 1: the value of A has more than 132 characters"):
        check(f"#define A {'1' * 100_000}\nFREE\nSTART {'$A' * 100_000}\n")
    with pytest.raises(InvalidInput, match="has more than 132 characters"):
        check(f"#define A {'1' * 100}\nFREE\nSTART {'$A' * 100_000}\n")


def test_many_nested_conditions_take_no_more_time_than_as_many_in_a_row(monkeypatch):
    counted = 0

    class Counting(preprocessor._Condition):
        @property
        def counts(self):
            nonlocal counted
            counted += 1
            return self._counts

        @counts.setter
        def counts(self, value):
            self._counts = value

    monkeypatch.setattr(preprocessor, "_Condition", Counting)
    depth = 300
    check("#define A\n" + "#if A\n" * depth + card("START", "7.0") + "#endif\n" * depth)
    assert counted < 5 * depth


@pytest.mark.parametrize(("names", "primaries"), [("AB", 2), ("B", 1), ("A", 3), ("", 1)])
def test_what_is_in_a_condition_that_does_not_count_does_not_count_either(names, primaries):
    defined = "".join(f"#define {name}\n" for name in names)
    inner = f"#if B\n{card('START', '2.0')}#else\n{card('START', '3.0')}#endif\n"
    assert check(f"{defined}#if A\n{inner}#else\n{card('START', '1.0')}#endif\n").primaries == primaries


@given(st.text(), st.booleans())
def test_hostile_text_is_refused_and_nothing_else_happens(text, free):
    with contextlib.suppress(InvalidInput):
        check(("FREE\n" if free else "") + text)

"""Input of SHIELD-HIT12A."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked
from yaptide.simulators.shieldhit import ShieldHit

BEAM = "RNDSEED  4711  ! seed\nJPART0 2\n* NSTAT 5\nNSTAT 20000 -1 ! primaries\n"
FILES = {"beam.dat": BEAM, "mat.dat": "MEDIUM 1\n", "geo.dat": "0 0 water\n", "detect.dat": "Output\n"}


def test_primaries_and_seed():
    assert ShieldHit().check(FILES) == Checked(primaries=20000, quantum=1, seed=4711)


def test_without_a_seed_one_is_drawn():
    files = {**FILES, "beam.dat": BEAM.replace("RNDSEED", "!")}
    assert ShieldHit().check(files).seed != ShieldHit().check(files).seed


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_needed(name):
    with pytest.raises(InvalidInput, match=name):
        ShieldHit().check({key: text for key, text in FILES.items() if key != name})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("NSTAT 20000 -1", "", "NSTAT, is missing"),
        ("NSTAT 20000 -1", "NSTAT", "line 4: NSTAT is missing"),
        ("NSTAT 20000 -1", "NSTAT 0 0", "NSTAT must be between 1"),
        ("NSTAT 20000 -1", "NSTAT 1e13 0", "NSTAT must be between 1"),
        ("NSTAT 20000 -1", "NSTAT all 0", "must be a number"),
        ("4711", "-4711", "RNDSEED"),
    ],
)
def test_wrong_numbers(old, new, words):
    with pytest.raises(InvalidInput, match=words):
        ShieldHit().check({**FILES, "beam.dat": BEAM.replace(old, new)})


@given(st.text())
def test_hostile_text_is_refused_and_nothing_else_happens(text):
    with contextlib.suppress(InvalidInput):
        ShieldHit().check({**FILES, "beam.dat": text})

"""Input of TOPAS."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked
from yaptide.simulators.topas import Topas

MAIN = 'includeFile = beam.txt # and more\ni:Ts/Seed = 9 # fixed\ns:Ge/World/Material = "Air"\n'
BEAM = "i:So/Left/NumberOfHistoriesInRun = 1000\nSo/Right/NumberOfHistoriesInRun=500\n"


def test_the_histories_of_all_sources_are_added():
    assert Topas().check({"main.txt": MAIN, "beam.txt": BEAM}) == Checked(primaries=1500, quantum=1, seed=9)


def test_without_a_seed_one_is_drawn():
    assert Topas().check({"beam.txt": BEAM}).seed != Topas().check({"beam.txt": BEAM}).seed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MAIN, "main.txt, line 1: the included file 'beam.txt' is missing"),
        (MAIN.replace("includeFile", "s:Ge/Name"), "NumberOfHistoriesInRun is missing"),
        ("i:So/A/NumberOfHistoriesInRun = ", "line 1: So/A/NumberOfHistoriesInRun is missing"),
        ("i:So/A/NumberOfHistoriesInRun = Ma/Many", "must be a number"),
        ("i:So/A/NumberOfHistoriesInRun = -1", "line 1: NumberOfHistoriesInRun must be 0 or more, not -1"),
        ("i:So/A/NumberOfHistoriesInRun = 0", "all sources together"),
        ("i:So/A/NumberOfHistoriesInRun = 1\ni:Ts/Seed = x", "line 2: Ts/Seed must be a number"),
    ],
)
def test_wrong_parameters(text, words):
    with pytest.raises(InvalidInput, match=words):
        Topas().check({"main.txt": text})


@given(st.text())
def test_hostile_text_is_refused_and_nothing_else_happens(text):
    with contextlib.suppress(InvalidInput):
        Topas().check({"main.txt": text + "\n" + BEAM})

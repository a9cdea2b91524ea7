"""Input of TOPAS."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked
from yaptide.simulators.topas import Topas, parameters

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


def test_a_file_that_is_included_again_is_compared_once(monkeypatch):
    monkeypatch.setattr(parameters, "_MOST_COMPARED", 10)
    main, more = "includeFile = more.txt beam.txt more.txt\n" * 50, "Ts/Seed = 3\n"
    checked = Topas().check({"main.txt": main, "beam.txt": BEAM, "more.txt": more})
    assert checked == Checked(primaries=1500, quantum=1, seed=3)


def test_files_with_too_much_to_compare_are_refused(monkeypatch):
    monkeypatch.setattr(parameters, "_MOST_COMPARED", 10)
    chain = {f"{n}.txt": f"includeFile = {n + 1}.txt beam.txt\n" for n in range(8)} | {"8.txt": "Ts/Seed = 3\n"}
    with pytest.raises(InvalidInput, match="too many parameters are included"):
        Topas().check({**chain, "beam.txt": BEAM})


def test_what_sources_share_is_evaluated_once(monkeypatch):
    evaluated = []
    evaluate = parameters._Evaluation._evaluate
    monkeypatch.setattr(
        parameters._Evaluation, "_evaluate", lambda self, *args: evaluated.append(args) or evaluate(self, *args)
    )
    shared = "".join(f"i:Ma/X{n} = Ma/X{n + 1} + Ma/X{n + 1}\n" for n in range(20)) + "i:Ma/X20 = 1\n"
    sources = "".join(f"i:So/S{n}/NumberOfHistoriesInRun = Ma/X0\n" for n in range(50))
    assert Topas().check({"main.txt": shared + sources}).primaries == 50 << 20
    assert len(evaluated) < 100


@given(st.text())
def test_hostile_text_is_refused_and_nothing_else_happens(text):
    with contextlib.suppress(InvalidInput):
        Topas().check({"main.txt": text + "\n" + BEAM})

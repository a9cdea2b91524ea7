"""Finding a simulator by its name or by its input, and what cannot be run here."""

from pathlib import Path

import pytest

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.simulators import known_simulators, names, resolve, simulator
from yaptide.simulators.base import Installation

EXAMPLE = Path(__file__).parents[3] / "examples" / "proton-150MeV-water"

INPUTS = {
    "mcsquare": {path.name: path.read_text() for path in EXAMPLE.iterdir()},
    "shieldhit": {"beam.dat": "NSTAT 10 0\n", "info.json": "{}"},
    "fluka": {"flSim.inp": "START\n"},
    "topas": {"main.txt": "i:Ts/Seed = 1\n"},
}


def test_every_name_leads_to_its_simulator():
    assert set(names()) == set(INPUTS)
    assert all(simulator(name).name == name for name in names())


@pytest.mark.parametrize("name", INPUTS)
def test_common_input_goes_to_the_one_simulator_that_recognises_it(name):
    assert [known.name for known in known_simulators() if known.recognises(INPUTS[name])] == [name]
    assert resolve("common", INPUTS[name]).name == name


def test_a_given_name_is_not_overruled():
    assert resolve("fluka", INPUTS["shieldhit"]).name == "fluka"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="fluka, mcsquare, shieldhit, topas"):
        resolve("geant4", {})


def test_input_that_nobody_recognises_is_refused():
    with pytest.raises(InvalidInput, match="SHIELD-HIT12A"):
        resolve("common", {"notes.txt": "buy milk"})


def test_the_example_passes_its_check():
    assert simulator("mcsquare").check(INPUTS["mcsquare"]).primaries == 200_000


@pytest.mark.parametrize("name", ["shieldhit", "fluka", "topas"])
def test_what_cannot_be_run_yet_says_so(name, tmp_path):
    code = simulator(name)
    calls = [
        lambda: code.installation(tmp_path),
        lambda: code.install(tmp_path, print),
        lambda: code.add(tmp_path, tmp_path / "program", print),
        lambda: code.prepare({}, 1, 1, tmp_path),
        lambda: code.command(Installation(tmp_path, "", ""), tmp_path),
        lambda: code.progress(tmp_path, 1),
        lambda: code.read(tmp_path, 0),
    ]
    for call in calls:
        with pytest.raises(NotConfigured, match=f"{code.title} cannot be run by yaptide itself yet"):
            call()

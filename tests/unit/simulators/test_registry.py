"""Finding a simulator by its name or by its input, and what cannot be run here."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from yaptide import simulators
from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.simulators import (
    check_simulator_names,
    find_output,
    get_simulator,
    known_simulators,
    list_installed,
    list_names,
    resolve_simulator,
)
from yaptide.simulators.base import MEMBERS

EXAMPLE = Path(__file__).parents[3] / "examples" / "proton-150MeV-water"

INPUTS = {
    "mcsquare": {path.name: path.read_text() for path in EXAMPLE.iterdir()},
    "shieldhit": {"beam.dat": "NSTAT 10 0\n", "info.json": "{}"},
    "fluka": {"flSim.inp": "START\n"},
    "topas": {"main.txt": "i:Ts/Seed = 1\n"},
}


def test_every_name_leads_to_its_simulator():
    assert set(list_names()) == set(INPUTS)
    assert all(get_simulator(name).name == name for name in list_names())


@pytest.mark.parametrize("name", INPUTS)
def test_common_input_goes_to_the_one_simulator_that_recognises_it(name):
    assert [known.name for known in known_simulators() if known.recognises(INPUTS[name])] == [name]
    assert resolve_simulator("common", INPUTS[name]).name == name


def test_a_given_name_is_not_overruled():
    assert resolve_simulator("fluka", INPUTS["shieldhit"]).name == "fluka"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="fluka, mcsquare, shieldhit, topas"):
        resolve_simulator("geant4", {})


def test_input_that_nobody_recognises_is_refused():
    with pytest.raises(InvalidInput, match="SHIELD-HIT12A"):
        resolve_simulator("common", {"notes.txt": "buy milk"})


def test_the_example_passes_its_check():
    assert get_simulator("mcsquare").check(INPUTS["mcsquare"]).primaries == 100_000


@pytest.mark.parametrize("name", ["shieldhit", "fluka", "topas"])
def test_what_is_not_installed_says_how_to_add_it(name, tmp_path):
    code = get_simulator(name)
    for call in (lambda: code.installation(tmp_path), lambda: code.install(tmp_path, print)):
        with pytest.raises(NotConfigured, match=f"yaptide simulators add {name} --program PATH"):
            call()
    assert f"YAPTIDE_FOREIGN_WORKERS={name}" in code.remedy


class Entry:
    """An entry point of another package."""

    def __init__(self, name: str, made: object, module: str = "other.package") -> None:
        self.name, self.module, self.value = name, module, f"{module}:{name}"
        self._made = made

    def load(self) -> object:
        if isinstance(self._made, Exception):
            raise self._made
        return lambda: self._made


@pytest.fixture
def others(monkeypatch):
    """Have other packages bring these simulators as well."""

    def add(*entries: Entry) -> None:
        ours = list(importlib.metadata.entry_points(group=simulators.GROUP))
        monkeypatch.setattr(simulators, "entry_points", lambda **_: [*entries, *ours])
        simulators._entries.cache_clear()
        simulators._loaded.cache_clear()

    yield add
    monkeypatch.undo()
    simulators._entries.cache_clear()
    simulators._loaded.cache_clear()


def fake(**changes: object) -> SimpleNamespace:
    """An object with everything that a simulator has to have."""
    return SimpleNamespace(**dict.fromkeys(MEMBERS) | {"name": "fake", "title": "Fake"} | changes)


def raising(error: Exception):
    def call(*_: object):
        raise error

    return call


def test_another_package_adds_a_simulator(others):
    code = fake(recognises=lambda files: "fake.txt" in files)
    others(Entry("fake", code))
    assert list_names() == ["fluka", "mcsquare", "shieldhit", "topas", "fake"]
    assert get_simulator("fake") is code
    assert resolve_simulator("common", {"fake.txt": ""}) is code


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (ImportError("no module named numpy"), "cannot be loaded from other.package: no module named numpy"),
        (SimpleNamespace(name="fake"), "does not fit this version of yaptide: title, .* is missing"),
        (fake(name="other"), "its name is 'other'"),
    ],
)
def test_a_broken_package_takes_nobody_with_it(others, made, words, tmp_path):
    others(Entry("fake", made))
    with pytest.raises(NotConfigured, match=words):
        get_simulator("fake")
    assert [code.name for code in known_simulators()] == ["fluka", "mcsquare", "shieldhit", "topas"]
    assert resolve_simulator("common", INPUTS["topas"]).name == "topas"
    assert list_installed(tmp_path) == {}


def test_a_simulator_that_raises_takes_nobody_with_it(others, tmp_path):
    boom = raising(ZeroDivisionError())
    others(Entry("aaa", fake(name="aaa", recognises=boom, installation=boom, output_of=boom)))
    assert resolve_simulator("common", INPUTS["fluka"]).name == "fluka"
    assert list_installed(tmp_path) == {}
    assert find_output("aaa", "01_fort.22", ["a", "b"]) == 1


@pytest.mark.parametrize("name", ["common", "Fake", "fake-code", "f" * 33, ""])
def test_what_cannot_be_a_name_is_left_out(others, name):
    others(Entry(name, fake(name=name)))
    assert name not in list_names()


def test_ours_is_not_replaced(others):
    others(Entry("mcsquare", fake(name="mcsquare")))
    assert list_names() == ["fluka", "mcsquare", "shieldhit", "topas"]
    assert get_simulator("mcsquare").title == "MCsquare"


def test_names_are_known_without_loading_anything():
    program = (
        "import sys, yaptide.simulators as s; s.list_names();"
        "print(*(m for m in sys.modules if m.startswith('yaptide.simulators.') or m == 'numpy'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"yaptide.simulators.mcsquare", "yaptide.simulators.fluka", "yaptide.simulators.topas"}.isdisjoint(
        done.stdout.split()
    )


def test_the_setting_of_workers_of_others_names_simulators():
    assert check_simulator_names("SETTING", ["fluka", "topas"]) == {"fluka", "topas"}
    with pytest.raises(InvalidInput, match=r"SETTING.*'geant4'.*fluka, mcsquare"):
        check_simulator_names("SETTING", ["fluka", "geant4"])


def test_nothing_outside_knows_the_name_of_a_code():
    """Words for people may name one: an example of a command, or what follows "such as" or "e.g."."""
    code = re.compile("|".join([*list_names(), *(known.title for known in known_simulators())]), re.IGNORECASE)
    package = Path(simulators.__file__).parents[1]
    match = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if not path.is_relative_to(package / "simulators")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if code.search(line) and not ("Example: " in line or "such as" in line or "e.g. " in line)
    ]
    assert match == []


@pytest.mark.parametrize("value", ["os:nothing", "builtins:object"])
def test_a_broken_converter_is_reported_in_one_line(value, monkeypatch):
    entry = importlib.metadata.EntryPoint("other", value, simulators.WRITERS)
    monkeypatch.setattr(simulators, "_writers", lambda: {"other": entry})
    with pytest.raises(NotConfigured, match=r"^The converter other .*(cannot be loaded|does not fit)"):
        simulators.get_converter("other")

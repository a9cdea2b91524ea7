"""The particles of a project: the editor's numbers, which depend on its simulator, or PDG codes.

Each becomes one `ParticleKind`, so that nothing else needs to know numbers of the editor.
"""

import re
from collections.abc import Mapping

from yaptide.editor.project import Particle, ParticleKind
from yaptide.editor.sections import Section, quote_text

Kind = ParticleKind
Numbers = Mapping[int, ParticleKind]

_HEAVIEST = 300
#: Numbers that mean the same for every simulator.
_COMMON = {
    1: Kind.NEUTRON,
    2: Kind.PROTON,
    15: Kind.MUON_MINUS,
    16: Kind.MUON_PLUS,
    21: Kind.DEUTERON,
    22: Kind.TRITON,
    23: Kind.HELIUM_3,
    24: Kind.ALPHA,
    25: Kind.ION,
    26: Kind.ELECTRON,
}
_USUAL = _COMMON | {
    3: Kind.PION_MINUS,
    4: Kind.PION_PLUS,
    5: Kind.PION_ZERO,
    6: Kind.ANTINEUTRON,
    7: Kind.ANTIPROTON,
    8: Kind.KAON_MINUS,
    9: Kind.KAON_PLUS,
    10: Kind.KAON_ZERO,
    11: Kind.ANTIKAON_ZERO,
}
_GEANT4 = _COMMON | {
    3: Kind.PHOTON,
    4: Kind.ELECTRON,
    5: Kind.POSITRON,
    6: Kind.ALPHA,
    7: Kind.MUON_MINUS,
    8: Kind.MUON_PLUS,
    9: Kind.PION_MINUS,
    10: Kind.PION_PLUS,
    11: Kind.ION,  # carbon 12
}
_CARBON = 11

#: Mass number and charge of particles that always have the same.
_FIXED = {
    Kind.NEUTRON: (1, 0),
    Kind.PROTON: (1, 1),
    Kind.DEUTERON: (2, 1),
    Kind.TRITON: (3, 1),
    Kind.HELIUM_3: (3, 2),
    Kind.ALPHA: (4, 2),
    Kind.ANTINEUTRON: (1, 0),
    Kind.ANTIPROTON: (1, -1),
    Kind.PHOTON: (0, 0),
    Kind.ELECTRON: (0, -1),
    Kind.POSITRON: (0, 1),
    Kind.MUON_MINUS: (0, -1),
    Kind.MUON_PLUS: (0, 1),
    Kind.PION_MINUS: (0, -1),
    Kind.PION_PLUS: (0, 1),
    Kind.PION_ZERO: (0, 0),
    Kind.KAON_MINUS: (0, -1),
    Kind.KAON_PLUS: (0, 1),
    Kind.KAON_ZERO: (0, 0),
    Kind.ANTIKAON_ZERO: (0, 0),
}
_LIGHT_IONS = (Kind.PROTON, Kind.DEUTERON, Kind.TRITON, Kind.HELIUM_3, Kind.ALPHA)
_BY_NUCLEONS = {_FIXED[kind]: kind for kind in _LIGHT_IONS}

#: Kinds by the names that the versions of the editor give them, reduced by `_reduce`.
_BY_NAME = {
    "neutron": Kind.NEUTRON,
    "proton": Kind.PROTON,
    "pion-": Kind.PION_MINUS,
    "pion+": Kind.PION_PLUS,
    "pion0": Kind.PION_ZERO,
    "antineutron": Kind.ANTINEUTRON,
    "antiproton": Kind.ANTIPROTON,
    "kaon-": Kind.KAON_MINUS,
    "kaon+": Kind.KAON_PLUS,
    "kaon0": Kind.KAON_ZERO,
    "kaon~": Kind.ANTIKAON_ZERO,
    "muon-": Kind.MUON_MINUS,
    "muon+": Kind.MUON_PLUS,
    "deuteron": Kind.DEUTERON,
    "triton": Kind.TRITON,
    "helium3": Kind.HELIUM_3,
    "3helium": Kind.HELIUM_3,
    "helium4": Kind.ALPHA,
    "4helium": Kind.ALPHA,
    "alpha": Kind.ALPHA,
    "photon": Kind.PHOTON,
    "gamma": Kind.PHOTON,
    "electron": Kind.ELECTRON,
    "positron": Kind.POSITRON,
    "12c": Kind.ION,
    "carbon": Kind.ION,
}

#: Z and A of a nucleus in its PDG code, 100ZZZAAA0.
_NUCLEUS = re.compile(r"100(\d{3})(\d{3})0")


def choose_numbers(simulator: object) -> Numbers:
    """Return the kinds of particles by number in projects for a simulator."""
    return _GEANT4 if simulator == "geant4" else _USUAL


def read_particle(section: Section, numbers: Numbers) -> Particle:
    """Return a particle. The editor's default, without any value, is a proton.

    Raises InvalidInput for an unknown particle, a name that contradicts its number, or an impossible nucleus.
    """
    if not section.values:
        return Particle("Proton", Kind.PROTON)
    name = section.read_text("name") or section.read_text("displayName")
    if section.values.get("id") is not None:
        kind, a, z = _read_number(section, numbers)
    elif section.values.get("pdg") is not None:
        kind, a, z = _read_code(section)
    else:
        raise section.make_error("id or pdg is missing")
    called = _BY_NAME.get(_reduce(name), kind)
    if called is not kind:
        raise section.make_error(
            f"its name is {quote_text(name)}, but its number is that of {kind.title}: choose the particle again"
        )
    return Particle(name or kind.title, kind, a, z)


def _read_number(section: Section, numbers: Numbers) -> tuple[Kind, int, int]:
    number = section.read_integer("id", None, -(10**9), 10**9)
    if number not in numbers:
        raise section.make_error(f"unknown id {number}")
    kind = numbers[number]
    if kind is not Kind.ION:
        return kind, *_FIXED[kind]
    if number == _CARBON:
        return kind, 12, 6
    a = section.read_integer("a", None, 1, _HEAVIEST)
    return _name_nucleus(a, section.read_integer("z", None, 1, a))


def _read_code(section: Section) -> tuple[Kind, int, int]:
    code = section.read_integer("pdg", None, -(10**10), 10**10)
    kind = next((kind for kind in _FIXED if kind.value == code), None)
    if kind is not None:
        return kind, *_FIXED[kind]
    nucleus = _NUCLEUS.fullmatch(str(code))
    z, a = map(int, nucleus.groups()) if nucleus else (0, 0)
    if not 1 <= z <= a <= _HEAVIEST:
        raise section.make_error(f"unknown pdg {code}")
    return _name_nucleus(a, z)


def _name_nucleus(a: int, z: int) -> tuple[Kind, int, int]:
    return _BY_NUCLEONS.get((a, z), Kind.ION), a, z


def _reduce(name: str) -> str:
    """Return a name without spaces, hyphens between letters, and Greek letters: ``Pion π-`` is ``pion-``."""
    plain = re.sub(r"[^a-z0-9+~-]", "", name.lower())
    return re.sub(r"-(?=.)", "", plain)

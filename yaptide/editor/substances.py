"""What the editor's materials consist of, by ICRU number: ``substances.tsv``, from the NIST tables in Geant4.

Numbers 1 to 98 are the elements, 99 to 278 compounds and mixtures, 906 is graphite.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Material
from yaptide.editor.sections import quote_text

_MOST_ELEMENT = 98
_SAME = 1e-5  # relative difference of densities


@dataclass(frozen=True, slots=True)
class Substance:
    """A substance: its name in Geant4 (empty if unknown there), usual density (g/cm3), mean ionisation potential (eV).

    `fractions` are the mass fractions by symbol of the element; their sum is 1.
    """

    number: int
    geant4: str
    density: float
    ionisation: float
    is_gas: bool
    fractions: Mapping[str, float]

    def ionisation_of(self, material: Material) -> float:
        """Return the ionisation potential that the user has set for a material, or else the usual one, eV."""
        return self.ionisation if material.ionisation is None else material.ionisation

    def is_same(self, material: Material) -> bool:
        """Return whether a material has the usual density and ionisation potential."""
        return material.ionisation is None and abs(material.density - self.density) <= _SAME * self.density


@cache
def list_substances() -> Mapping[int, Substance]:
    """Return all substances by ICRU number."""
    rows = (files("yaptide.editor") / "substances.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {substance.number: substance for substance in map(_parse, rows)}


def _parse(row: str) -> Substance:
    number, geant4, density, ionisation, state, composition = row.split("\t")
    words = composition.split()
    fractions = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    whole = sum(fractions.values())
    normalised = {symbol: fraction / whole for symbol, fraction in fractions.items()}
    return Substance(int(number), geant4, float(density), float(ionisation), state == "gas", normalised)


@cache
def list_elements() -> Mapping[str, int]:
    """Return the atomic numbers of the elements by symbol."""
    return {symbol: number for number in range(1, _MOST_ELEMENT + 1) for symbol in list_substances()[number].fractions}


def find_substance(material: Material, title: str) -> Substance:
    """Return what a material consists of; raise InvalidInput if its composition is unknown.

    `title` is the code that needs it.
    """
    substance = list_substances().get(material.icru)
    if substance is None:
        raise InvalidInput(
            f"Project, material {quote_text(material.name)}: the composition of ICRU number {material.icru} is "
            f"unknown, which {title} needs"
        )
    return substance

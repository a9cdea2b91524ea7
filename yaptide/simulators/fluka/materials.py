"""Writes the cards of materials: MATERIAL, COMPOUND, MAT-PROP and LOW-MAT (FLUKA manual 5 and 7).

Materials that FLUKA has itself, with the same density, are used by name. Others are made of elements under FLUKA's
names, which are those of its data of low-energy neutrons.
"""

import itertools
from collections.abc import Iterable, Iterator

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Material
from yaptide.editor.sections import quote_text
from yaptide.editor.substances import Substance, find_substance, list_elements
from yaptide.simulators.fluka.cards import format_card
from yaptide.simulators.projects import comment

BLACK_HOLE, VACUUM = "BLCKHOLE", "VACUUM"

#: Names and densities (g/cm3) of FLUKA's own materials by ICRU number.
_PREDEFINED = {
    1: ("HYDROGEN", 0.0000837),
    2: ("HELIUM", 0.000166),
    4: ("BERYLLIU", 1.848),
    6: ("CARBON", 2.0),
    7: ("NITROGEN", 0.00117),
    8: ("OXYGEN", 0.00133),
    11: ("SODIUM", 0.971),
    12: ("MAGNESIU", 1.74),
    13: ("ALUMINUM", 2.699),
    14: ("SILICON", 2.329),
    18: ("ARGON", 0.00166),
    20: ("CALCIUM", 1.55),
    22: ("TITANIUM", 4.54),
    26: ("IRON", 7.874),
    28: ("NICKEL", 8.902),
    29: ("COPPER", 8.96),
    47: ("SILVER", 10.5),
    50: ("TIN", 7.31),
    73: ("TANTALUM", 16.654),
    74: ("TUNGSTEN", 19.3),
    79: ("GOLD", 19.32),
    80: ("MERCURY", 13.546),
    82: ("LEAD", 11.35),
    103: ("ADTISSUE", 0.92),
    104: ("AIR", 0.00120479),
    119: ("BONECOMP", 1.85),
    120: ("BONECORT", 1.85),
    179: ("KAPTON", 1.42),
    201: ("MUSCLESK", 1.04),
    202: ("MUSCLEST", 1.04),
    216: ("PLASCINT", 1.032),
    221: ("POLYETHY", 0.94),
    223: ("PMMA", 1.19),
    226: ("POLYSTYR", 1.06),
    276: ("WATER", 1.0),
}

#: Names of the other elements with data of low-energy neutrons.
_OTHERS = {
    3: "LITHIUM",
    5: "BORON",
    9: "FLUORINE",
    10: "NEON",
    15: "PHOSPHO",
    16: "SULFUR",
    17: "CHLORINE",
    19: "POTASSIU",
    21: "SCANDIUM",
    23: "VANADIUM",
    24: "CHROMIUM",
    25: "MANGANES",
    27: "COBALT",
    30: "ZINC",
    31: "GALLIUM",
    32: "GERMANIU",
    33: "ARSENIC",
    35: "BROMINE",
    36: "KRYPTON",
    38: "STRONTIU",
    39: "YTTRIUM",
    40: "ZIRCONIU",
    41: "NIOBIUM",
    42: "MOLYBDEN",
    46: "PALLADIU",
    48: "CADMIUM",
    49: "INDIUM",
    51: "ANTIMONY",
    53: "IODINE",
    54: "XENON",
    55: "CESIUM",
    56: "BARIUM",
    57: "LANTHANU",
    58: "CERIUM",
    64: "GADOLINI",
    72: "HAFNIUM",
    75: "RHENIUM",
    77: "IRIDIUM",
    78: "PLATINUM",
    81: "THALLIUM",
    83: "BISMUTH",
    92: "URANIUM",
}
_IN_CARD = 3
_SAME = 1e-6  # relative difference of densities
#: Density of elements that are only parts of compounds, where it has no effect.
_ANY_DENSITY = 1.0


def name_materials(materials: Iterable[Material]) -> dict[Material, str]:
    """Return FLUKA's names of materials, those of materials to define are MAT00001, MAT00002 ..."""
    names: dict[Material, str] = {}
    numbers = itertools.count(1)
    for material in materials:
        if material not in names:
            names[material] = _own_name(material) or f"MAT{next(numbers):05d}"
    return names


def _own_name(material: Material) -> str | None:
    """Return the name of a material that FLUKA has."""
    if material.is_black_hole:
        return BLACK_HOLE
    if material.is_empty:
        return VACUUM
    name, density = _PREDEFINED.get(material.icru, ("", 0.0))
    is_same = material.ionisation is None and abs(material.density - density) <= _SAME * density
    return name if name and is_same else None


def format_materials(names: dict[Material, str]) -> Iterator[str]:
    """Yield the cards of materials that FLUKA does not have; raise InvalidInput for unknown compositions."""
    own = {material: name for material, name in names.items() if _own_name(material) is None}
    substances = {material: find_substance(material, "FLUKA") for material in own}
    parts = [(s, each) for each, s in substances.items() if not _is_element(s)]
    yield from _format_elements(parts)
    for material, name in own.items():
        substance = substances[material]
        yield f"* {comment(material.name)}"
        if _is_element(substance):
            (symbol,) = substance.fractions
            number = list_elements()[symbol]
            yield format_card("MATERIAL", [float(number), None, material.density], name)
            yield format_card("LOW-MAT", [name], _name_element(number, material))
        else:
            yield format_card("MATERIAL", [None, None, material.density], name)
            yield from _format_compound(substance, name, material)
        yield format_card("MAT-PROP", [None, None, substance.ionisation_of(material), name])


def _is_element(substance: Substance) -> bool:
    return len(substance.fractions) == 1


def _format_elements(compounds: Iterable[tuple[Substance, Material]]) -> Iterator[str]:
    """Yield the cards of elements that FLUKA does not define itself."""
    used = {list_elements()[symbol]: material for substance, material in compounds for symbol in substance.fractions}
    for number, material in sorted(used.items()):
        if number not in _PREDEFINED:
            yield format_card("MATERIAL", [float(number), None, _ANY_DENSITY], _name_element(number, material))


def _name_element(number: int, material: Material) -> str:
    if number in _PREDEFINED:
        return _PREDEFINED[number][0]
    if number not in _OTHERS:
        raise InvalidInput(
            f"Project, material {quote_text(material.name)}: yaptide has no FLUKA name of the element {number}"
        )
    return _OTHERS[number]


def _format_compound(substance: Substance, name: str, material: Material) -> Iterator[str]:
    """Yield COMPOUND cards: negative mass fractions and names of elements."""
    pairs = [(-part, _name_element(list_elements()[symbol], material)) for symbol, part in substance.fractions.items()]
    for first in range(0, len(pairs), _IN_CARD):
        fields = [field for pair in pairs[first : first + _IN_CARD] for field in pair]
        yield format_card("COMPOUND", fields, name)

"""Writes the materials of a TOPAS job: those of Geant4 by name, others by elements (TOPAS user guide, "Materials")."""

from collections.abc import Iterator

from yaptide.editor.project import Material
from yaptide.editor.substances import find_substance, list_elements
from yaptide.simulators.geant4.materials import BLACK_HOLE, DENSE, EXCITATION, LEAD, is_own
from yaptide.simulators.projects import comment

#: Names of the elements in TOPAS, by atomic number from 1.
ELEMENTS = (
    *("Hydrogen", "Helium", "Lithium", "Beryllium", "Boron", "Carbon", "Nitrogen", "Oxygen", "Fluorine"),
    *("Neon", "Sodium", "Magnesium", "Aluminum", "Silicon", "Phosphorus", "Sulfur", "Chlorine", "Argon"),
    *("Potassium", "Calcium", "Scandium", "Titanium", "Vanadium", "Chromium", "Manganese", "Iron", "Cobalt"),
    *("Nickel", "Copper", "Zinc", "Gallium", "Germanium", "Arsenic", "Selenium", "Bromine", "Krypton"),
    *("Rubidium", "Strontium", "Yttrium", "Zirconium", "Niobium", "Molybdenum", "Technetium", "Ruthenium", "Rhodium"),
    *("Palladium", "Silver", "Cadmium", "Indium", "Tin", "Antimony", "Tellurium", "Iodine", "Xenon"),
    *("Cesium", "Barium", "Lanthanum", "Cerium", "Praseodymium", "Neodymium", "Promethium", "Samarium", "Europium"),
    *("Gadolinium", "Terbium", "Dysprosium", "Holmium", "Erbium", "Thulium", "Ytterbium", "Lutetium", "Hafnium"),
    *("Tantalum", "Tungsten", "Rhenium", "Osmium", "Iridium", "Platinum", "Gold", "Mercury", "Thallium"),
    *("Lead", "Bismuth", "Polonium", "Astatine", "Radon", "Francium", "Radium", "Actinium", "Thorium"),
    *("Protactinium", "Uranium", "Neptunium", "Plutonium", "Americium", "Curium", "Berkelium", "Californium"),
)


def format_materials(names: dict[Material, str]) -> Iterator[str]:
    """Yield the parameters of materials that Geant4 does not have."""
    if BLACK_HOLE in names.values():
        yield from _format(BLACK_HOLE, {LEAD: 1.0}, DENSE, EXCITATION)
    for material, name in names.items():
        if is_own(name):
            substance = find_substance(material, "TOPAS")
            fractions = {list_elements()[symbol]: part for symbol, part in substance.fractions.items()}
            yield f"# {comment(material.name)}"
            yield from _format(name, fractions, material.density, substance.ionisation_of(material))


def _format(name: str, fractions: dict[int, float], density: float, ionisation: float) -> Iterator[str]:
    elements = " ".join(f'"{ELEMENTS[number - 1]}"' for number in fractions)
    yield f"sv:Ma/{name}/Components = {len(fractions)} {elements}"
    yield f"uv:Ma/{name}/Fractions = {len(fractions)} {' '.join(f'{part:.7f}' for part in fractions.values())}"
    yield f"d:Ma/{name}/Density = {density:#.10g} g/cm3"
    yield f"d:Ma/{name}/MeanExcitationEnergy = {ionisation:#.10g} eV"

"""MCsquare's labels for the materials of the editor, and the HU tables of a project.

Each zone has its own HU, so a voxel's HU identifies its zone. The density is constant around each HU, because MCsquare
interpolates between the rows of its table.
"""

from collections.abc import Sequence

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Material
from yaptide.simulators.mcsquare import tables

#: MCsquare's label for each supported ICRU number; densities are those of the project.
LABELS = {
    1: 1,  # hydrogen
    6: 2,  # carbon
    7: 3,  # nitrogen
    8: 4,  # oxygen
    13: 5,  # aluminium
    14: 6,  # silicon
    15: 7,  # phosphorus
    20: 8,  # calcium
    22: 73,  # titanium
    26: 9,  # iron
    29: 10,  # copper
    73: 77,  # tantalum
    74: 11,  # tungsten
    82: 12,  # lead
    103: 15,  # adipose tissue
    104: 13,  # air
    118: 30,  # blood
    120: 38,  # cortical bone
    121: 79,  # boron carbide
    123: 23,  # brain
    156: 34,  # eye lens
    169: 71,  # Pyrex glass
    190: 14,  # lung
    201: 27,  # skeletal muscle
    202: 27,  # striated muscle
    219: 66,  # polycarbonate
    221: 81,  # polyethylene
    223: 64,  # PMMA
    226: 70,  # polystyrene
    250: 35,  # skin
    258: 25,  # testes
    261: 19,  # soft tissue (ICRP)
    262: 19,  # soft tissue (ICRU)
    276: 17,  # liquid water
    277: 17,  # water vapour
}

_AIR, _HYDROGEN = 13, 1
#: Vacuum is air of the lowest density that the table allows: 10 m of it equal 0.01 mm of water.
_THIN = 1e-6
#: A black hole is hydrogen of the highest density that the table allows: 1 mm stops 200 MeV protons, and none
#: scatters back, because protons cannot scatter backwards off protons.
_DENSE = 100.0

#: Difference between the HU of consecutive zones.
STEP = 10


def hu_of(zone: int) -> int:
    """Return the HU of the zone with this number."""
    return STEP * zone


def make_tables(materials: Sequence[Material], where: Sequence[str]) -> tuple[tables.Table, tables.Table]:
    """Return densities and labels by HU for zones of `materials`; raise InvalidInput for an unsupported material.

    `where` names the zones in errors. Each zone has two rows of densities, because MCsquare needs at least two rows.
    """
    densities, labels = [], []
    for zone, (material, place) in enumerate(zip(materials, where, strict=True)):
        hu, (label, density) = hu_of(zone), _properties(material, place)
        densities += [(hu - STEP / 2 + 1, density), (hu + STEP / 2 - 1, density)]
        labels.append((hu - STEP / 2, float(label)))
    return tables.Table(tuple(densities)), tables.Table(tuple(labels))


def _properties(material: Material, where: str) -> tuple[int, float]:
    """Return the label and the density in g/cm3."""
    if material.is_black_hole:
        return _HYDROGEN, _DENSE
    if material.is_empty:
        return _AIR, _THIN
    if material.icru not in LABELS:
        raise InvalidInput(
            f"{where} consists of {material.name} (ICRU {material.icru}), which MCsquare does not support: choose a "
            "material from the list in docs/mcsquare.md"
        )
    return LABELS[material.icru], max(material.density, _THIN)

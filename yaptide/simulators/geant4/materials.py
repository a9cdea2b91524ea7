"""Materials for Geant4, and for TOPAS, which is built on it: NIST materials by name, others with their own names."""

from collections.abc import Iterable, Sequence

from yaptide.editor.containment import covers
from yaptide.editor.nesting import Placed
from yaptide.editor.project import Detector, Material
from yaptide.editor.substances import find_substance

VACUUM, BLACK_HOLE = "G4_Galactic", "BlackHole"
_OWN = "Material"

LEAD, DENSE, EXCITATION = 82, 1e8, 823.0
"""The lead that stands for a black hole, its density (g/cm3) and excitation energy (eV): nothing leaves it."""


def name_materials(materials: Iterable[Material], title: str) -> dict[Material, str]:
    """Return the names of materials; those to define are Material1, Material2 ...

    Raises InvalidInput for a material of unknown composition, which the code `title` needs.
    """
    names: dict[Material, str] = {}
    for material in materials:
        if material.is_black_hole:
            names[material] = BLACK_HOLE
        elif material.is_empty:
            names[material] = VACUUM
        elif material not in names:
            substance = find_substance(material, title)
            own = sum(map(is_own, names.values()))
            is_known = substance.geant4 and substance.is_same(material)
            names[material] = substance.geant4 if is_known else f"{_OWN}{own + 1}"
    return names


def is_own(name: str) -> bool:
    """Return whether a material with this name must be defined."""
    return name.startswith(_OWN)


def material_around(roots: Sequence[Placed], detectors: Iterable[Detector | None]) -> str:
    """Return the material around the outermost figures.

    A vacuum around a single one, because it is convex: a particle that leaves it never comes back. No detector may
    reach beyond it, because the particles would be counted there.
    """
    is_vacuum = len(roots) == 1 and all(covers(roots[0].figure, detector) for detector in detectors)
    return VACUUM if is_vacuum else BLACK_HOLE

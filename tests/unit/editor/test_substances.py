"""The table of substances: numbers, names and compositions."""

import pytest

from yaptide.editor.project import Material
from yaptide.editor.substances import list_elements, list_substances


@pytest.mark.parametrize(
    ("number", "name", "density"),
    [
        (1, "G4_H", 8.3748e-5),
        (82, "G4_Pb", 11.35),
        (99, "G4_A-150_TISSUE", 1.127),
        (104, "G4_AIR", 0.00120479),
        (120, "G4_BONE_CORTICAL_ICRP", 1.92),
        (171, "G4_GLASS_PLATE", 2.4),
        (172, "", 1.54),
        (173, "G4_GLUTAMINE", 1.46),
        (201, "G4_MUSCLE_SKELETAL_ICRP", 1.05),
        (223, "G4_PLEXIGLASS", 1.19),
        (276, "G4_WATER", 1.0),
        (277, "G4_WATER_VAPOR", 0.000756182),
        (278, "G4_XYLENE", 0.87),
    ],
)
def test_numbers_are_those_of_icru(number, name, density):
    substance = list_substances()[number]
    assert (substance.geant4, substance.density) == (name, pytest.approx(density, rel=1e-4))
    assert sum(substance.fractions.values()) == pytest.approx(1)
    assert substance.fractions.keys() <= list_elements().keys()


def test_all_numbers_are_there():
    assert sorted(list_substances()) == [*range(1, 279), 906]
    assert list_substances()[276].fractions == pytest.approx({"H": 0.111898, "O": 0.888102}, abs=1e-6)
    assert list_elements()["Pb"] == 82


def test_the_usual_material_has_no_properties_of_its_own():
    water = list_substances()[276]
    assert water.is_same(Material("WATER", 276, 1.0))
    assert not water.is_same(Material("WATER", 276, 1.01))
    assert not water.is_same(Material("WATER", 276, 1.0, ionisation=75.0))

"""Particles mean the same whatever the simulator of the project and the version of the editor."""

import pytest

from tests.support import projects
from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import ParticleKind
from yaptide.editor.reading import read_project
from yaptide.simulators import get_converter

CARBON = (ParticleKind.ION, 12, 6)


def beam_of(particle, simulator="common", **beam):
    document = projects.water_phantom(particle=particle, **beam)
    document["project"]["simulator"] = simulator
    return read_project(document).beam


@pytest.mark.parametrize(
    ("simulator", "particle", "meaning"),
    [
        ("geant4", {"id": 3, "name": "Photon"}, (ParticleKind.PHOTON, 0, 0)),
        ("geant4", {"id": 4, "name": "Electron", "a": 1, "z": 1}, (ParticleKind.ELECTRON, 0, -1)),
        ("geant4", {"id": 6, "name": "Alpha"}, (ParticleKind.ALPHA, 4, 2)),
        ("geant4", {"id": 9, "name": "Pion π-"}, (ParticleKind.PION_MINUS, 0, -1)),
        ("geant4", {"id": 11, "name": "12C", "a": 1, "z": 1}, CARBON),
        ("geant4", {"id": 25, "name": "C-12", "a": 12, "z": 6}, CARBON),
        ("fluka", {"id": 3, "name": "Pion π-"}, (ParticleKind.PION_MINUS, 0, -1)),
        ("fluka", {"id": 26, "name": "Electron"}, (ParticleKind.ELECTRON, 0, -1)),
        ("fluka", {"id": 16, "name": "Muon µ+"}, (ParticleKind.MUON_PLUS, 0, 1)),
        ("common", {"id": 2, "a": 12, "z": 6}, (ParticleKind.PROTON, 1, 1)),
        ("common", {"id": 24, "name": "Helium-4", "a": 1, "z": 1}, (ParticleKind.ALPHA, 4, 2)),
        ("common", {"id": 25, "name": "Heavy ions", "a": 4, "z": 2}, (ParticleKind.ALPHA, 4, 2)),
        ("common", {"pdg": 11, "displayName": "Electron"}, (ParticleKind.ELECTRON, 0, -1)),
        ("common", {"pdg": 2112}, (ParticleKind.NEUTRON, 1, 0)),
        ("common", {"pdg": 1000060120, "displayName": "Carbon-12", "a": 1, "z": 1}, CARBON),
        ("common", {"pdg": 1000010010}, (ParticleKind.PROTON, 1, 1)),
        ("common", {}, (ParticleKind.PROTON, 1, 1)),
        ("common", None, (ParticleKind.PROTON, 1, 1)),
    ],
)
def test_a_particle_has_one_meaning(simulator, particle, meaning):
    read = beam_of(particle, simulator).particle
    assert (read.kind, read.a, read.z) == meaning


@pytest.mark.parametrize(
    ("particle", "why"),
    [
        ({"id": 3, "name": "Photon"}, "its name is 'Photon', but its number is that of Pion minus"),
        ({"id": 25, "name": "Carbon", "a": 1, "z": 1}, "its name is 'Carbon', but its number is that of Proton"),
        ({"displayName": "Electron", "a": 0, "z": -1}, "id or pdg is missing"),
        ({"id": 99}, "unknown id 99"),
        ({"pdg": 1000060121}, "unknown pdg 1000060121"),
        ({"pdg": 1000120060}, "unknown pdg 1000120060"),
        ({"id": 25, "a": 0, "z": 0}, "a must be between 1 and 300"),
        ({"id": 25, "a": 12.5, "z": 6}, "a must be a whole number"),
        ({"id": 25, "a": 4, "z": 30}, "z must be between 1 and 4"),
        ({"id": 25, "a": 12, "z": -6}, "z must be between 1 and 12"),
        ({"id": 25}, "a is missing"),
    ],
)
def test_a_particle_without_a_clear_meaning_is_refused(particle, why):
    with pytest.raises(InvalidInput) as refused:
        beam_of(particle)
    assert str(refused.value).startswith(f"Project, beam, particle: {why}")


def test_energies_per_nucleon_count_the_nucleons_of_the_particle():
    assert beam_of({"id": 2, "a": 12, "z": 6}, energyUnit="MeV/nucl", energy=100).energy == 100
    assert beam_of({"id": 24, "a": 1, "z": 1}, energyUnit="MeV/nucl", energy=100).energy == 400


def test_a_filter_of_one_particle_uses_the_numbers_of_the_simulator():
    document = projects.from_older_version()
    document["project"]["simulator"] = "geant4"
    document["scoringManager"]["filters"][0]["particle"] = {"id": 6, "name": "Alpha"}
    (quantity,) = read_project(document).outputs[0].quantities
    assert quantity.filter.rules == (("Z", "==", 2.0), ("A", "==", 4.0))


@pytest.mark.parametrize(
    ("code", "name", "particle", "line"),
    [
        ("geant4", "run.mac", {"id": 4, "name": "Electron"}, "/gps/particle e-"),
        ("geant4", "run.mac", {"id": 11, "name": "12C"}, "/gps/ion 6 12 6 0"),
        ("topas", "topas.txt", {"id": 3, "name": "Photon"}, 's:So/Beam/BeamParticle = "gamma"'),
        ("shieldhit", "beam.dat", {"id": 6, "name": "Alpha"}, "JPART0 24"),
        ("shieldhit", "beam.dat", {"id": 11, "name": "12C"}, "HIPROJ 12 6"),
        ("fluka", "fl_sim.inp", {"id": 8, "name": "Muon µ+"}, "MUON+"),
    ],
)
def test_codes_start_the_particle_of_a_geant4_project(code, name, particle, line):
    document = projects.water_phantom(particle=particle)
    document["project"]["simulator"] = "geant4"
    document["scoringManager"]["outputs"] = [projects.output("z_profile", "along")]
    assert line in get_converter(code).convert(read_project(document)).files[name]

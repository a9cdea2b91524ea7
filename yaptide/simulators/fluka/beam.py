"""Writes the cards of the beam: BEAM, HI-PROPE, BEAMPOS and BEAMAXES (FLUKA manual 7).

FLUKA's widths of Gaussian distributions are full widths at half maximum (negative), in momentum, not energy.
"""

import math
from collections.abc import Iterator

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Beam, BeamShape, ParticleKind
from yaptide.editor.sections import quote_text
from yaptide.simulators.fluka.cards import format_card
from yaptide.simulators.projects import is_flat

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian distribution, in standard deviations."""

#: Name and rest energy (GeV) of the particles.
_PARTICLES = {
    ParticleKind.NEUTRON: ("NEUTRON", 0.939565),
    ParticleKind.PROTON: ("PROTON", 0.938272),
    ParticleKind.PION_MINUS: ("PION-", 0.139570),
    ParticleKind.PION_PLUS: ("PION+", 0.139570),
    ParticleKind.ANTINEUTRON: ("ANEUTRON", 0.939565),
    ParticleKind.ANTIPROTON: ("APROTON", 0.938272),
    ParticleKind.KAON_MINUS: ("KAON-", 0.493677),
    ParticleKind.KAON_PLUS: ("KAON+", 0.493677),
    ParticleKind.DEUTERON: ("DEUTERON", 1.875613),
    ParticleKind.TRITON: ("TRITON", 2.808921),
    ParticleKind.HELIUM_3: ("3-HELIUM", 2.808391),
    ParticleKind.ALPHA: ("4-HELIUM", 3.727379),
    ParticleKind.PHOTON: ("PHOTON", 0.0),
    ParticleKind.ELECTRON: ("ELECTRON", 0.000511),
    ParticleKind.POSITRON: ("POSITRON", 0.000511),
    ParticleKind.MUON_MINUS: ("MUON-", 0.105658),
    ParticleKind.MUON_PLUS: ("MUON+", 0.105658),
}
_NUCLEON = 0.931494  # GeV, of an ion
_GEV, _THIN = 1e-3, 1e-6


def format_beam(beam: Beam) -> Iterator[str]:
    """Yield the cards; raise InvalidInput for a beam that FLUKA cannot start."""
    particle, energy, momentum_width = _kinematics(beam)
    yield format_card("BEAM", [-energy, -FWHM * momentum_width, _divergence(beam), *_extension(beam)], particle)
    if particle == "HEAVYION":
        yield format_card("HI-PROPE", [float(beam.particle.z), float(beam.particle.a)])
    yield format_card("BEAMPOS", [*beam.position, 0.0, 0.0])
    if beam.direction[2] < 1:
        yield format_card("BEAMAXES", [*beam.axes[0], *beam.direction])


def _kinematics(beam: Beam) -> tuple[str, float, float]:
    """Return name, kinetic energy (GeV), and standard deviation of the momentum (GeV/c); of ions per nucleon."""
    kind, ions = beam.particle.kind, 1
    if kind is ParticleKind.ION:
        name, mass, ions = "HEAVYION", _NUCLEON, beam.particle.a
    else:
        if kind not in _PARTICLES:
            raise InvalidInput(f"Project, beam: yaptide has no FLUKA name of {quote_text(beam.particle.name)}")
        name, mass = _PARTICLES[kind]
    energy, spread = _GEV * beam.energy / ions, _GEV * beam.spread / ions
    momentum = math.sqrt(energy * (energy + 2 * mass))
    return name, energy, spread * (energy + mass) / momentum


def _divergence(beam: Beam) -> float:
    """Return the divergence in mrad, the same in both directions."""
    x, y = beam.divergence
    if x != y:
        raise InvalidInput(f"Project, beam: FLUKA has one divergence, not {x:g} mrad along x and {y:g} mrad along y")
    if x and beam.focus:
        raise InvalidInput("Project, beam: FLUKA has no focal point of divergent beams: set distanceToFocal to 0")
    return -FWHM * x


def _extension(beam: Beam) -> tuple[float, float, float]:
    """Return WHAT(4), WHAT(5), WHAT(6): FWHM, full sides, or radii with -1. A 0 in WHAT(5) means WHAT(4)."""
    x, y = beam.size
    if is_flat(beam):
        return (x, 0.0, -1.0) if beam.shape is BeamShape.CIRCLE else (2 * max(x, _THIN), 2 * max(y, _THIN), 0.0)
    if not x and not y:
        return 0.0, 0.0, 0.0
    return -FWHM * max(x, _THIN), -FWHM * max(y, _THIN), 0.0

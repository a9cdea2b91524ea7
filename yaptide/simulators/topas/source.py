"""Writes the source of a TOPAS job (TOPAS user guide, "Beam Sources" and "Emittance Sources")."""

from collections.abc import Iterator

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Beam, BeamShape, ParticleKind
from yaptide.editor.sections import quote_text
from yaptide.simulators.projects import beam_frame, is_flat, is_pencil
from yaptide.simulators.topas.geometry import format_placement, format_real

_PARTICLES = {
    ParticleKind.NEUTRON: "neutron",
    ParticleKind.PROTON: "proton",
    ParticleKind.PION_MINUS: "pi-",
    ParticleKind.PION_PLUS: "pi+",
    ParticleKind.ANTINEUTRON: "anti_neutron",
    ParticleKind.ANTIPROTON: "anti_proton",
    ParticleKind.KAON_MINUS: "kaon-",
    ParticleKind.KAON_PLUS: "kaon+",
    ParticleKind.DEUTERON: "deuteron",
    ParticleKind.TRITON: "triton",
    ParticleKind.HELIUM_3: "He3",
    ParticleKind.ALPHA: "alpha",
    ParticleKind.PHOTON: "gamma",
    ParticleKind.ELECTRON: "e-",
    ParticleKind.POSITRON: "e+",
    ParticleKind.MUON_MINUS: "mu-",
    ParticleKind.MUON_PLUS: "mu+",
}
_NAME = "Beam"
_FAR = 100.0  # standard deviations: no cutoff
_RADIANS = 1e-3
_RIGHT = 89.0


def format_source(beam: Beam) -> Iterator[str]:
    """Yield the parameters of the source; raise InvalidInput for a beam that yaptide cannot convert."""
    if any(beam.divergence) and beam.focus:
        raise InvalidInput("Project, beam: yaptide cannot convert a focal point for TOPAS: set distanceToFocal to 0")
    yield f's:Ge/{_NAME}Position/Parent = "World"'
    yield f's:Ge/{_NAME}Position/Type = "Group"'
    yield from format_placement(f"{_NAME}Position", np.array(beam.position), beam_frame(beam))
    yield f's:So/{_NAME}/Type = "Beam"'
    yield f's:So/{_NAME}/Component = "{_NAME}Position"'
    yield f's:So/{_NAME}/BeamParticle = "{name_particle(beam, "TOPAS")}"'
    yield f"d:So/{_NAME}/BeamEnergy = {format_real(beam.energy)} MeV"
    yield f"u:So/{_NAME}/BeamEnergySpread = {format_real(100 * beam.spread / beam.energy)}"
    yield from _positions(beam)
    yield from _angles(beam)
    yield f"i:So/{_NAME}/NumberOfHistoriesInRun = {beam.primaries}"


def name_particle(beam: Beam, title: str) -> str:
    """Return the name of the beam's particle."""
    particle = beam.particle
    if particle.kind is ParticleKind.ION:
        return f"GenericIon({particle.z},{particle.a},{particle.z})"
    if particle.kind not in _PARTICLES:
        raise InvalidInput(f"Project, beam: yaptide has no {title} name of {quote_text(particle.name)}")
    return _PARTICLES[particle.kind]


def _positions(beam: Beam) -> Iterator[str]:
    if is_pencil(beam):
        yield f's:So/{_NAME}/BeamPositionDistribution = "None"'
        return
    shape = "Rectangle" if is_flat(beam) and beam.shape is BeamShape.SQUARE else "Ellipse"
    yield f's:So/{_NAME}/BeamPositionDistribution = "{"Flat" if is_flat(beam) else "Gaussian"}"'
    yield f's:So/{_NAME}/BeamPositionCutoffShape = "{shape}"'
    for axis, size in zip("XY", beam.size, strict=True):
        yield f"d:So/{_NAME}/BeamPositionCutoff{axis} = {format_real(size if is_flat(beam) else _cutoff(size))} cm"
        if not is_flat(beam):
            yield f"d:So/{_NAME}/BeamPositionSpread{axis} = {format_real(size)} cm"


def _cutoff(size: float) -> float:
    return _FAR * size if size else 1.0


def _angles(beam: Beam) -> Iterator[str]:
    if not any(beam.divergence):
        yield f's:So/{_NAME}/BeamAngularDistribution = "None"'
        return
    yield f's:So/{_NAME}/BeamAngularDistribution = "Gaussian"'
    for axis, mrad in zip("XY", beam.divergence, strict=True):
        yield f"d:So/{_NAME}/BeamAngularCutoff{axis} = {format_real(_RIGHT)} deg"
        yield f"d:So/{_NAME}/BeamAngularSpread{axis} = {format_real(_RADIANS * mrad)} rad"

"""Writes ``beam.dat``: the particles, the physics of their transport, and the numbers of primaries and seed."""

import math

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Beam, BeamShape, ParticleKind, Physics
from yaptide.editor.sections import quote_text
from yaptide.simulators.projects import is_flat

#: The file with spots of a beam.
SPOTS = "sobp.dat"
_SEED = 89736501
#: Numbers of particles in SHIELD-HIT12A.
_PARTICLES = {
    ParticleKind.NEUTRON: 1,
    ParticleKind.PROTON: 2,
    ParticleKind.PION_MINUS: 3,
    ParticleKind.PION_PLUS: 4,
    ParticleKind.PION_ZERO: 5,
    ParticleKind.ANTINEUTRON: 6,
    ParticleKind.ANTIPROTON: 7,
    ParticleKind.KAON_MINUS: 8,
    ParticleKind.KAON_PLUS: 9,
    ParticleKind.KAON_ZERO: 10,
    ParticleKind.ANTIKAON_ZERO: 11,
    ParticleKind.DEUTERON: 21,
    ParticleKind.TRITON: 22,
    ParticleKind.HELIUM_3: 23,
    ParticleKind.ALPHA: 24,
    ParticleKind.ION: 25,
}
_STRAGGLING = {"no straggling": 0, "Gaussian": 1, "Vavilov": 2}
_SCATTERING = {"no scattering": 0, "Gaussian": 1, "Moliere": 2}
_THIN = 1e-6  # cm, instead of a width of 0 that would select another shape


def format_beam(beam: Beam, physics: Physics) -> str:
    """Return beam.dat; raise InvalidInput for an unknown particle or model."""
    theta, phi = _angles(beam)
    per_nucleon = max(beam.particle.a, 1)
    lines = [
        f"RNDSEED {_SEED}",
        *_particle(beam),
        f"TMAX0 {_real(beam.energy / per_nucleon)} {_real(beam.spread / per_nucleon)}  ! MeV per nucleon, sigma",
        f"TCUT0 {_real(beam.cutoffs[0] / per_nucleon)} {_real(beam.cutoffs[1] / per_nucleon)}",
        f"NSTAT {beam.primaries} 0",
        f"STRAGG {_choose(physics.straggling, _STRAGGLING, 'energyModelStraggling')}",
        f"MSCAT {_choose(physics.scattering, _SCATTERING, 'multipleScattering')}",
        f"NUCRE {int(physics.nuclear_reactions)}",
        f"BEAMPOS {' '.join(map(_real, beam.position))}",
        f"BEAMDIR {_real(theta)} {_real(phi)}  ! degrees",
        f"BEAMSIGMA {' '.join(map(_real, _extension(beam)))}",
        *_optional(beam),
        f"DELTAE {_real(physics.energy_loss)}",
    ]
    return "\n".join(lines) + "\n"


def _particle(beam: Beam) -> list[str]:
    particle = beam.particle
    if particle.kind not in _PARTICLES:
        raise InvalidInput(f"Project, beam: SHIELD-HIT12A has no beam of {quote_text(particle.name)}")
    ion = [f"HIPROJ {particle.a} {particle.z}"] if particle.kind is ParticleKind.ION else []
    return [f"JPART0 {_PARTICLES[particle.kind]}", *ion]


def _angles(beam: Beam) -> tuple[float, float]:
    """Return the polar angle and the azimuth, 0 to 360, of the direction in degrees."""
    x, y, z = beam.direction
    return math.degrees(math.atan2(math.hypot(x, y), z)), math.degrees(math.atan2(y, x)) % 360


def _extension(beam: Beam) -> tuple[float, float]:
    """Return the values of BEAMSIGMA: both negative for a square, the second for a circle."""
    x, y = beam.size
    if not is_flat(beam):
        return x, y
    if beam.shape is BeamShape.CIRCLE:
        return x, -x
    return -max(x, _THIN), -max(y, _THIN)


def _optional(beam: Beam) -> list[str]:
    lines = []
    if any(beam.divergence):
        lines.append(f"BEAMDIV {' '.join(map(_real, (*beam.divergence, beam.focus)))}  ! mrad, mrad, cm")
    if beam.distances is not None:
        lines.append(f"BEAMSAD {' '.join(map(_real, beam.distances))}")
    if beam.source is not None:
        lines.append(f"USECBEAM {SPOTS}")
    return lines


def _choose(name: str, models: dict[str, int], key: str) -> int:
    if name not in models:
        raise InvalidInput(f"Project, physic: SHIELD-HIT12A has no model {quote_text(name)} for {key}")
    return models[name]


def _real(value: float) -> str:
    return f"{value + 0.0:.10g}"  # without the sign of -0

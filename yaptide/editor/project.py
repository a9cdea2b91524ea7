"""A parsed project of the web editor: beam, figures, zones, materials, detectors and outputs.

Lengths are in cm, angles in degrees, energies in MeV. `yaptide.editor.reading` validates everything that it creates.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Doubles = NDArray[np.float64]

#: ICRU numbers with a special meaning.
BLACK_HOLE, VACUUM = 0, 1000


class BeamShape(Enum):
    """Distribution of the particles over the plane where they start."""

    GAUSSIAN = "Gaussian"
    SQUARE = "Flat square"
    CIRCLE = "Flat circular"


class ParticleKind(Enum):
    """Kinds of beam particles, by their PDG codes. An ION is any other nucleus, without a code of its own here."""

    NEUTRON = 2112
    PROTON = 2212
    ANTINEUTRON = -2112
    ANTIPROTON = -2212
    PION_MINUS = -211
    PION_PLUS = 211
    PION_ZERO = 111
    KAON_MINUS = -321
    KAON_PLUS = 321
    KAON_ZERO = 311
    ANTIKAON_ZERO = -311
    PHOTON = 22
    ELECTRON = 11
    POSITRON = -11
    MUON_MINUS = 13
    MUON_PLUS = -13
    DEUTERON = 1000010020
    TRITON = 1000010030
    HELIUM_3 = 1000020030
    ALPHA = 1000020040
    ION = 0

    @property
    def title(self) -> str:
        """The kind in words."""
        return "Heavy ion" if self is ParticleKind.ION else self.name.capitalize().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Particle:
    """A beam particle: its name, its kind, the mass number `a` (0 for particles that are not nuclei) and charge `z`."""

    name: str
    kind: ParticleKind
    a: int = 1
    z: int = 1

    @property
    def is_proton(self) -> bool:
        """Whether it is a proton."""
        return self.kind is ParticleKind.PROTON


@dataclass(frozen=True, slots=True)
class Beam:
    """The beam.

    `energy` and `spread` (one standard deviation) are in MeV of the whole particle. `size` along the beam's own x and y
    is one standard deviation of a Gaussian, half of the sides of a square, or twice the radius of a circle.
    `divergence` is in mrad, `focus` is the distance to its focal point. `source` is the name and text of a file that
    describes the particles instead, if there is one; `distances` (SAD) are the distances from the source to the axis,
    None for parallel particles.
    """

    particle: Particle
    energy: float
    spread: float
    cutoffs: tuple[float, float]
    position: Vector
    direction: Vector
    shape: BeamShape
    size: tuple[float, float]
    divergence: tuple[float, float]
    focus: float
    distances: tuple[float, float] | None
    source: tuple[str, str] | None
    primaries: int

    @property
    def axes(self) -> tuple[Vector, Vector]:
        """Unit vectors along the beam's own x and y.

        The laboratory frame is rotated by the polar angle about y, then by the azimuth about z, so that a beam along z
        has the axes of the laboratory.
        """
        dx, dy, dz = self.direction
        sine = float(np.hypot(dx, dy))
        cos_phi, sin_phi = (dx / sine, dy / sine) if sine > 0 else (1.0, 0.0)
        return (dz * cos_phi, dz * sin_phi, -sine), (-sin_phi, cos_phi, 0.0)


@dataclass(frozen=True, slots=True)
class Material:
    """The material of a zone: `density` in g/cm3.

    `ionisation` is the mean ionisation potential in eV, more than 0, if the user sets one; `own_table` tells whether
    the user provides a table of stopping powers.
    """

    name: str
    icru: int
    density: float
    ionisation: float | None = None
    own_table: bool = False

    @property
    def is_black_hole(self) -> bool:
        """Whether it absorbs all particles."""
        return self.icru == BLACK_HOLE

    @property
    def is_empty(self) -> bool:
        """Whether particles do not interact in it."""
        return self.icru in (BLACK_HOLE, VACUUM)


class Solid(Enum):
    """Kinds of figures."""

    BOX = "box"
    CYLINDER = "cylinder"
    SPHERE = "sphere"


@dataclass(frozen=True, slots=True)
class Figure:
    """A solid: `centre`, and `axes`, shape (3, 3), whose columns are its own x, y and z.

    `size` is the full length along its own axes, which defines a box. A cylinder along its z and a sphere have a
    `radius`; a cylinder may have an `inner` radius.
    """

    name: str
    solid: Solid
    centre: Vector
    axes: Doubles
    size: Vector
    radius: float = 0.0
    inner: float = 0.0


class Mode(Enum):
    """How a figure is combined with those before it."""

    UNION = "union"
    INTERSECTION = "intersection"
    SUBTRACTION = "subtraction"


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the world made of one material.

    It is the union of `terms`. Each term begins empty, and its operations are applied in order.
    """

    name: str
    uuid: str
    material: Material
    terms: tuple[tuple[tuple[Mode, Figure], ...], ...]


@dataclass(frozen=True, slots=True)
class World:
    """The surroundings of the zones. Outside `figure`, which may have no volume, is a black hole."""

    figure: Figure
    material: Material


@dataclass(frozen=True, slots=True)
class Mesh:
    """A detector with a grid of boxes along x, y, z: full `size` and number of `bins` along each."""

    name: str
    centre: Vector
    size: Vector
    bins: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Cylinder:
    """A detector with a grid of rings around a line along z: bins along the radius and z."""

    name: str
    centre: Vector
    inner: float
    radius: float
    depth: float
    bins: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ZoneDetector:
    """A detector that is a zone; `zone` is its index in the project's zones."""

    name: str
    zone: int


@dataclass(frozen=True, slots=True)
class Everywhere:
    """A detector that covers the whole world."""

    name: str


Detector = Mesh | Cylinder | ZoneDetector | Everywhere


@dataclass(frozen=True, slots=True)
class Filter:
    """The particles that are counted: all `rules` (keyword, operator, value) hold. Without rules, all are counted.

    `other` describes conditions that rules cannot express.
    """

    name: str
    rules: tuple[tuple[str, str, float], ...]
    other: str = ""

    @property
    def is_protons(self) -> bool:
        """Whether it counts only protons, primary and secondary."""
        return not self.other and set(self.rules) == {("Z", "==", 1.0), ("A", "==", 1.0)}


@dataclass(frozen=True, slots=True)
class Modifier:
    """A variable of a differential quantity: its `kind` (E: energy), limits, and equal or logarithmic bins."""

    kind: str
    low: float
    high: float
    bins: int
    is_logarithmic: bool


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity to score: `keyword` such as ``Dose``, and the user's `name`.

    `modifiers` are the variables of a differential quantity. The result is multiplied by `rescale`.
    `extras` describe other settings.
    """

    name: str
    keyword: str
    filter: Filter | None
    modifiers: tuple[Modifier, ...]
    rescale: float
    extras: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """Quantities scored in a detector, None if not chosen yet; `trace` also requests a list of particles."""

    name: str
    detector: Detector | None
    quantities: tuple[Quantity, ...]
    trace: bool


@dataclass(frozen=True, slots=True)
class Physics:
    """Transport of particles; names of models are the editor's.

    `energy_loss` is the largest relative loss of energy in a step.
    """

    nuclear_reactions: bool
    straggling: str
    scattering: str
    energy_loss: float = 0.03


@dataclass(frozen=True, slots=True)
class Project:
    """A whole project. Where zones overlap, the first one wins.

    `special` names other objects in the beam: a modulator, a CT.
    """

    title: str
    beam: Beam
    zones: tuple[Zone, ...]
    world: World
    outputs: tuple[Output, ...]
    physics: Physics
    special: tuple[str, ...]

"""A project of the web editor as it is meant: beam, figures, zones, materials, detectors and outputs.

Lengths are in cm, angles in degrees, energies in MeV. `yaptide.editor.reading` checks everything that it makes.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Doubles = NDArray[np.float64]

#: ICRU numbers with a meaning of their own.
BLACK_HOLE, VACUUM = 0, 1000


class BeamShape(Enum):
    """How the particles are spread over the plane in which they start."""

    GAUSSIAN = "Gaussian"
    SQUARE = "Flat square"
    CIRCLE = "Flat circular"


@dataclass(frozen=True, slots=True)
class Particle:
    """What is shot."""

    name: str
    is_proton: bool


@dataclass(frozen=True, slots=True)
class Beam:
    """The beam.

    `energy` and `spread` (one standard deviation) are in MeV of the whole particle. `size` along the beam's own x and y
    is one standard deviation for a Gaussian, half of the sides for a square, and the radius, twice, for a circle.
    `divergence` is in mrad, `focus` the distance to the focal point that it belongs to. `source` is the name and the
    text of the file that describes the particles instead, if there is one; `distances` (SAD) are then those from the
    source to the axis, None if the particles are parallel.
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

        The frame of the laboratory is turned by the polar angle about y, then by the azimuth about z, so that a beam
        along z has the axes of the laboratory.
        """
        dx, dy, dz = self.direction
        sine = float(np.hypot(dx, dy))
        cos_phi, sin_phi = (dx / sine, dy / sine) if sine > 0 else (1.0, 0.0)
        return (dz * cos_phi, dz * sin_phi, -sine), (-sin_phi, cos_phi, 0.0)


@dataclass(frozen=True, slots=True)
class Material:
    """What a zone is made of: `density` in g/cm3.

    `ionisation` is the mean ionisation potential that somebody has asked for, in eV; `own_table` says that a table of
    stopping powers of one's own was asked for.
    """

    name: str
    icru: int
    density: float
    ionisation: float | None = None
    own_table: bool = False

    @property
    def is_black_hole(self) -> bool:
        """Whether it swallows everything."""
        return self.icru == BLACK_HOLE

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it that particles meet."""
        return self.icru in (BLACK_HOLE, VACUUM)


class Solid(Enum):
    """Kinds of figures."""

    BOX = "box"
    CYLINDER = "cylinder"
    SPHERE = "sphere"


@dataclass(frozen=True, slots=True)
class Figure:
    """A solid: `centre`, and `axes`, shape (3, 3), whose columns are its own x, y and z.

    `size` is the full length along its own axes, which are all there is of a box. A cylinder along its z and a sphere
    have a `radius`, a cylinder may have an `inner` one.
    """

    name: str
    solid: Solid
    centre: Vector
    axes: Doubles
    size: Vector
    radius: float = 0.0
    inner: float = 0.0


class Mode(Enum):
    """What the next figure does to what the ones before it are."""

    UNION = "union"
    INTERSECTION = "intersection"
    SUBTRACTION = "subtraction"


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the world made of one material.

    It is the union of `terms`. Each term begins with nothing, and its operations are done one after the other.
    """

    name: str
    uuid: str
    material: Material
    terms: tuple[tuple[tuple[Mode, Figure], ...], ...]


@dataclass(frozen=True, slots=True)
class World:
    """What is around the zones. Outside of `figure`, which may have no volume, is a black hole."""

    figure: Figure
    material: Material


@dataclass(frozen=True, slots=True)
class Mesh:
    """A detector that is a grid of boxes along x, y, z: full `size` and number of `bins` along each."""

    name: str
    centre: Vector
    size: Vector
    bins: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Cylinder:
    """A detector that is a grid of rings around a line along z: bins of the radius and of z."""

    name: str
    centre: Vector
    inner: float
    radius: float
    depth: float
    bins: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ZoneDetector:
    """A detector that is a zone; `zone` is its place among the project's zones."""

    name: str
    zone: int


@dataclass(frozen=True, slots=True)
class Everywhere:
    """A detector that is everything inside of the world."""

    name: str


Detector = Mesh | Cylinder | ZoneDetector | Everywhere


@dataclass(frozen=True, slots=True)
class Filter:
    """Which particles are counted: all `rules` (keyword, operator, value) hold. Without rules it counts all.

    `other` says in words what cannot be said by rules.
    """

    name: str
    rules: tuple[tuple[str, str, float], ...]
    other: str = ""

    @property
    def is_protons(self) -> bool:
        """Whether it counts protons, primary and secondary, and nothing else."""
        return not self.other and set(self.rules) == {("Z", "==", 1.0), ("A", "==", 1.0)}


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is scored: `keyword` such as ``Dose``, the user's own `name`, and how.

    `modifiers` are the variables (such as energy) by which it is differential. `rescale` multiplies the result.
    `extras` are other settings, in words.
    """

    name: str
    keyword: str
    filter: Filter | None
    modifiers: tuple[str, ...]
    rescale: float
    extras: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """Quantities scored in a detector, None if there is none yet; `trace` asks for a list of particles too."""

    name: str
    detector: Detector | None
    quantities: tuple[Quantity, ...]
    trace: bool


@dataclass(frozen=True, slots=True)
class Physics:
    """How particles are transported; names of models are the editor's."""

    nuclear_reactions: bool
    straggling: str
    scattering: str


@dataclass(frozen=True, slots=True)
class Project:
    """A whole project. Where zones overlap, the one that comes first counts.

    `special` names what else stands in the way of the beam: a modulator, a CT.
    """

    title: str
    beam: Beam
    zones: tuple[Zone, ...]
    world: World
    outputs: tuple[Output, ...]
    physics: Physics
    special: tuple[str, ...]

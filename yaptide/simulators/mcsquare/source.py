"""The beam of a project as a beam data library of one energy and a plan of one field.

The protons start at the isocentre, which is where the beam of the project starts: the nozzle is right before it. A
beam that is not Gaussian is made of many small spots.
"""

import math

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Beam, BeamShape, Doubles
from yaptide.simulators.mcsquare import bdl, geometry, plan
from yaptide.simulators.mcsquare.plan import Spot
from yaptide.simulators.mcsquare.voxels import Space

#: MeV: what MCsquare has data of nuclear reactions for, and more than what it no longer follows.
LEAST_ENERGY, MOST_ENERGY = 1.0, 250.0

#: Of a Gaussian, nothing is then below 0.
_LEAST_ENERGY_OVER_SPREAD = 5

_MM = 10.0
#: mm from the nozzle to where the protons start, and to the magnets: spots are parallel to each other.
_NOZZLE, _FAR = 1e-3, 1e6
#: MCsquare loses beams without any divergence (rad): this is 0.002 mm in 20 cm. Wide spots need more for each mm, and
#: some correlation of place and angle, in rad for each mm.
_DIVERGENCE, _DIVERGENCE_OF_WIDTH, _TILT, _CORRELATION = 1e-5, 1e-7, 2e-8, 1e-4
_SMALLEST_SPOT = 0.01  # mm
_MOST_SPOTS = 3000
#: Spots of a flat beam are that far from each other, in parts of its size, or nearer.
_PARTS = 30
_REACH = 4.0  # standard deviations


def make_source(beam: Beam, space: Space) -> tuple[bdl.BDL, plan.Plan]:
    """Beam library and plan; raises InvalidInput for energies that MCsquare has no data for."""
    if not LEAST_ENERGY <= beam.energy <= MOST_ENERGY:
        raise InvalidInput(f"The beam has {beam.energy:g} MeV: MCsquare takes {LEAST_ENERGY:g} to {MOST_ENERGY:g} MeV")
    if beam.spread > beam.energy / _LEAST_ENERGY_OVER_SPREAD:
        raise InvalidInput(f"The beam has {beam.energy:g} MeV with a spread of {beam.spread:g} MeV, which is too wide")
    gantry, couch = geometry.angles(beam.direction)
    turn = _turn(beam, gantry, couch)
    size, spots = _spots(beam, turn, max(space.voxel) * _MM)
    point = plan.ControlPoint(beam.energy, tuple(spots))
    x, y, z = space.place(beam.position)
    centre = (space.grid.length(0) - x, y, z)  # the plan's x is mirrored
    return _library(beam, size, turn), plan.Plan((plan.Field(gantry, couch, centre, (point,)),))


def _library(beam: Beam, size: tuple[float, float], turn: Doubles) -> bdl.BDL:
    """One energy, with spots of a `size` in mm along X and Y."""
    divergences = np.sqrt(turn**2 @ np.square(beam.divergence))
    spot: list[float] = []
    for sigma, mrad in zip(size, divergences.tolist(), strict=True):
        width = max(sigma, _SMALLEST_SPOT)
        divergence = max(mrad / 1000, _DIVERGENCE, _DIVERGENCE_OF_WIDTH * width)
        spot += [width, divergence, max(_CORRELATION, _TILT * width / divergence)]
    row = (beam.energy, beam.energy, 100 * beam.spread / beam.energy, 1e8, 1.0, *spot, 0.0, *spot)
    return bdl.BDL((_NOZZLE, _FAR, _FAR), (), (row,))


def _turn(beam: Beam, gantry: float, couch: float) -> Doubles:
    """The matrix, shape (2, 2), that makes (X, Y) of the plan from x and y of the beam."""
    return np.asarray(np.array(geometry.spot_axes(gantry, couch)) @ np.array(beam.axes).T)


def _spots(beam: Beam, turn: Doubles, voxel: float) -> tuple[tuple[float, float], list[Spot]]:
    """The size of each spot in mm along X and Y, and the spots."""
    width, height = (size * _MM for size in beam.size)
    if beam.shape is not BeamShape.GAUSSIAN and max(width, height) > 0:
        points, step = _flat(beam.shape, width, height, voxel)
        return (step / 2, step / 2), _placed(points, np.ones(len(points)), turn)
    if abs(turn[0, 0]) > 1 - 1e-9 or math.isclose(width, height):
        return (width, height), [(0.0, 0.0, 1.0)]
    if abs(turn[0, 1]) > 1 - 1e-9:
        return (height, width), [(0.0, 0.0, 1.0)]
    return _tilted(width, height, turn)


def _flat(shape: BeamShape, width: float, height: float, voxel: float) -> tuple[Doubles, float]:
    """Points, shape (n, 2), that fill a rectangle or circle of these half sides, and their distance, in mm."""
    area = 4 * max(width, _SMALLEST_SPOT) * max(height, _SMALLEST_SPOT)
    step = max(min(voxel, max(width, height) / _PARTS), math.sqrt(area / _MOST_SPOTS))
    x, y = (_middles(half, step) for half in (width, height))
    points = np.stack([each.ravel() for each in np.meshgrid(x, y)], axis=1)
    if shape is BeamShape.CIRCLE:
        points = points[np.hypot(*points.T) <= width]
    return points, step


def _middles(half: float, step: float) -> Doubles:
    """The middles of equal parts of -half .. half, none longer than `step`."""
    parts = max(1, math.ceil(2 * half / step - 1e-9))
    return np.asarray((np.arange(parts) + 0.5) * (2 * half / parts) - half)


def _tilted(width: float, height: float, turn: Doubles) -> tuple[tuple[float, float], list[Spot]]:
    """A Gaussian that is longer along one axis, as round spots along it."""
    least, most = sorted((width, height))
    extra = math.sqrt(most**2 - least**2)
    size = max(least, extra / 40)
    line = _middles(_REACH * extra, size)
    points = np.zeros((len(line), 2))
    points[:, 0 if width > height else 1] = line
    return (size, size), _placed(points, np.exp(-((line / extra) ** 2) / 2), turn)


def _placed(points: Doubles, weights: Doubles, turn: Doubles) -> list[Spot]:
    """Spots at points of the beam's own x and y."""
    x, y = turn @ points.T
    columns = (np.round(x, 4).tolist(), np.round(y, 4).tolist(), np.round(weights, 6).tolist())
    return [(x, y, weight) for x, y, weight in zip(*columns, strict=True) if weight > 0]

"""The beam of a project as a beam data library with one energy and a plan with one field.

Protons start at the isocentre, which is at the start of the project's beam: the nozzle is just before it. A beam that
is not Gaussian consists of many small spots.
"""

import math

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Beam, BeamShape, Doubles
from yaptide.simulators.mcsquare import beam_library, geometry, plan
from yaptide.simulators.mcsquare.plan import Spot
from yaptide.simulators.mcsquare.voxels import Space

#: MeV: MCsquare has data of nuclear reactions up to the maximum, and does not transport protons below the minimum.
LEAST_ENERGY, MOST_ENERGY = 1.0, 250.0

#: Minimum, so that the Gaussian distribution has no negative energies.
_LEAST_ENERGY_OVER_SPREAD = 5

_MM = 10.0
#: mm from the nozzle to the start of the protons, and to the magnets: far, so that spots are parallel.
_NOZZLE, _FAR = 1e-3, 1e6
#: MCsquare loses beams without divergence (rad): the minimum equals 0.002 mm in 20 cm. Wide spots need more per mm,
#: and some correlation of position and angle, in rad per mm.
_DIVERGENCE, _DIVERGENCE_OF_WIDTH, _TILT, _CORRELATION = 1e-5, 1e-7, 2e-8, 1e-4
_SMALLEST_SPOT = 0.01  # mm
_MOST_SPOTS = 3000
#: Maximum distance of spots of a flat beam, as a fraction of its size.
_PARTS = 30
_REACH = 4.0  # standard deviations


def make_source(beam: Beam, space: Space) -> tuple[beam_library.BDL, plan.Plan]:
    """Return beam library and plan; raise InvalidInput for energies without data in MCsquare."""
    if not LEAST_ENERGY <= beam.energy <= MOST_ENERGY:
        limits = f"MCsquare supports {LEAST_ENERGY:g} to {MOST_ENERGY:g} MeV"
        raise InvalidInput(f"The beam has {beam.energy:g} MeV: {limits}")
    if beam.spread > beam.energy / _LEAST_ENERGY_OVER_SPREAD:
        raise InvalidInput(f"The energy spread {beam.spread:g} MeV is too wide for a beam of {beam.energy:g} MeV")
    gantry, couch = geometry.beam_angles(beam.direction)
    turn = _turn(beam, gantry, couch)
    size, spots = _spots(beam, turn, max(space.voxel) * _MM)
    point = plan.ControlPoint(beam.energy, tuple(spots))
    x, y, z = space.to_grid(beam.position)
    centre = (space.grid.axis_length(0) - x, y, z)  # the plan's x is mirrored
    return _library(beam, size, turn), plan.Plan((plan.Field(gantry, couch, centre, (point,)),))


def _library(beam: Beam, size: tuple[float, float], turn: Doubles) -> beam_library.BDL:
    """Return a library with one energy, and spots of a `size` in mm along X and Y."""
    divergences = np.sqrt(turn**2 @ np.square(beam.divergence))
    spot: list[float] = []
    for sigma, mrad in zip(size, divergences.tolist(), strict=True):
        width = max(sigma, _SMALLEST_SPOT)
        divergence = max(mrad / 1000, _DIVERGENCE, _DIVERGENCE_OF_WIDTH * width)
        spot += [width, divergence, max(_CORRELATION, _TILT * width / divergence)]
    row = (beam.energy, beam.energy, 100 * beam.spread / beam.energy, 1e8, 1.0, *spot, 0.0, *spot)
    return beam_library.BDL((_NOZZLE, _FAR, _FAR), (), (row,))


def _turn(beam: Beam, gantry: float, couch: float) -> Doubles:
    """Return the matrix, shape (2, 2), from x and y of the beam to (X, Y) of the plan."""
    return np.asarray(np.array(geometry.spot_axes(gantry, couch)) @ np.array(beam.axes).T)


def _spots(beam: Beam, turn: Doubles, voxel: float) -> tuple[tuple[float, float], list[Spot]]:
    """Return the size of spots in mm along X and Y, and the spots."""
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
    """Return points, shape (n, 2), in a rectangle or circle with these half sides, and their distance, in mm."""
    area = 4 * max(width, _SMALLEST_SPOT) * max(height, _SMALLEST_SPOT)
    step = max(min(voxel, max(width, height) / _PARTS), math.sqrt(area / _MOST_SPOTS))
    x, y = (_middles(half, step) for half in (width, height))
    points = np.stack([coordinates.ravel() for coordinates in np.meshgrid(x, y)], axis=1)
    if shape is BeamShape.CIRCLE:
        points = points[np.hypot(*points.T) <= width]
    return points, step


def _middles(half: float, step: float) -> Doubles:
    """Return the centres of equal parts of -half .. half, none longer than `step`."""
    parts = max(1, math.ceil(2 * half / step - 1e-9))
    return np.asarray((np.arange(parts) + 0.5) * (2 * half / parts) - half)


def _tilted(width: float, height: float, turn: Doubles) -> tuple[tuple[float, float], list[Spot]]:
    """Return an elliptic Gaussian as round spots along its long axis."""
    least, most = sorted((width, height))
    extra = math.sqrt(most**2 - least**2)
    size = max(least, extra / 40)
    line = _middles(_REACH * extra, size)
    points = np.zeros((len(line), 2))
    points[:, 0 if width > height else 1] = line
    return (size, size), _placed(points, np.exp(-((line / extra) ** 2) / 2), turn)


def _placed(points: Doubles, weights: Doubles, turn: Doubles) -> list[Spot]:
    """Return spots at points in the beam's x and y."""
    x, y = turn @ points.T
    columns = (np.round(x, 4).tolist(), np.round(y, 4).tolist(), np.round(weights, 6).tolist())
    return [(x, y, weight) for x, y, weight in zip(*columns, strict=True) if weight > 0]

"""The path of the beam through the grid.

Measured with MCsquare 1.1, along the axes of the raw data: x in the plan is Lx - x in the grid, y and z are equal, and
a beam at gantry angle g and patient support angle c has the direction (sin g cos c, -cos g, sin g sin c).
"""

import math
from dataclasses import dataclass

from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.plan import Field, Plan

Vector = tuple[float, float, float]

#: Sine of the maximum angle at which a beam counts as parallel to an axis: 1 um per m.
_ALONG = 1e-6
#: Tolerance in mm of a ray that touches the grid.
_NEAR = 1e-6


@dataclass(frozen=True, slots=True)
class Ray:
    """The central ray of a field, in mm from the corner of the grid, along the axes of the raw data.

    It passes the isocentre along the unit vector `direction`, enters the grid at `entry`, and runs `length` mm in it.
    """

    direction: Vector
    entry: Vector
    length: float

    @property
    def axis(self) -> int:
        """The axis of the grid (0, 1, 2 for x, y, z) nearest to the ray."""
        return max(range(3), key=lambda axis: abs(self.direction[axis]))

    @property
    def normal(self) -> int:
        """The axis farthest from the ray; of two perpendicular ones, the later."""
        return min(reversed(range(3)), key=lambda axis: abs(self.direction[axis]))

    @property
    def is_oblique(self) -> bool:
        """Whether the ray is parallel to none of the axes."""
        return abs(self.direction[self.axis]) != 1

    @property
    def angle(self) -> float:
        """Angle in radians between the ray and the nearest axis."""
        return math.acos(abs(self.direction[self.axis]))

    def first_voxel(self, grid: Grid) -> tuple[int, int, int]:
        """Return the indices along x, y and z of the voxel where the ray enters."""
        x, y, z = (
            min(int((start + 1e-3 * min(grid.spacing) * step) / size), count - 1)
            for start, step, size, count in zip(self.entry, self.direction, grid.spacing, grid.shape, strict=True)
        )
        return x, y, z


def isocentre_position(field: Field, grid: Grid) -> Vector:
    """Return the isocentre in mm from the corner of the grid, along the axes of the raw data."""
    x, y, z = field.isocentre
    return grid.axis_length(0) - x, y, z


def beam_direction(field: Field) -> Vector:
    """Return the unit vector of a field's beam direction."""
    gantry, couch = math.radians(field.gantry), math.radians(field.couch)
    exact = (math.sin(gantry) * math.cos(couch), -math.cos(gantry), math.sin(gantry) * math.sin(couch))
    x, y, z = (0.0 if abs(part) < _ALONG else part for part in exact)
    length = math.hypot(x, y, z)
    return x / length, y / length, z / length


def central_ray(field: Field, grid: Grid) -> Ray:
    """Return the central ray of `field`, which must meet the grid; its isocentre may be outside."""
    along, position = beam_direction(field), isocentre_position(field, grid)
    begin, end = _crossing(field, grid)
    x, y, z = (min(max(position[axis] + begin * along[axis], 0.0), grid.axis_length(axis)) for axis in range(3))
    return Ray(along, (x, y, z), max(end - begin, 0.0))


def misses_grid(field: Field, grid: Grid, nozzle: float) -> bool:
    """Return whether the central ray of `field`, from `nozzle` mm before the isocentre on, misses the grid."""
    begin, end = _crossing(field, grid)
    return not max(begin, -nozzle) <= end + _NEAR


def _crossing(field: Field, grid: Grid) -> tuple[float, float]:
    """Return where a central ray enters and leaves the grid, in mm after the isocentre; it misses if begin > end."""
    along, position = beam_direction(field), isocentre_position(field, grid)
    begin, end = -math.inf, math.inf
    for axis in range(3):
        length = grid.axis_length(axis)
        if along[axis]:
            first, last = sorted((edge - position[axis]) / along[axis] for edge in (0.0, length))
            begin, end = max(begin, first), min(end, last)
        elif not 0 <= position[axis] <= length:
            return math.inf, -math.inf
    return begin, end


def no_range(plan: Plan, ray: Ray, resolution: float) -> str | None:
    """Return why the depth curve along `central_ray` has no range to within `resolution` mm; None if it has one."""
    if not all(_same_ray(field, plan.fields[0]) for field in plan.fields):
        return f"{len(plan.fields)} fields: a range is defined for one beam only"
    if ray.length < resolution:
        return "the ray through the isocenter leaves the CT where it enters"
    distance = _distance_of_spots(plan)
    if distance * math.tan(ray.angle) > resolution:
        return (
            f"the spots are {distance:.1f} mm from the ray (root mean square), which is {math.degrees(ray.angle):.1f} "
            "degrees from an axis of the CT, so their protons do not stop at one depth"
        )
    return None


def _same_ray(one: Field, other: Field) -> bool:
    """Return whether two fields have the same beam: its layers may be written as several fields."""
    near = math.dist(beam_direction(one), beam_direction(other)) < _ALONG
    return near and math.dist(one.isocentre, other.isocentre) < _ALONG


def _distance_of_spots(plan: Plan) -> float:
    """Return the root mean square distance in mm between spots and the central rays of their fields, by weight."""
    spots = [spot for field in plan.fields for point in field.points for spot in point.spots]
    heaviest = max(weight for _, _, weight in spots)
    weights = [weight / heaviest for _, _, weight in spots]
    squares = sum(weight * (x * x + y * y) for weight, (x, y, _) in zip(weights, spots, strict=True))
    return math.sqrt(squares / sum(weights))


def beam_angles(along: Vector) -> tuple[float, float]:
    """Return the gantry and patient support angles, in degrees, of a beam along a unit vector."""
    x, y, z = along
    return math.degrees(math.acos(min(max(-y, -1.0), 1.0))), math.degrees(math.atan2(z, x)) if math.hypot(x, z) else 0.0


def spot_axes(gantry: float, couch: float) -> tuple[Vector, Vector]:
    """Return the unit vectors of a spot's X and Y in the axes of the raw data; measured."""
    g, c = math.radians(gantry), math.radians(couch)
    return (-math.cos(g) * math.cos(c), -math.sin(g), -math.cos(g) * math.sin(c)), (-math.sin(c), 0.0, math.cos(c))

"""The CT in the plane of the beam."""

import numpy as np

from yaptide.domain.slices import Point, Slice, coarse_shape, format_point
from yaptide.simulators.mcsquare import geometry
from yaptide.simulators.mcsquare.ct import CT
from yaptide.simulators.mcsquare.geometry import Ray, Vector
from yaptide.simulators.mcsquare.inputs import Inputs
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels
from yaptide.simulators.mcsquare.plan import Plan

_AXES = "xyz"
_AIR, _BONE = -1000.0, 1500.0  # HU: black and white
_STEPS = 9
_MOST_FIELDS = 20
_MOST_VALUES = 8


def slice_inputs(inputs: Inputs) -> Slice:
    """Return the plane through the isocentre of the first field that its beam lies in, or is nearest to.

    If the isocentre is outside the grid, the plane goes through the point where the beam enters.
    Coordinates are those of the results: the CT's own, in mm.
    """
    grid, fields = inputs.ct.grid, inputs.plan.fields
    rays = [geometry.central_ray(field, grid) for field in fields[:_MOST_FIELDS]]
    centre = geometry.isocentre_position(fields[0], grid)
    normal, along = rays[0].normal, rays[0].axis
    other = 3 - normal - along
    is_inside = 0 <= centre[normal] <= grid.axis_length(normal)
    point, what = (centre, "through the isocenter") if is_inside else (rays[0].entry, "where the beam enters")
    values, parts, shades = _parts(_cut(inputs.ct, normal, point[normal], along, other))
    low, high = (
        grid.to_ct_coordinates((0.0, 0.0, 0.0)),
        grid.to_ct_coordinates((grid.axis_length(0), grid.axis_length(1), grid.axis_length(2))),
    )
    return Slice(
        values,
        parts,
        (_AXES[along], _AXES[other]),
        (low[along], high[along], low[other], high[other]),
        "mm",
        f"{_AXES[normal]} = {grid.to_ct_coordinates(point)[normal]:.4g} mm, {what}",
        tuple(_line(ray, grid, along, other) for ray in rays),
        tuple(_facts(inputs.plan, rays[0], grid, centre)),
        shades,
    )


def _cut(ct: CT, normal: int, at: float, along: int, other: int) -> Voxels:
    """HU in a plane, of every so many voxels, shape (rows along `other`, columns along `along`)."""
    grid = ct.grid
    number = min(int(at / grid.spacing[normal]), grid.shape[normal] - 1)
    plane = np.take(ct.hu, number, axis=2 - normal)  # the array's axes are z, y, x
    plane = plane if along < other else plane.T
    columns, rows = coarse_shape(grid.axis_length(along), grid.axis_length(other))
    picked = [_picked(count, size) for count, size in ((rows, grid.shape[other]), (columns, grid.shape[along]))]
    return np.asarray(plane[np.ix_(*picked)])


def _picked(cells: int, voxels: int) -> list[int]:
    """The voxel in the middle of each cell."""
    return [int((cell + 0.5) * voxels / cells) for cell in range(cells)]


def _parts(hu: Voxels) -> tuple[np.ndarray, tuple[str, ...], tuple[float, ...]]:
    """Cells, labels and shades: each HU by itself if there are few, otherwise steps from air to bone."""
    values, cells = np.unique(hu, return_inverse=True)
    if len(values) <= _MOST_VALUES:
        return cells.reshape(hu.shape), tuple(f"{value:g} HU" for value in values), tuple(map(_shade, values.tolist()))
    edges = np.linspace(_AIR, _BONE, _STEPS + 1)[1:-1]
    steps = np.linspace(_AIR, _BONE, _STEPS)
    labels = (f"about {value:.0f} HU" for value in steps)
    return np.digitize(hu, edges), tuple(labels), tuple(map(_shade, steps.tolist()))


def _shade(hu: float) -> float:
    return min(max((hu - _AIR) / (_BONE - _AIR), 0.0), 1.0)


def _line(ray: Ray, grid: Grid, along: int, other: int) -> tuple[Point, Point]:
    x, y, z = (at + ray.length * step for at, step in zip(ray.entry, ray.direction, strict=True))
    start, end = grid.to_ct_coordinates(ray.entry), grid.to_ct_coordinates((x, y, z))
    return (start[along], start[other]), (end[along], end[other])


def _facts(plan: Plan, ray: Ray, grid: Grid, centre: Vector) -> list[str]:
    energies = [point.energy for field in plan.fields for point in field.points]
    spots = sum(len(point.spots) for field in plan.fields for point in field.points)
    low, high = min(energies), max(energies)
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    entry, isocentre = (format_point(grid.to_ct_coordinates(point), "mm") for point in (ray.entry, centre))
    facts = [
        f"Protons of {span} MeV, {_count(len(plan.fields), 'field')}, {_count(spots, 'spot')}",
        f"Enters at {entry}, isocenter at {isocentre}",
    ]
    if len(plan.fields) > 1:
        facts.append("Enters: of the first field; beams that are not in this plane are projected onto it")
    elif abs(ray.direction[ray.normal]) > 0:
        facts.append("The beam is not in this plane, but projected onto it")
    return facts


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

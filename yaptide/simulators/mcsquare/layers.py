"""Layers of the grid across a beam, for the depth curve, and the slice of the grid with the beam's central ray.

A beam along an axis has layers of voxels, and a slice of voxels. Any other beam has layers perpendicular to its ray: a
voxel contributes to each layer according to the part of its volume in the layer.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.estimators import Axis, Floats
from yaptide.simulators.mcsquare.geometry import Ray, Vector
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels

Doubles = NDArray[np.float64]

#: Centres of voxels are rounded to this fraction of a layer.
_FINE = 32
#: A grid may be a single row of millions of voxels. Thicker layers keep its slice as small as the grid.
_MOST_STEPS = 2048
_CHUNK = 1 << 20


class Layers(Protocol):
    """A grid as seen along a beam."""

    depth: Axis
    """Depth along the ray, 0 where it enters the grid."""

    thickness: float
    """Thickness of the layers in mm."""

    voxels: float
    """Number of voxels in a layer with the area of the grid as seen along the beam."""

    slice_axes: tuple[Axis, Axis]
    """Axes across the beam and along it."""

    slice_normal: Vector
    """Unit vector perpendicular to the slice."""

    def sum_layers(self, values: Voxels, weights: Voxels | None = None) -> Doubles:
        """Return the sum of `values`, shape (nz, ny, nx), times `weights` if given, in each layer, shape (n,)."""

    def cut_slice(self, values: Voxels) -> Floats:
        """Return the values on the slice, shape (along, across); 0 outside the grid."""


def make_layers(grid: Grid, ray: Ray, *, block: bool) -> Layers:
    """Return the layers across `ray`; `Oblique` explains `block`."""
    return Oblique(grid, ray, block=block) if ray.is_oblique else Straight(grid, ray)


class Straight:
    """Layers of voxels, for a beam along an axis. The slice is the plane of voxels that contains the ray."""

    def __init__(self, grid: Grid, ray: Ray) -> None:
        axis, normal = ray.axis, ray.normal
        transverse = 3 - axis - normal
        self._order = (2 - axis, 2 - transverse, 2 - normal)
        self._backwards = ray.direction[axis] < 0
        self._cut = min(int(ray.entry[normal] / grid.spacing[normal]), grid.shape[normal] - 1)
        self.thickness = grid.spacing[axis]
        self.voxels = float(grid.shape[transverse] * grid.shape[normal])
        self.depth = Axis("depth", "mm", grid.voxel_centres(axis))
        self.slice_axes = (Axis("xyz"[transverse], "mm", grid.voxel_coordinates(transverse)), self.depth)
        self.slice_normal = _unit(normal)

    def sum_layers(self, values: Voxels, weights: Voxels | None = None) -> Doubles:
        """Return sums over layers of voxels."""
        turned: Floats = self._turned(values)
        if weights is not None:
            turned = turned * self._turned(weights).astype(np.float64)
        return np.asarray(turned.sum(axis=(1, 2), dtype=np.float64))

    def cut_slice(self, values: Voxels) -> Floats:
        """Return a plane of voxels."""
        return self._turned(values)[:, :, self._cut]

    def _turned(self, values: Voxels) -> Voxels:
        """Return `values` as a view (depth, transverse, normal), with depth 0 where the beam enters."""
        turned = values.transpose(self._order)
        return turned[::-1] if self._backwards else turned


class Oblique:
    """Layers perpendicular to the ray, half as thick as a voxel along it.

    Measured with a 70 MeV beam at 24 random angles in voxels of 3.1 x 2.7 x 2.3 mm: the error of R80 is then 0.3 mm
    (root mean square), with layers of a whole voxel 0.5 mm. Voxels in the corner of the grid that is nearer to the
    source than the entry point have negative depths.

    If the grid is a `block` of matter, protons that enter beside the ray through another face have travelled outside
    the block up to there, which does not count as depth. So the curve is that of a block whose face across the beam
    (perpendicular to the axis nearest to the ray) is infinite.

    The slice is spanned by the ray and the direction perpendicular to the ray and to the axis farthest from it. It has
    one point per voxel along and across, with the value of the voxel that contains it; 0 outside the grid.
    """

    def __init__(self, grid: Grid, ray: Ray, *, block: bool) -> None:
        self._grid, self._ray, self._block = grid, ray, block
        corners = np.array(list(itertools.product(*((0.0, grid.axis_length(axis)) for axis in range(3)))))
        self.thickness = _step(self._along(*corners.T), _size(grid, ray.direction) / 2)
        lowest, highest = self._limits(corners)
        slack = 2 / _FINE  # rounding may move a voxel beyond the edge
        self._first = math.floor(lowest / self.thickness - slack)
        self._count = math.ceil(highest / self.thickness + slack) - self._first
        self.depth = Axis("depth", "mm", (self._first + np.arange(self._count) + 0.5) * self.thickness)
        self.voxels = self.thickness * _area(grid, ray.direction) / math.prod(grid.spacing)
        self._kernel = _kernel(grid, ray.direction, self.thickness / _FINE)
        self._places = self._place_voxels()
        across = _across(ray)
        depths = _points(self._along(*corners.T), _size(grid, ray.direction), 0.5)
        sides = _points((corners - np.array(ray.entry)) @ np.array(across), _size(grid, across), 0.0)
        self._nearest, self._inside = _nearest(grid, ray, across, depths, sides)
        self.slice_axes = (Axis("across", "mm", sides), Axis("depth", "mm", depths))
        self.slice_normal = _normalised(np.cross(across, ray.direction))

    def sum_layers(self, values: Voxels, weights: Voxels | None = None) -> Doubles:
        """Return sums over the parts of voxels in each layer."""
        fine = np.zeros(self._count * _FINE)
        for chunk in _chunks(self._places.size):
            numbers = values.reshape(-1)[chunk].astype(np.float64)
            if weights is not None:
                numbers *= weights.reshape(-1)[chunk]
            fine += np.bincount(self._places[chunk], numbers, fine.size)
        half = self._kernel.size // 2
        spread = np.convolve(fine, self._kernel)[half : half + fine.size]
        return np.asarray(spread.reshape(-1, _FINE).sum(axis=1))

    def cut_slice(self, values: Voxels) -> Floats:
        """Return the values of the voxels that contain the points of the slice."""
        return np.where(self._inside, values.reshape(-1)[self._nearest], np.float32(0))

    def _along(self, *points: Any) -> Any:
        """Return the depth of the projection of points (x, y, z) on the ray."""
        parts = zip(self._ray.direction, points, self._ray.entry, strict=True)
        return sum(part * (point - start) for part, point, start in parts)

    def _behind_face(self, axis: int, point: Any) -> Any:
        """Return the distance along the beam of points from the face where it enters along `axis`."""
        part = self._ray.direction[axis]
        return (point if part > 0 else self._grid.axis_length(axis) - point) / abs(part)

    def _depth(self, *points: Any) -> Any:
        """Return the depth that counts for points (x, y, z)."""
        if not self._block:
            return self._along(*points)
        behind = [self._behind_face(axis, points[axis]) for axis in range(3) if self._ray.direction[axis]]
        inside = np.minimum.reduce(behind)  # path length of the protons in the block
        outside = self._behind_face(self._ray.axis, points[self._ray.axis]) - inside
        return self._along(*points) - outside + self._lead()

    def _lead(self) -> float:
        """Return how far the ray has travelled outside the block, behind the plane of the face across the beam."""
        return float(self._behind_face(self._ray.axis, self._ray.entry[self._ray.axis]))

    def _limits(self, corners: Doubles) -> tuple[float, float]:
        """Return the minimum and maximum depth of points in the grid."""
        along = self._along(*corners.T)
        if not self._block:
            return float(along.min()), float(along.max())
        behind = self._behind_face(self._ray.axis, corners[:, self._ray.axis])
        voxel = np.abs(self._ray.direction) @ np.array(self._grid.spacing)
        return float((along - behind).min() - voxel / 2) + self._lead(), float(along.max()) + self._lead()

    def _place_voxels(self) -> NDArray[np.int32]:
        """Return the depth of each voxel's centre, in fractions of a layer from the first one, shape (voxels,)."""
        shape, per_mm = self._grid.shape, _FINE / self.thickness
        x, y, z = (self._grid.voxel_centres(axis) for axis in range(3))
        places = np.empty(self._grid.voxels, dtype=np.int32)
        for chunk in _chunks(places.size):
            k, j, i = np.unravel_index(np.arange(chunk.start, chunk.stop), shape[::-1])
            places[chunk] = np.floor(self._depth(x[i], y[j], z[k]) * per_mm) - self._first * _FINE
        return places


def _nearest(
    grid: Grid, ray: Ray, across: Vector, depths: Doubles, sides: Doubles
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the index of the voxel at each point of the slice, and whether there is one; shape (along, across)."""
    nearest = np.zeros((depths.size, sides.size), dtype=np.int64)
    inside = np.ones(nearest.shape, dtype=bool)
    for axis in (2, 1, 0):
        place = ray.entry[axis] + depths[:, None] * ray.direction[axis] + sides * across[axis]
        index = np.floor(place / grid.spacing[axis]).astype(np.int64)
        inside &= (index >= 0) & (index < grid.shape[axis])
        nearest = nearest * grid.shape[axis] + index
    return np.where(inside, nearest, 0), inside


def _across(ray: Ray) -> Vector:
    """Return the unit vector perpendicular to the ray and its farthest axis; its largest component is positive."""
    vector = np.cross(_unit(ray.normal), ray.direction)
    return _normalised(vector if vector[np.argmax(np.abs(vector))] > 0 else -vector)


def _normalised(vector: Any) -> Vector:
    x, y, z = (vector / np.linalg.norm(vector)).tolist()
    return x + 0.0, y + 0.0, z + 0.0  # no -0.0


def _unit(axis: int) -> Vector:
    return float(axis == 0), float(axis == 1), float(axis == 2)


def _size(grid: Grid, along: Vector) -> float:
    """Return the width in mm of a box with the same spread as a voxel seen from the side; along an axis its spacing."""
    return math.hypot(*(part * size for part, size in zip(along, grid.spacing, strict=True)))


def _area(grid: Grid, along: Vector) -> float:
    """Return the area in mm2 of the grid seen along a direction."""
    volume = math.prod(grid.axis_length(axis) for axis in range(3))
    return sum(abs(along[axis]) * volume / grid.axis_length(axis) for axis in range(3))


def _step(places: Doubles, step: float) -> float:
    """Return `step`, or a larger step if there would be too many between the first and last of `places`."""
    return float(max(step, np.ptp(places) / _MOST_STEPS))


def _points(places: Doubles, step: float, offset: float) -> Doubles:
    """Return points between the first and last of `places` in mm, each at a multiple of the step plus `offset`."""
    step = _step(places, step)
    first, last = math.ceil(places.min() / step - offset), math.floor(places.max() / step - offset)
    return np.asarray((np.arange(first, max(last, first) + 1) + offset) * step)


def _kernel(grid: Grid, along: Vector, step: float) -> Doubles:
    """Return the distribution of a voxel's volume along a direction, in steps of `step` mm around its centre; sum 1."""
    kernel = np.ones(1)
    for part, size in zip(along, grid.spacing, strict=True):
        kernel = np.convolve(kernel, _box(abs(part) * size / step))
    return kernel


def _box(width: float) -> Doubles:
    """Return a box of `width` steps around the middle as its share in each step; sum 1."""
    if width < 1:  # smaller than the rounding
        return np.ones(1)
    reach = math.ceil(width / 2 + 0.5)
    return np.asarray(np.diff(np.clip(np.arange(-reach - 0.5, reach + 1), -width / 2, width / 2)) / width)


def _chunks(size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + _CHUNK, size)) for begin in range(0, size, _CHUNK))

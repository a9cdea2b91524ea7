"""Converts the zones of a project to voxels, on a grid that fits its detectors."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.geometry import (
    Geometry,
    box_of_figure,
    box_of_project,
    box_of_zone,
    intersection_of_boxes,
    union_of_boxes,
)
from yaptide.editor.project import (
    Beam,
    BeamShape,
    Cylinder,
    Detector,
    Doubles,
    Figure,
    Mesh,
    Project,
    Solid,
    Vector,
    ZoneDetector,
)
from yaptide.simulators.mcsquare.materials import hu_of
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels

#: More voxels would use too much memory per task: with this many, MCsquare needs about 200 MB.
MOST_VOXELS = 4_000_000

#: Fewer voxels if there are many figures: testing a point against a figure takes about 30 ns, and users wait for it.
_MOST_TESTS = 200_000_000

#: cm. Maximum size of voxels where smaller ones fit, and minimum size.
_LARGEST, _SMALLEST = 0.25, 0.01
#: A surface within this distance of a plane of the grid counts as being on it, in cm.
_NEAR = 1e-4
#: g/cm3. Thinner material around everything else is left out of the grid: nothing scatters back from it.
_THIN = 0.01
_MOST_TRIED = 100  # sizes of voxels
_STEP, _COARSEST = 1.25, 5.0
_MM = 10.0
_BLOCK = 25  # voxels along each side of a block, which fits into the processor's cache


@dataclass(frozen=True, slots=True)
class Space:
    """A grid and the position of its corner, in cm of the project."""

    grid: Grid
    corner: Vector

    @property
    def voxel(self) -> Vector:
        """Size of a voxel in cm."""
        x, y, z = (size / _MM for size in self.grid.spacing)
        return x, y, z

    @property
    def description(self) -> str:
        """Number and size of the voxels as text."""
        shape = " x ".join(map(str, self.grid.shape))
        size = " x ".join(f"{size:.4g}" for size in self.grid.spacing)
        return f"{shape} voxels of {size} mm"

    def to_grid(self, point: Vector) -> Vector:
        """Convert a point of the project (cm) to mm from the corner of the grid, clipped to the grid."""
        x, y, z = (
            min(max((at - start) * _MM, 0.0), self.grid.axis_length(axis))
            for axis, (at, start) in enumerate(zip(point, self.corner, strict=True))
        )
        return x, y, z


@dataclass(slots=True)
class _Axis:
    """What voxels must fit along an axis, in cm: the range, bins as (begin, width), and planes."""

    low: float
    high: float
    bins: list[tuple[float, float]] = field(default_factory=list)
    planes: list[float] = field(default_factory=list)
    finest: float = _LARGEST

    def fit_lattice(self, coarser: float) -> tuple[float, float, int]:
        """Return begin, size and number of the voxels, `coarser` than the best size by this factor."""
        begin, width = min(self.bins, key=lambda bins: bins[1], default=(self.low, self.finest))
        wanted = max(min(self.finest, width, self._thinnest()), _SMALLEST) * coarser
        if width <= wanted:
            sizes = [width * max(1, math.floor(wanted / width + 1e-9))]
        else:
            least = math.ceil(width / wanted - 1e-9)
            sizes = [width / parts for parts in range(least, least + min(least, _MOST_TRIED) + 1)]
        size = min(sizes, key=lambda size: (round(self._misfit(begin, size) / _NEAR), -size))
        first = math.floor((self.low - begin) / size + 1e-6)
        last = max(math.ceil((self.high - begin) / size - 1e-6), first + 1)
        return begin + first * size, size, last - first

    def _thinnest(self) -> float:
        """Return the smallest distance between two planes."""
        planes = sorted(plane for plane in self.planes if self.low - _NEAR <= plane <= self.high + _NEAR)
        return min((gap for gap in np.diff(planes) if gap > _NEAR), default=math.inf)

    def _misfit(self, begin: float, size: float) -> float:
        """Return the maximum distance of planes and bins from the planes of a lattice, cm."""
        edges = [*self.planes, *(low for low, _ in self.bins), *(low + width for low, width in self.bins)]
        steps = (np.array([begin, *edges]) - begin) / size
        return float(np.abs(steps - np.round(steps)).max() * size)


def make_space(project: Project, detectors: Sequence[Detector]) -> Space:
    """Return the grid for a project and the `detectors` that are used; at most MOST_VOXELS.

    Raises InvalidInput for a project that would need voxels that are too large.
    """
    box = _box(project, detectors)
    axes = [_axis(axis, box, project, detectors) for axis in range(3)]
    tests = sum(len(term) for zone in project.zones for term in zone.terms)
    most = min(MOST_VOXELS, _MOST_TESTS // max(tests, 1))
    coarser = [1.0, 1.0, 1.0]
    while True:
        lattices = [axis.fit_lattice(by) for axis, by in zip(axes, coarser, strict=True)]
        if max(size for _, size, _ in lattices) > _COARSEST:
            raise InvalidInput(f"The project is too large: its voxels would be larger than {_COARSEST:g} cm")
        if math.prod(count for _, _, count in lattices) <= most:
            break
        coarser[max(range(3), key=lambda axis: lattices[axis][2])] *= _STEP
    (x, dx, nx), (y, dy, ny), (z, dz, nz) = lattices
    return Space(Grid((nx, ny, nz), (dx * _MM, dy * _MM, dz * _MM)), (x, y, z))


def fill_space(space: Space, geometry: Geometry) -> Voxels:
    """Return the HU of each voxel, shape (nz, ny, nx): that of the zone that contains its centre."""
    shape = space.grid.shape
    hu = np.empty(shape[::-1], dtype=np.float32)
    centres = [space.corner[axis] + space.grid.voxel_centres(axis) / _MM for axis in range(3)]
    for corner in itertools.product(*(range(0, count, _BLOCK) for count in shape)):
        parts = [slice(first, first + _BLOCK) for first in corner]
        x, y, z = (coordinates[part] for coordinates, part in zip(centres, parts, strict=True))
        mesh = np.meshgrid(z, y, x, indexing="ij")
        places = np.stack([coordinates.ravel() for coordinates in mesh][::-1], axis=1)
        hu[tuple(parts[::-1])] = hu_of(1) * geometry.zones_at(places).reshape(len(z), len(y), len(x))
    return hu


def _box(project: Project, detectors: Sequence[Detector]) -> Doubles:
    """Return the box that the grid must cover: dense matter, the detectors, and the start of the beam."""
    everything = box_of_project(project)
    dense = [box_of_zone(zone) for zone in project.zones if _is_dense(zone.material.density, zone.material.is_empty)]
    if _is_dense(project.world.material.density, project.world.material.is_empty):
        dense.append(box_of_figure(project.world.figure))
    scored = [_box_of_detector(detector, project) for detector in detectors]
    boxes = [box for box in (*dense, *scored, _box_of_beam(project.beam)) if box is not None]
    whole = union_of_boxes(boxes)
    common = None if whole is None else intersection_of_boxes(whole, everything)
    return everything if common is None else common


def _is_dense(density: float, is_empty: bool) -> bool:
    return not is_empty and density >= _THIN


def _box_of_detector(detector: Detector, project: Project) -> Doubles | None:
    if isinstance(detector, Mesh):
        half = np.array(detector.size) / 2
    elif isinstance(detector, Cylinder):
        half = np.array([detector.radius, detector.radius, detector.depth / 2])
    elif isinstance(detector, ZoneDetector):
        return box_of_zone(project.zones[detector.zone])
    else:
        return box_of_project(project)
    return np.array([detector.centre - half, detector.centre + half])


def _box_of_beam(beam: Beam) -> Doubles:
    """Return where the beam starts; for a Gaussian the part within four standard deviations."""
    reach = 4.0 if beam.shape is BeamShape.GAUSSIAN else 1.0
    across = sum(reach * size * np.abs(axis) for size, axis in zip(beam.size, np.array(beam.axes), strict=True))
    return np.array([beam.position - across, beam.position + across])


def _axis(axis: int, box: Doubles, project: Project, detectors: Iterable[Detector]) -> _Axis:
    """Return what the voxels must fit along an axis."""
    axis_fit = _Axis(float(box[0, axis]), float(box[1, axis]))
    for detector in detectors:
        width = bin_widths(detector)[axis]
        if isinstance(detector, Mesh):
            axis_fit.bins.append((detector.centre[axis] - detector.size[axis] / 2, width))
        elif isinstance(detector, Cylinder) and axis == 2:
            axis_fit.bins.append((detector.centre[2] - detector.depth / 2, width))
        else:
            axis_fit.finest = min(axis_fit.finest, width / 2)
    figures = {id(figure): figure for zone in project.zones for term in zone.terms for _, figure in term}
    for figure in figures.values():
        if _is_flat(figure, axis):
            axis_fit.planes += box_of_figure(figure)[:, axis].tolist()
    return axis_fit


def _is_flat(figure: Figure, axis: int) -> bool:
    """Return whether a figure ends in planes perpendicular to an axis."""
    along = np.abs(figure.axes[axis])
    if figure.solid is Solid.BOX:
        return bool(along.max() > 1 - 1e-9)
    return bool(figure.solid is Solid.CYLINDER and along[2] > 1 - 1e-9)


def bin_widths(detector: Detector) -> Vector:
    """Return the widths of a detector's bins along each axis, in cm; infinity without bins."""
    if isinstance(detector, Mesh):
        x, y, z = (size / bins for size, bins in zip(detector.size, detector.bins, strict=True))
        return x, y, z
    if isinstance(detector, Cylinder):
        ring = (detector.radius - detector.inner) / detector.bins[0]
        return ring, ring, detector.depth / detector.bins[1]
    return math.inf, math.inf, math.inf

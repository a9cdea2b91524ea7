"""The geometry of a project: finds the zone and material at points, for many points at a time."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from yaptide.editor.project import BLACK_HOLE, Doubles, Figure, Material, Mode, Project, Solid, Vector, Zone

Booleans = NDArray[np.bool_]
Integers = NDArray[np.intp]

#: Relative tolerance of surfaces: a point on a surface is inside despite rounding.
_SLACK = 1e-12

#: Material outside the world.
NOTHING = Material("BLACK HOLE", BLACK_HOLE, 0.0)


def rotation_matrix(angles: Vector) -> Doubles:
    """Return the matrix, shape (3, 3), that rotates a figure like the editor: about z, then y, then x (degrees).

    This is the order "XYZ" of Euler angles in three.js.
    """
    cosines, sines = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    about_x = np.array([[1, 0, 0], [0, cosines[0], -sines[0]], [0, sines[0], cosines[0]]])
    about_y = np.array([[cosines[1], 0, sines[1]], [0, 1, 0], [-sines[1], 0, cosines[1]]])
    about_z = np.array([[cosines[2], -sines[2], 0], [sines[2], cosines[2], 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def figure_contains(figure: Figure, points: Doubles) -> Booleans:
    """Return whether each of `points`, shape (n, 3), is in a figure; shape (n,)."""
    x, y, z = (np.abs((points - np.array(figure.centre)) @ figure.axes)).T
    half = np.array(figure.size) / 2 * (1 + _SLACK)
    if figure.solid is Solid.BOX:
        return np.asarray((x <= half[0]) & (y <= half[1]) & (z <= half[2]))
    radius, inner = figure.radius * (1 + _SLACK), figure.inner * (1 - _SLACK)
    if figure.solid is Solid.SPHERE:
        return np.asarray(x * x + y * y + z * z <= radius**2)
    across = x * x + y * y
    return np.asarray((z <= half[2]) & (across <= radius**2) & (across >= inner**2))


def zone_contains(zone: Zone, points: Doubles, around: Doubles) -> Booleans:
    """Return whether each of `points`, shape (n, 3), in a box `around` them, is in a zone; shape (n,).

    Zones with a higher priority are ignored.
    """
    inside = np.zeros(len(points), dtype=bool)
    for term in zone.terms:
        part = np.zeros(len(points), dtype=bool)
        for mode, figure in term:
            if intersection_of_boxes(box_of_figure(figure), around) is not None:
                part = _combined(mode, part, figure_contains(figure, points))
            elif mode is Mode.INTERSECTION:
                part[:] = False
        inside |= part
    return inside


def _combined(mode: Mode, before: Booleans, figure: Booleans) -> Booleans:
    if mode is Mode.UNION:
        return before | figure
    return before & (figure if mode is Mode.INTERSECTION else ~figure)


class Geometry:
    """The zones of a project, the surrounding world, and the black hole around it, numbered in this order."""

    def __init__(self, project: Project) -> None:
        self._zones, self._world = project.zones, project.world
        self._boxes = [box_of_zone(zone) for zone in project.zones]
        self.materials: tuple[Material, ...] = (
            *(zone.material for zone in project.zones),
            project.world.material,
            NOTHING,
        )
        """Materials of the zones, of the world, and of the black hole around it."""

    def zones_at(self, points: Doubles) -> Integers:
        """Return the number of the zone at each of `points` (cm), shape (n, 3); shape (n,).

        The world's number follows that of the last zone; the black hole around it is the next. Zones may extend beyond
        the world. Points that are close together are faster, because distant figures are skipped.
        """
        in_world = figure_contains(self._world.figure, points)
        numbers = np.where(in_world, len(self._zones), len(self._zones) + 1).astype(np.intp)
        remaining, around = np.arange(len(points)), box_of_points(points)
        for number, (zone, box) in enumerate(zip(self._zones, self._boxes, strict=True)):
            if box is None or intersection_of_boxes(box, around) is None:
                continue
            inside = zone_contains(zone, points[remaining], around)
            numbers[remaining[inside]] = number
            remaining = remaining[~inside]
        return numbers

    def material_at(self, point: Vector) -> Material:
        """Return the material at a point."""
        return self.materials[int(self.zones_at(np.array([point], dtype=float))[0])]


def box_of_figure(figure: Figure) -> Doubles:
    """Return the smallest box along the axes around a figure: lowest and highest corner, shape (2, 3)."""
    half = np.array(figure.size) / 2
    if figure.solid is Solid.SPHERE:
        reach = np.full(3, figure.radius)
    elif figure.solid is Solid.BOX:
        reach = np.abs(figure.axes) @ half
    else:
        along = np.abs(figure.axes[:, 2])
        reach = along * half[2] + figure.radius * np.sqrt(np.clip(1 - along**2, 0, None))
    reach = reach * (1 + 2 * _SLACK)
    return np.array([figure.centre - reach, figure.centre + reach])


def box_of_zone(zone: Zone) -> Doubles | None:
    """Return a box along the axes around a zone, shape (2, 3); None if the zone is certainly empty."""
    return union_of_boxes(box for term in zone.terms if (box := _box_of_term(term)) is not None)


def _box_of_term(term: Iterable[tuple[Mode, Figure]]) -> Doubles | None:
    box: Doubles | None = None
    for mode, figure in term:
        if mode is Mode.UNION:
            box = union_of_boxes([box_of_figure(figure), *([] if box is None else [box])])
        elif mode is Mode.INTERSECTION and box is not None:
            box = intersection_of_boxes(box, box_of_figure(figure))
    return box


def box_of_project(project: Project) -> Doubles:
    """Return a box along the axes around the world and all zones, shape (2, 3)."""
    boxes = (box_of_zone(zone) for zone in project.zones)
    return _around([box_of_figure(project.world.figure), *(box for box in boxes if box is not None)])


def box_of_points(points: Doubles) -> Doubles:
    """Return the smallest box around points, shape (n, 3); a box at infinity without points."""
    if not len(points):
        return np.full((2, 3), np.inf)
    columns = [points[:, axis] for axis in range(3)]
    return np.array([[column.min() for column in columns], [column.max() for column in columns]])


def union_of_boxes(boxes: Iterable[Doubles]) -> Doubles | None:
    """Return the smallest box around boxes; None without boxes."""
    corners = list(boxes)
    return _around(corners) if corners else None


def _around(boxes: list[Doubles]) -> Doubles:
    corners = np.array(boxes)
    return np.array([corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)])


def intersection_of_boxes(one: Doubles, other: Doubles) -> Doubles | None:
    """Return the intersection of two boxes; None if it is empty."""
    box = np.array([np.maximum(one[0], other[0]), np.minimum(one[1], other[1])])
    return box if (box[1] >= box[0]).all() else None

"""Whether a convex figure or a detector is inside of a figure, or apart from it.

Hollow cylinders count as full.
"""

import itertools

import numpy as np

from yaptide.editor.project import Cylinder, Detector, Doubles, Figure, Mesh, Solid

#: Surfaces that are nearer than this may coincide, cm.
TOUCHING = 1e-9
_PARALLEL = 1 - 1e-12


def is_inside(inner: Figure, outer: Figure) -> bool:
    """Return whether a figure is certainly inside another one; they may touch."""
    if outer.solid is Solid.SPHERE:
        return _farthest(inner, outer, np.eye(3)) <= outer.radius + TOUCHING
    half = np.array(outer.size) / 2
    along = [_reach(inner, outer, outer.axes[:, axis]) <= half[axis] + TOUCHING for axis in range(3)]
    if outer.solid is Solid.BOX:
        return all(along)
    return along[2] and _farthest(inner, outer, outer.axes[:, :2]) <= outer.radius + TOUCHING


def covers(figure: Figure, detector: Detector | None) -> bool:
    """Return whether the bins of a detector are certainly inside a figure; they may touch."""
    if isinstance(detector, Mesh):
        return is_inside(Figure("", Solid.BOX, detector.centre, np.eye(3), detector.size), figure)
    if isinstance(detector, Cylinder):
        size = (2 * detector.radius, 2 * detector.radius, detector.depth)
        return is_inside(Figure("", Solid.CYLINDER, detector.centre, np.eye(3), size, detector.radius), figure)
    return False


def are_apart(one: Figure, other: Figure) -> bool:
    """Return whether a plane separates two figures for certain; they may touch."""
    step = np.array(other.centre) - np.array(one.centre)
    crossed = (np.cross(a, b) for a, b in itertools.product(one.axes.T, other.axes.T))
    for direction in (*one.axes.T, *other.axes.T, step, *_across(one, step), *_across(other, step), *crossed):
        length = float(np.linalg.norm(direction))
        if length < TOUCHING:
            continue
        unit = direction / length
        if abs(float(step @ unit)) >= _support(one, unit) + _support(other, unit) - TOUCHING:
            return True
    return False


def _across(figure: Figure, step: Doubles) -> list[Doubles]:
    """Return the direction between figures perpendicular to the axis of a cylinder."""
    axis = figure.axes[:, 2]
    return [step - (step @ axis) * axis] if figure.solid is Solid.CYLINDER else []


def _support(figure: Figure, unit: Doubles) -> float:
    """Return how far a figure extends from its centre along a direction."""
    if figure.solid is Solid.SPHERE:
        return figure.radius
    along = np.abs(figure.axes.T @ unit)
    if figure.solid is Solid.BOX:
        return float(along @ np.array(figure.size)) / 2
    across = float(np.linalg.norm(np.cross(figure.axes[:, 2], unit)))  # exact for parallel axes, unlike a root
    return float(along[2] * figure.size[2] / 2 + figure.radius * across)


def _reach(inner: Figure, outer: Figure, unit: Doubles) -> float:
    """Return how far the inner figure extends from the centre of the outer one, on either side."""
    step = float((np.array(inner.centre) - np.array(outer.centre)) @ unit)
    return abs(step) + _support(inner, unit)


def _farthest(inner: Figure, outer: Figure, frame: Doubles) -> float:
    """Return the largest distance of the inner figure from the outer one's centre or axis, or more than that.

    The columns of `frame` span the space, or the plane perpendicular to the axis, where distances are measured.
    """
    step = (np.array(inner.centre) - np.array(outer.centre)) @ frame
    if inner.solid is Solid.SPHERE:
        return float(np.linalg.norm(step)) + inner.radius
    if inner.solid is Solid.CYLINDER and frame.shape[1] == 2 and abs(inner.axes[:, 2] @ outer.axes[:, 2]) > _PARALLEL:
        return float(np.linalg.norm(step)) + inner.radius
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    corners = (signs * np.array(inner.size) / 2) @ inner.axes.T
    return float(np.linalg.norm(step + corners @ frame, axis=1).max())

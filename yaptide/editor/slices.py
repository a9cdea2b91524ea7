"""The zones of a project in the plane of its beam."""

import numpy as np

from yaptide.domain.slices import Point, Slice, coarse_shape, format_point
from yaptide.editor.geometry import Geometry, box_of_figure, box_of_zone, intersection_of_boxes, union_of_boxes
from yaptide.editor.project import Doubles, Project
from yaptide.editor.sections import quote_text

_AXES = "xyz"
#: Margin around the zones, as a fraction of their size.
_MARGIN = 0.05


def slice_project(project: Project) -> Slice:
    """Return the plane through the beam's start along the two axes that are nearest to the beam."""
    beam = project.beam
    normal = min((2, 1, 0), key=lambda axis: abs(beam.direction[axis]))
    along = max(range(3), key=lambda axis: abs(beam.direction[axis]))
    other = 3 - normal - along
    box = _box(project)
    columns, rows = coarse_shape(*(float(box[1, axis] - box[0, axis]) for axis in (along, other)))
    across, up = _centres(box, along, columns), _centres(box, other, rows)
    points = np.empty((rows * columns, 3))
    points[:, normal] = beam.position[normal]
    points[:, along], points[:, other] = (each.ravel() for each in np.meshgrid(across, up))
    geometry = Geometry(project)
    numbers = geometry.zones_at(points).reshape(rows, columns)
    holes = [number for number, material in enumerate(geometry.materials) if material.is_black_hole]
    names = [*(quote_text(zone.name)[1:-1] for zone in project.zones), "World"]
    labels = [f"{name}: {material.name}" for name, material in zip(names, geometry.materials, strict=False)]
    return Slice(
        np.where(np.isin(numbers, holes), -1, numbers),
        tuple(labels),
        (_AXES[along], _AXES[other]),
        (float(box[0, along]), float(box[1, along]), float(box[0, other]), float(box[1, other])),
        "cm",
        f"{_AXES[normal]} = {beam.position[normal]:.4g} cm, through the start of the beam",
        (_line(project, along, other, box),),
        _facts(project),
    )


def _centres(box: Doubles, axis: int, count: int) -> Doubles:
    low, high = box[:, axis]
    return np.asarray(low + (np.arange(count) + 0.5) * (high - low) / count)


def _box(project: Project) -> Doubles:
    """Return the box to draw: non-empty zones and the start of the beam, within the world if that has a volume."""
    start = np.array([project.beam.position, project.beam.position])
    zones = [box_of_zone(zone) for zone in project.zones if not zone.material.is_empty]
    world = box_of_figure(project.world.figure)
    boxes = [start, *(box for box in zones if box is not None)]
    whole = union_of_boxes(boxes if len(boxes) > 1 else [start, world])
    if whole is None or not (whole[1] > whole[0]).any():
        whole = np.array([start[0] - 1, start[1] + 1])
    margin = _MARGIN * (whole[1] - whole[0]).max()
    whole = np.array([whole[0] - margin, whole[1] + margin])
    within = intersection_of_boxes(whole, world) if (world[1] > world[0]).all() else None
    return whole if within is None or not (within[1] > within[0]).all() else within


def _line(project: Project, along: int, other: int, box: Doubles) -> tuple[Point, Point]:
    """Return the line from the start of the beam to the edge of the box."""
    start, direction = np.array(project.beam.position), np.array(project.beam.direction)
    reach = [
        ((box[1, axis] if direction[axis] > 0 else box[0, axis]) - start[axis]) / direction[axis]
        for axis in (along, other)
        if abs(direction[axis]) > 1e-6
    ]
    end = start + max(0.0, min(reach)) * direction
    return (float(start[along]), float(start[other])), (float(end[along]), float(end[other]))


def _facts(project: Project) -> tuple[str, ...]:
    beam = project.beam
    if beam.source is not None:
        return (f"The particles are those of the file {quote_text(beam.source[0])}",)
    return (
        f"{beam.particle.name} of {beam.energy:g} MeV, starting at {format_point(beam.position, 'cm')}",
        f"Direction: {format_point(beam.direction, '').strip()}",
    )

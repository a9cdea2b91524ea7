"""Where the beam goes through the grid.

Measured with MCsquare 1.1, in the axes of the raw data: what is at x in the plan is at Lx - x in the grid, y and z are
the same, and a beam at gantry angle g and patient support angle c flies along (sin g cos c, -cos g, sin g sin c).
"""

import math
from dataclasses import dataclass

from yaptide.domain.estimators import Floats
from yaptide.simulators.mcsquare.metaimage import Grid
from yaptide.simulators.mcsquare.plan import Field


@dataclass(frozen=True, slots=True)
class Beam:
    """A beam, snapped to the grid's axes (0, 1, 2 for x, y, z).

    It flies along `axis`, to lower indices if `backwards`; a slice is spanned by it and `transverse`, and cuts the
    remaining axis `normal` at voxel `cut`.
    """

    axis: int
    backwards: bool
    transverse: int
    normal: int
    cut: int


def isocentre(field: Field, grid: Grid) -> tuple[float, float, float]:
    """The isocentre in mm from the corner of the grid, along the axes of the raw data."""
    x, y, z = field.isocentre
    return grid.length(0) - x, y, z


def beam(field: Field, grid: Grid) -> Beam:
    """The axis nearest to the direction of `field`, and the slice through its isocentre."""
    gantry, couch = math.radians(field.gantry), math.radians(field.couch)
    direction = (math.sin(gantry) * math.cos(couch), -math.cos(gantry), math.sin(gantry) * math.sin(couch))
    axis = max(range(3), key=lambda index: abs(direction[index]))
    transverse, normal = (index for index in range(3) if index != axis)
    cut = int(isocentre(field, grid)[normal] / grid.spacing[normal])
    return Beam(axis, direction[axis] < 0, transverse, normal, min(cut, grid.shape[normal] - 1))


def along(beam: Beam, values: Floats) -> Floats:
    """View of `values`, shape (nz, ny, nx), as (depth, transverse, normal), with depth 0 where the beam enters."""
    turned = values.transpose(2 - beam.axis, 2 - beam.transverse, 2 - beam.normal)
    return turned[::-1] if beam.backwards else turned

"""A plane through a geometry for drawing: materials in coarse cells, and the beam."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]

#: Cells along the longer side of a plane, at most.
MOST_CELLS = 80


@dataclass(frozen=True, slots=True)
class Slice:
    """A plane through a geometry, in coarse cells.

    `cells`, shape (rows, columns), are places in `parts`, -1 where there is nothing; the first row is the lowest.
    `parts` are labels; with `shades` (0 black to 1 white) they are steps of one scale, without them different things.
    `axes` are the names of the horizontal and the vertical axis, `limits` (left, right, bottom, top) in `unit`. `plane`
    says where it is. `beams` are lines from where the beam begins to where it leaves the plane, as (begin, end), each
    of them (horizontal, vertical). `facts` are sentences about the beam.
    """

    cells: NDArray[np.intp]
    parts: tuple[str, ...]
    axes: tuple[str, str]
    limits: tuple[float, float, float, float]
    unit: str
    plane: str
    beams: tuple[tuple[Point, Point], ...]
    facts: tuple[str, ...]
    shades: tuple[float, ...] = ()


def coarse_shape(width: float, height: float) -> tuple[int, int]:
    """Numbers of cells along both sides of a plane that is `width` by `height`: as square as can be."""
    cell = max(width, height) / MOST_CELLS
    return max(1, round(width / cell)), max(1, round(height / cell))


def format_point(point: Sequence[float], unit: str) -> str:
    """A point as in `(1, 2.5, 3) mm`."""
    return f"({', '.join(f'{part:.4g}' for part in point)}) {unit}"

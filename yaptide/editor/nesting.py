"""The geometry of a project as figures that are placed inside of each other, for codes that place whole figures.

The material at a point is that of the innermost figure there. Not every project can be built like this.
"""

from dataclasses import dataclass, field

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.containment import are_apart, is_inside
from yaptide.editor.project import Doubles, Figure, Material, Solid
from yaptide.editor.regions import Region, Regions, Term
from yaptide.editor.sections import quote_text


@dataclass(eq=False, slots=True)
class Placed:
    """A figure with its name and material, and those placed in it."""

    name: str
    figure: Figure
    material: Material
    children: list["Placed"] = field(default_factory=list)


def place_figures(regions: Regions, title: str) -> list[Placed]:
    """Return the outermost figures, inside of the black hole around everything.

    Raises InvalidInput for a zone that is not a figure with others cut out, or figures that overlap in part; `title` is
    the code that cannot place them.
    """
    around = frozenset({len(regions.bodies)})
    shapes = [
        _shape(region, term, regions, title)
        for region in regions.regions
        for term in region.terms
        if frozenset(number for number in term if number > 0) != around
    ]
    shapes.sort(key=lambda shape: -_volume(shape.placed.figure))
    roots: list[Placed] = []
    for number, shape in enumerate(shapes):
        outer = None
        for larger in shapes[:number]:
            if are_apart(shape.placed.figure, larger.placed.figure):
                continue
            _check_pair(shape, larger, title)
            outer = larger.placed
        (roots if outer is None else outer.children).append(shape.placed)
    return roots


@dataclass(frozen=True, slots=True)
class _Shape:
    placed: Placed
    cut: tuple[Figure, ...]
    """What belongs to other regions."""


def _shape(region: Region, term: Term, regions: Regions, title: str) -> _Shape:
    positive = [number for number in term if number > 0]
    if len(positive) != 1:
        raise InvalidInput(
            f"Project, zone {quote_text(region.name)}: {title} places whole figures, not intersections of them"
        )
    figure = regions.bodies[positive[0] - 1]
    cut = tuple(regions.bodies[-number - 1] for number in term if number < 0)
    return _Shape(Placed(region.name, figure, region.material), cut)


def _check_pair(shape: _Shape, larger: _Shape, title: str) -> None:
    """Raise InvalidInput unless a figure is in what is cut out of a larger one."""
    figure = shape.placed.figure
    if not is_inside(figure, larger.placed.figure) or not any(is_inside(figure, other) for other in larger.cut):
        zones = f"{quote_text(shape.placed.name)} and {quote_text(larger.placed.name)}"
        figures = f"{quote_text(figure.name)} and {quote_text(larger.placed.figure.name)}"
        raise InvalidInput(
            f"Project, zones {zones}: {title} places whole figures inside of each other, but {figures} overlap in part"
        )


def _volume(figure: Figure) -> float:
    if figure.solid is Solid.BOX:
        return float(np.prod(figure.size))
    area = np.pi * figure.radius**2
    return float(area * (4 / 3 * figure.radius if figure.solid is Solid.SPHERE else figure.size[2]))


def rotation_angles(axes: Doubles) -> tuple[float, float, float]:
    """Return angles (degrees) about x, then y, then z of the rotation from the outside to a figure's own axes.

    The matrix of that rotation, Rz Ry Rx, is the inverse of `axes`, shape (3, 3), whose columns are the figure's axes.
    """
    turn = axes.T
    y = float(np.arcsin(np.clip(-turn[2, 0], -1, 1)))
    if abs(turn[2, 0]) < 1 - 1e-12:
        x, z = np.arctan2(turn[2, 1], turn[2, 2]), np.arctan2(turn[1, 0], turn[0, 0])
    else:  # x and z turn about the same axis
        x, z = np.arctan2(-turn[1, 2], turn[1, 1]), 0.0
    return float(np.degrees(x)), float(np.degrees(y)), float(np.degrees(z))

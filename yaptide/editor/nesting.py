"""The geometry of a project as figures that are placed inside of each other, for codes that place whole figures.

The material at a point is that of the innermost figure there. Not every project can be built like this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.containment import TOUCHING, are_apart, is_inside
from yaptide.editor.geometry import Booleans, Integers, box_of_figure
from yaptide.editor.project import Doubles, Figure, Material, Solid
from yaptide.editor.regions import MOST_TESTS, Region, Regions, Term
from yaptide.editor.sections import quote_text

#: Comparing a pair of figures takes as long as so many tests of terms.
_TESTS_OF_PAIR = 5
_NEAR = 1e-7  # cm: more than the tolerances of boxes and figures


@dataclass(eq=False, slots=True)
class Placed:
    """A figure with its name and material, and those placed in it."""

    name: str
    figure: Figure
    material: Material
    children: list["Placed"] = field(default_factory=list)


def place_figures(regions: Regions, title: str) -> list[Placed]:
    """Return the outermost figures, inside of the black hole around everything.

    Raises InvalidInput for a zone that is not a figure with others cut out, figures that overlap in part, or too many
    figures inside of each other; `title` is the code that cannot place them.
    """
    around = frozenset({regions.surroundings})
    shapes = [
        _shape(region, term, regions, title)
        for region in regions.regions
        for term in region.terms
        if frozenset(number for number in term if number > 0) != around
    ]
    shapes.sort(key=lambda shape: -_volume(shape.placed.figure))
    bodies = _Bodies(regions.bodies, title)
    corners = np.array([bodies.boxes[shape.body] for shape in shapes]).reshape(-1, 2, 3)
    roots: list[Placed] = []
    for number, shape in enumerate(shapes):
        outer = None
        for larger in np.flatnonzero(_boxes_meet(corners[:number], corners[number])).tolist():
            if bodies.are_apart(shape.body, shapes[larger].body):
                continue
            bodies.check_pair(shape, shapes[larger])
            outer = shapes[larger].placed
        (roots if outer is None else outer.children).append(shape.placed)
    return roots


@dataclass(frozen=True, slots=True)
class _Shape:
    placed: Placed
    body: int
    """The index of its figure in the bodies."""
    cut: Integers
    """Indices of the bodies that belong to other regions."""


def _shape(region: Region, term: Term, regions: Regions, title: str) -> _Shape:
    positive = [number for number in term if number > 0]
    if len(positive) != 1:
        raise InvalidInput(
            f"Project, zone {quote_text(region.name)}: {title} places whole figures, not intersections of them"
        )
    body = positive[0] - 1
    cut = np.array(sorted(-number - 1 for number in term if number < 0), dtype=np.intp)
    return _Shape(Placed(region.name, regions.bodies[body], region.material), body, cut)


class _Bodies:
    """Figures and the boxes around them. Only pairs whose boxes meet are compared, up to a limit."""

    def __init__(self, figures: Sequence[Figure], title: str) -> None:
        self._figures, self._title, self._pairs = figures, title, 0
        self.boxes = np.array([box_of_figure(figure) for figure in figures])

    def are_apart(self, one: int, other: int) -> bool:
        """Return whether two figures are certainly apart; raise InvalidInput after too many pairs."""
        self._count()
        return are_apart(self._figures[one], self._figures[other])

    def check_pair(self, shape: _Shape, larger: _Shape) -> None:
        """Raise InvalidInput unless a figure is in what is cut out of a larger one."""
        if self._is_inside(shape.body, larger.body) and self._is_in_any(shape.body, larger.cut):
            return
        zones = f"{quote_text(shape.placed.name)} and {quote_text(larger.placed.name)}"
        figures = f"{quote_text(shape.placed.figure.name)} and {quote_text(larger.placed.figure.name)}"
        raise InvalidInput(
            f"Project, zones {zones}: {self._title} places whole figures inside of each other, but {figures} overlap "
            "in part"
        )

    def _is_in_any(self, body: int, others: Integers) -> bool:
        if (others == body).any():
            return True
        low, high = self.boxes[body]
        boxes = self.boxes[others]
        inside = ((boxes[:, 0] <= low + _NEAR) & (boxes[:, 1] >= high - _NEAR)).all(axis=1)
        return any(self._is_inside(body, other) for other in others[inside].tolist())

    def _is_inside(self, one: int, other: int) -> bool:
        self._count()
        return is_inside(self._figures[one], self._figures[other])

    def _count(self) -> None:
        self._pairs += 1
        if self._pairs * _TESTS_OF_PAIR > MOST_TESTS:
            raise InvalidInput(
                f"Project, zones: too many figures are close to each other to place them in {self._title}: use fewer"
            )


def _boxes_meet(boxes: Doubles, box: Doubles) -> Booleans:
    """Return which of the boxes, shape (n, 2, 3), overlap with a box."""
    return np.asarray((np.minimum(boxes[:, 1], box[1]) - np.maximum(boxes[:, 0], box[0]) > TOUCHING).all(axis=1))


def walk_placed(roots: Sequence[Placed]) -> Iterator[tuple[Placed, Placed | None]]:
    """Yield each figure, and the one that it is in; outer ones first."""
    waiting: list[tuple[Placed, Placed | None]] = [(root, None) for root in reversed(roots)]
    while waiting:
        placed, parent = waiting.pop()
        yield placed, parent
        waiting += [(child, placed) for child in reversed(placed.children)]


def place_in(figure: Figure, parent: Figure | None) -> tuple[Doubles, Doubles]:
    """Return centre and axes of a figure in the axes of the one that it is in; None stands for the world."""
    if parent is None:
        return np.array(figure.centre), figure.axes
    return (np.array(figure.centre) - np.array(parent.centre)) @ parent.axes, parent.axes.T @ figure.axes


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

"""Draws a diagram of the tables from the models, for `yaptide db diagram` and docs/.

A table is to the right of its parent, and subclasses are below their base class. Lengths are in inches, y points up.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Mapper, RelationshipProperty

from yaptide.persistence import diagram
from yaptide_client.extras import needed_for

with needed_for("Drawing"):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Polygon, Rectangle

_WIDTH = 2.7
_ROW = 0.2
_TITLE = 0.28
_GAP = 0.35
_INDENT = 0.3
_CHANNEL = 1.5
_LABELS = 0.6  # space for labels at the right end of a channel
_MARGIN = 0.3

_INK, _PALE, _HEAD, _LINE = "#1c2733", "#66788a", "#dbe9f6", "#5b7083"


@dataclass(frozen=True, slots=True)
class _Box:
    """A table and the position of its upper left corner."""

    mapper: Mapper[Any]
    left: float
    top: float

    @property
    def column(self) -> float:
        """Return the left edge of the column of tables; subclasses are indented."""
        return round(self.left - (_INDENT if self.mapper.inherits else 0), 3)

    @property
    def right(self) -> float:
        return self.left + _WIDTH

    @property
    def bottom(self) -> float:
        return self.top - _height(self.mapper)


@dataclass(slots=True)
class _Line:
    """The line of a relationship, from the "one" side to the "many" side. `turn` is the x of its vertical part."""

    relationship: RelationshipProperty[Any]
    start: _Box
    end: _Box
    y: float = 0.0
    turn: float = 0.0

    @property
    def end_y(self) -> float:
        """Return the y where the line ends: beside the title, above the end of the inheritance line."""
        return self.end.top - _TITLE / (4 if self.end.mapper.inherits else 2)


def draw_diagram(kind: str) -> bytes:
    """Return the diagram of all tables as svg or png. The same models give the same bytes."""
    # Element ids depend on the contents only, and text is not converted to paths.
    with mpl.rc_context({"svg.hashsalt": "yaptide", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = _figure()
        file = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=130, metadata=metadata)
    return file.getvalue()


def _figure() -> Figure:
    boxes = _boxes()
    width = max(box.right for box in boxes.values()) + _MARGIN
    bottom = min(box.bottom for box in boxes.values()) - _MARGIN
    figure = Figure(figsize=(width, -bottom))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(bottom, 0))
    axes.set_axis_off()
    for line in _lines(boxes):
        _draw_line(axes, line)
    for box in boxes.values():
        _draw_inheritance(axes, box, [other for other in boxes.values() if other.mapper.inherits is box.mapper])
        _draw_box(axes, box)
    return figure


def _height(mapper: Mapper[Any]) -> float:
    return _TITLE + _ROW * len(mapper.local_table.columns)


# Layout


def _boxes() -> dict[Mapper[Any], _Box]:
    """Return the position of each table. Columns of tables are centred vertically."""
    columns: dict[int, list[Mapper[Any]]] = defaultdict(list)
    mappers = diagram.list_mappers()
    depths = _depths(mappers)
    for mapper in mappers:
        if mapper.inherits is None:
            columns[depths[mapper]] += [mapper, *(other for other in mappers if other.inherits is mapper)]
    tallest = max(map(_total, columns.values()))
    boxes = {}
    for depth, stack in columns.items():
        top = -_MARGIN - (tallest - _total(stack)) / 2
        for mapper in stack:
            left = _MARGIN + depth * (_WIDTH + _INDENT + _CHANNEL) + (_INDENT if mapper.inherits else 0)
            boxes[mapper] = _Box(mapper, left, top)
            top -= _height(mapper) + _GAP
    return boxes


def _total(stack: Sequence[Mapper[Any]]) -> float:
    return sum(_height(mapper) + _GAP for mapper in stack) - _GAP


def _depths(mappers: Iterable[Mapper[Any]]) -> dict[Mapper[Any], int]:
    """Return the length of the longest chain of relationships that leads to each base table."""
    owners = defaultdict(list)
    for mapper in mappers:
        for relationship in diagram.owned_relationships(mapper):
            owners[relationship.mapper].append(mapper)

    def depth(mapper: Mapper[Any]) -> int:
        return max((depth(owner.base_mapper) + 1 for owner in owners[mapper]), default=0)

    return {mapper: depth(mapper) for mapper in mappers if mapper.inherits is None}


def _lines(boxes: dict[Mapper[Any], _Box]) -> list[_Line]:
    """Return the lines of all relationships. Lines between the same two columns turn at different x."""
    channels: dict[float, list[_Line]] = defaultdict(list)
    for mapper, box in boxes.items():
        lines = [_Line(relation, box, boxes[relation.mapper]) for relation in diagram.owned_relationships(mapper)]
        lines.sort(key=lambda line: -line.end_y)
        for number, line in enumerate(lines, start=1):
            line.y = box.top - (box.top - box.bottom) * number / (len(lines) + 1)
        channels[box.column] += lines
    for left, lines in channels.items():
        _spread(lines, left + _WIDTH + _INDENT)
    return [line for lines in channels.values() for line in lines]


def _spread(lines: list[_Line], begin: float) -> None:
    """Choose the turns so that lines do not cross.

    Of the lines that go up, the one that ends highest turns first; of those that go down, the one that ends lowest.
    """
    up = sorted((line for line in lines if line.end_y > line.y), key=lambda line: -line.end_y)
    down = sorted((line for line in lines if line.end_y <= line.y), key=lambda line: line.end_y)
    for group in (up, down):
        for number, line in enumerate(group, start=1):
            line.turn = begin + (_CHANNEL - _LABELS) * number / (len(group) + 1)


# Drawing


def _draw_box(axes: Axes, box: _Box) -> None:
    height = box.top - box.bottom
    corner = (box.left, box.bottom)
    axes.add_patch(Rectangle(corner, _WIDTH, height, facecolor="white", edgecolor=_LINE, linewidth=1))
    head = (box.left, box.top - _TITLE)
    axes.add_patch(Rectangle(head, _WIDTH, _TITLE, facecolor=_HEAD, edgecolor=_LINE, linewidth=1))
    table = box.mapper.local_table
    middle = box.left + _WIDTH / 2
    _write(axes, middle, box.top - _TITLE / 2, str(table.description), size=10, weight="bold", ha="center")
    for number, column in enumerate(table.columns):
        y = box.top - _TITLE - _ROW * (number + 0.5)
        kind, name, keys = diagram.column_field(column)
        _write(axes, box.left + 0.08, y, keys, size=6, color=_PALE)
        _write(axes, box.left + 0.5, y, name, size=8)
        _write(axes, box.right - 0.08, y, kind, size=8, color=_PALE, ha="right")


def _draw_inheritance(axes: Axes, parent: _Box, children: Sequence[_Box]) -> None:
    """Draw a hollow arrow head below the parent, and the lines from it to the children."""
    if not children:
        return
    x, tip = parent.left + _INDENT / 2, parent.bottom
    ends = [child.top - _TITLE * 3 / 4 for child in children]
    _line(axes, [(x, tip - 0.14), (x, min(ends))])
    for child, y in zip(children, ends, strict=True):
        _line(axes, [(x, y), (child.left, y)])
    head = [(x, tip), (x - 0.08, tip - 0.14), (x + 0.08, tip - 0.14)]
    axes.add_patch(Polygon(head, closed=True, facecolor="white", edgecolor=_LINE, linewidth=1))


def _draw_line(axes: Axes, line: _Line) -> None:
    near, far = diagram.relationship_cardinality(line.relationship)
    points = [(line.start.right, line.y), (line.turn, line.y), (line.turn, line.end_y), (line.end.left, line.end_y)]
    _line(axes, points)
    x, y = line.end.left, line.end_y
    axes.add_patch(Polygon([(x, y), (x - 0.1, y + 0.04), (x - 0.1, y - 0.04)], closed=True, color=_LINE))
    _write(axes, line.start.right + 0.05, line.y + 0.08, near, size=7)
    label = line.end.column - 0.13
    _write(axes, label, y + 0.08, far, size=7, ha="right")
    _write(axes, label, y - 0.08, line.relationship.key, size=7, color=_PALE, ha="right")


def _line(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    axes.plot(*zip(*points, strict=True), color=_LINE, linewidth=1, solid_capstyle="butt", solid_joinstyle="miter")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, va="center_baseline", **{"color": _INK, **style})

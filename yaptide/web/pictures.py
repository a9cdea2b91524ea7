"""Slices as SVG: what a template needs to draw them with attributes alone, since pages have no inline styles."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.slices import Point, Slice

#: Pixels of the drawing itself, without what is written around it.
_WIDTH, _HEIGHT = 460.0, 380.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 76.0, 12.0, 26.0, 48.0
#: Colours that are told apart by the colour-blind (P. Tol, "muted"); more things than these share them.
_COLOURS = ("#88ccee", "#ddcc77", "#cc6677", "#117733", "#332288", "#aa4499", "#44aa99", "#999933", "#882255")
_WORLD = "#dddddd"
_MOST_LISTED = 12


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of cells: its label, its colour, and the outline of its cells."""

    label: str
    colour: str
    path: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A slice in pixels. `frame` is (x, y, width, height), `beams` are (x1, y1, x2, y2), `entry` is their begin."""

    size: tuple[float, float]
    frame: tuple[float, float, float, float]
    parts: list[Part]
    unlisted: int
    beams: list[tuple[float, float, float, float]]
    description: str
    slice: Slice

    @property
    def listed(self) -> list[Part]:
        """The parts that the legend names."""
        return self.parts[:_MOST_LISTED]


def draw_slice(slice_: Slice) -> Picture:
    """Return the drawing of a slice; lengths along both axes have the same scale."""
    left, right, bottom, top = slice_.limits
    scale = min(_WIDTH / (right - left), _HEIGHT / (top - bottom))
    width, height = max(1.0, scale * (right - left)), max(1.0, scale * (top - bottom))

    def place(point: Point) -> Point:
        return _LEFT + (point[0] - left) * scale, _TOP + (top - point[1]) * scale

    numbers = [int(number) for number in sorted(set(slice_.cells.ravel().tolist())) if number >= 0]
    parts = [_part(slice_, number, (_LEFT, _TOP, width, height)) for number in numbers]
    beams = [(*place(begin), *place(end)) for begin, end in slice_.beams]
    return Picture(
        (_LEFT + width + _RIGHT, _TOP + height + _BOTTOM),
        (_LEFT, _TOP, width, height),
        parts,
        max(0, len(parts) - _MOST_LISTED),
        [beam for beam in beams if beam[:2] != beam[2:]],
        f"Slice at {slice_.plane}. {'. '.join(slice_.facts)}.",
        slice_,
    )


def _part(slice_: Slice, number: int, frame: tuple[float, float, float, float]) -> Part:
    return Part(slice_.parts[number], _colour(slice_, number), "".join(_outline(slice_.cells == number, frame)))


def _colour(slice_: Slice, number: int) -> str:
    if slice_.shades:
        grey = round(30 + 215 * slice_.shades[number])
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    is_world = number == len(slice_.parts) - 1
    return _WORLD if is_world else _COLOURS[number % len(_COLOURS)]


def _outline(cells: NDArray[np.bool_], frame: tuple[float, float, float, float]) -> Iterator[str]:
    """A rectangle for each run of cells in a row that all rows of a group have; the first row is the lowest."""
    rows, columns = cells.shape
    x, y, width, height = frame
    position = 0
    for row, group in groupby(map(tuple, cells.tolist())):
        count = len(list(group))
        begin = y + height * (1 - (position + count) / rows)
        for first, last in _runs(row):
            start, wide = x + width * first / columns, width * (last - first) / columns
            yield f"M{start:.1f} {begin:.1f}h{wide:.1f}v{height * count / rows:.1f}h{-wide:.1f}z"
        position += count


def _runs(row: tuple[bool, ...]) -> Iterator[tuple[int, int]]:
    position = 0
    for is_here, group in groupby(row):
        count = len(list(group))
        if is_here:
            yield position, position + count
        position += count

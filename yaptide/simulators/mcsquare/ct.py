"""The CT, given as a MetaImage or as a short description in text.

    grid 60 200 60                    # voxels along x, y, z
    spacing 2 1 2                     # mm
    fill 0                            # HU of all other voxels, default 0
    box 0 120 150 200 0 120  -1000    # x0 x1 y0 y1 z0 z1 in mm from the corner of the grid, then HU; later boxes win

A voxel is in a box if its centre is. Any shape can be written row by row; later rows win as well:

    slices 0 39                       # in the slices 0 to 39 along z,
    rows 0 4 60*-1000                 # rows 0 to 4 along y: runs of voxels along x with their HU
    rows 5 199 10*-1000 40*0 10*-1000
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.mcsquare import metaimage
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels
from yaptide.simulators.text import BASE64, Line, decode_base64, filled_lines, quote_word, require_text

_ONCE, _SHAPES = ("grid", "spacing", "fill"), ("box", "slices", "rows")
_LIMIT = 1e6  # HU, beyond any physical value
_MOST_BOXES = 1000
#: A few words describe as many voxels as they like: their memory is limited here, that of an image by its own size.
_MOST_DESCRIBED = 300**3
_MOST_FILLED = 20 * _MOST_DESCRIBED  # total voxels of all boxes and rows: limits the time of the check


@dataclass(frozen=True, slots=True)
class CT:
    """Hounsfield units on a grid: `hu` has shape (nz, ny, nx)."""

    grid: Grid
    hu: Voxels


def parse_ct(files: Mapping[str, str], header_name: str) -> CT:
    """Return the CT called `header_name` in the configuration: an image, or a description in ``<stem>.txt``.

    Raises InvalidInput.
    """
    description = PurePosixPath(header_name).stem + ".txt"
    if header_name not in files and description in files:
        return make_ct(description, files[description])
    if header_name.lower().endswith(".mha") and header_name not in files:
        raise InvalidInput(
            f"{header_name[:80]}: has header and voxels in one file: save the CT as .mhd with a .raw file"
        )
    what = f"The CT's description {quote_word(description)} or image"
    header = metaimage.parse_header(header_name, require_text(files, header_name, what))
    raw = decode_base64(header.raw + BASE64, require_text(files, header.raw + BASE64, "The CT's data, as base64,"))
    hu = metaimage.read_voxels(header.raw, header, raw)
    if not -_LIMIT <= hu.min() <= hu.max() <= _LIMIT:  # false for NaN
        raise InvalidInput(f"{header.raw}: some voxels have an invalid HU (not a number, or beyond {_LIMIT:g})")
    grid = header.grid if header.grid.offset else replace(header.grid, offset=(0.0, 0.0, 0.0))  # MetaImage's default
    return CT(grid, hu)


def make_ct(file: str, text: str) -> CT:
    """Create a CT from its description; raise InvalidInput."""
    once: dict[str, Line] = {}
    shapes: list[Line] = []
    for line in filled_lines(file, text):
        word = line.words[0]
        if word in _SHAPES:
            shapes.append(line)
            continue
        if word not in _ONCE:
            raise line.make_error(f"a line must begin with {', '.join((*_ONCE, *_SHAPES))}, not {quote_word(word)}")
        if word in once:
            raise line.make_error(f"{word} is repeated, after line {once[word].number}")
        once[word] = line
    for word in ("grid", "spacing"):
        if word not in once:
            raise InvalidInput(f"{file}: the line {word} is missing")
    grid = metaimage.parse_grid(once["grid"], once["spacing"], 1, _MOST_DESCRIBED)
    hu = np.full(grid.shape[::-1], _fill(once.get("fill")), dtype=np.float32)
    _fill_shapes(shapes, grid, hu)
    return CT(grid, hu)


def format_ct(ct: CT) -> str:
    """Return the description of a CT, row by row. Equal consecutive rows and slices are written once."""
    grid, number = ct.grid, "{:.9g}".format
    head = f"grid {' '.join(map(str, grid.shape))}\nspacing {' '.join(map(repr, grid.spacing))}\n"
    parts = [head]
    for first, last in _same(ct.hu.reshape(grid.shape[2], -1)):
        parts.append(f"slices {first} {last}\n")
        for low, high in _same(ct.hu[first]):
            row = ct.hu[first, low]
            begins = [*np.flatnonzero(np.diff(row, prepend=np.nan)), len(row)]
            runs = (f"{end - begin}*{number(row[begin])}" for begin, end in itertools.pairwise(begins))
            parts.append(f"rows {low} {high} {' '.join(runs)}\n")
    return "".join(parts)


def _same(rows: Voxels) -> list[tuple[int, int]]:
    """Return the first and last index of each group of equal consecutive rows, shape (n, m)."""
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    return list(zip([0, *changes.tolist()], [*(changes - 1).tolist(), len(rows) - 1], strict=True))


def write_ct(ct: CT, folder: Path) -> None:
    """Write ``ct.mhd`` and ``ct.raw``."""
    metaimage.write_image(folder, "ct", ct.grid, ct.hu)


def _fill(line: Line | None) -> float:
    if line is None:
        return 0.0
    if len(line.words) != 2:
        raise line.make_error("fill needs one HU")
    return line.parse_real(1, "The HU", -_LIMIT, _LIMIT)


def _fill_shapes(shapes: list[Line], grid: Grid, hu: Voxels) -> None:
    """Fill boxes and rows one after the other."""
    boxes, allowance = 0, _MOST_FILLED
    slices: tuple[int, int] | None = None
    for line in shapes:
        word = line.words[0]
        if word == "slices":
            slices = _indices(line, grid, 2)
            continue
        boxes += word == "box"
        if boxes > _MOST_BOXES:
            raise line.make_error(f"more than {_MOST_BOXES} boxes: use rows, or send the CT as an image")
        allowance -= _put_box(line, grid, hu) if word == "box" else _put_rows(line, slices, grid, hu)
        if allowance < 0:
            raise line.make_error("boxes and rows fill the grid too many times: send the CT as an image")


def _put_box(line: Line, grid: Grid, hu: Voxels) -> int:
    """Fill a box; return the number of its voxels."""
    if len(line.words) != 8:
        raise line.make_error("box needs x0 x1 y0 y1 z0 z1 in mm, and a HU")
    x, y, z = (_inside(line, grid, axis) for axis in range(3))
    hu[z, y, x] = line.parse_real(7, "The HU", -_LIMIT, _LIMIT)
    return hu[z, y, x].size


def _put_rows(line: Line, slices: tuple[int, int] | None, grid: Grid, hu: Voxels) -> int:
    """Fill rows in all of `slices`; return the number of their voxels."""
    if slices is None:
        raise line.make_error("a line with slices must come first")
    first, last = _indices(line, grid, 1)
    runs = [_run(line, word, grid) for word in line.words[3:]]
    counts, values = [count for count, _ in runs], [value for _, value in runs]
    if sum(counts) != grid.shape[0]:
        raise line.make_error(f"a row has {grid.shape[0]} voxels, not {sum(counts)}")
    part = hu[slices[0] : slices[1] + 1, first : last + 1]
    part[:] = np.repeat(np.array(values, dtype=np.float32), counts)
    return part.size


def _run(line: Line, word: str, grid: Grid) -> tuple[int, float]:
    """Parse a number of voxels and their HU: ``40*0``, or ``0`` for one voxel."""
    count, star, value = word.partition("*")
    run = Line(line.file, line.number, (count, value) if star else ("1", count))
    return run.parse_integer(0, "The number of voxels", 1, grid.shape[0]), run.parse_real(1, "The HU", -_LIMIT, _LIMIT)


def _indices(line: Line, grid: Grid, axis: int) -> tuple[int, int]:
    """Parse the first and last of the slices or rows of a line."""
    what, count = line.words[0], grid.shape[axis]
    first = line.parse_integer(1, f"The first of the {what}", 0, count - 1)
    return first, line.parse_integer(2, f"The last of the {what}", first, count - 1)


def _inside(line: Line, grid: Grid, axis: int) -> slice:
    """Return the voxels of a box along an axis: their centres are in [lower limit, upper limit)."""
    first, last = (line.parse_real(index, "The box") / grid.spacing[axis] for index in (2 * axis + 1, 2 * axis + 2))
    # Clip before the conversion to an integer index, which a limit may overflow.
    begin, end = (math.ceil(min(max(edge - 0.5, 0.0), grid.shape[axis])) for edge in (first, last))
    if begin >= end:
        raise line.make_error(f"the box contains no voxel along {'xyz'[axis]}")
    return slice(begin, end)

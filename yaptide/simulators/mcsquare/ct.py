"""The CT, given as a MetaImage or as a short description in text.

    grid 60 200 60                    # voxels along x, y, z
    spacing 2 1 2                     # mm
    fill 0                            # HU everywhere, 0 if left out
    box 0 120 150 200 0 120  -1000    # x0 x1 y0 y1 z0 z1 in mm from the corner of the grid, then HU; later boxes win

A voxel is in a box if its centre is.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.mcsquare import metaimage
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels
from yaptide.simulators.text import Line, lines, quoted, required

#: Ending of the names under which binary files travel.
BASE64 = ".base64"

_LIMIT = 1e6  # HU, far outside of anything physical
_MOST_BOXES = 1000
_MOST_FILLED = 20 * metaimage.MOST_VOXELS  # voxels of all boxes together: somebody waits for the check


@dataclass(frozen=True, slots=True)
class CT:
    """Hounsfield units on a grid: `hu` has the shape (nz, ny, nx)."""

    grid: Grid
    hu: Voxels


def parse(files: Mapping[str, str], header_name: str) -> CT:
    """The CT that the configuration calls `header_name`: that image, or else the one described in ``<stem>.txt``.

    Raises InvalidInput.
    """
    description = PurePosixPath(header_name).stem + ".txt"
    if header_name not in files and description in files:
        return described(description, files[description])
    what = f"The CT's description {description!r} or image"
    header = metaimage.parse_header(header_name, required(files, header_name, what))
    raw = _decoded(header.raw + BASE64, required(files, header.raw + BASE64, "The CT's data, as base64,"))
    hu = metaimage.voxels(header.raw, header, raw)
    if not np.all(np.abs(hu) <= _LIMIT):
        raise InvalidInput(f"{header.raw}: there are voxels without a sensible HU (not a number, or beyond {_LIMIT:g})")
    grid = header.grid if header.grid.offset else replace(header.grid, offset=(0.0, 0.0, 0.0))  # the format's default
    return CT(grid, hu)


def described(file: str, text: str) -> CT:
    """Make a CT from its description; raises InvalidInput."""
    once: dict[str, Line] = {}
    boxes: list[Line] = []
    for line in lines(file, text):
        word = line.words[0]
        if word not in {"grid", "spacing", "fill", "box"}:
            raise line.refusal(f"a line begins with grid, spacing, fill or box, not {quoted(word)}")
        if word in once:
            raise line.refusal(f"{word} was given before, in line {once[word].number}")
        if word == "box":
            boxes.append(line)
        else:
            once[word] = line
    if len(boxes) > _MOST_BOXES:
        raise boxes[_MOST_BOXES].refusal(f"there are more than {_MOST_BOXES} boxes: send the CT as an image")
    for word in ("grid", "spacing"):
        if word not in once:
            raise InvalidInput(f"{file}: there is no line with the {word}")
    grid = metaimage.parse_grid(once["grid"], once["spacing"], 1)
    hu = np.full(grid.shape[::-1], _fill(once.get("fill")), dtype=np.float32)
    left = _MOST_FILLED
    for box in boxes:
        left -= _put(box, grid, hu)
        if left < 0:
            raise box.refusal("the boxes up to here fill the grid over and over: send the CT as an image")
    return CT(grid, hu)


def write(ct: CT, folder: Path) -> None:
    """Write ``ct.mhd`` and ``ct.raw``."""
    metaimage.write(folder, "ct", ct.grid, ct.hu)


def _fill(line: Line | None) -> float:
    if line is None:
        return 0.0
    if len(line.words) != 2:
        raise line.refusal("fill needs one HU")
    return line.real(1, "The HU", -_LIMIT, _LIMIT)


def _put(line: Line, grid: Grid, hu: Voxels) -> int:
    """Fill a box; returns the number of its voxels."""
    if len(line.words) != 8:
        raise line.refusal("box needs x0 x1 y0 y1 z0 z1 in mm, and a HU")
    x, y, z = (_inside(line, grid, axis) for axis in range(3))
    hu[z, y, x] = line.real(7, "The HU", -_LIMIT, _LIMIT)
    return hu[z, y, x].size


def _inside(line: Line, grid: Grid, axis: int) -> slice:
    """The voxels of a box along an axis: their centres are at its lower limit or above, and below its upper one."""
    first, last = (line.real(index, "The box") / grid.spacing[axis] for index in (2 * axis + 1, 2 * axis + 2))
    # Clipped while still a float, since a limit may be too large for an integer index.
    begin, end = (math.ceil(min(max(edge - 0.5, 0.0), grid.shape[axis])) for edge in (first, last))
    if begin >= end:
        raise line.refusal(f"the box holds no voxel along {'xyz'[axis]}")
    return slice(begin, end)


def _decoded(file: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{file}: this is not base64") from None

"""MetaImage: a text header (``.mhd``) beside a file of raw numbers, x fastest, then y, then z.

The format is described in the documentation of the Insight Toolkit. MCsquare ignores the Offset and the orientation,
and counts millimetres from the corner of the grid: so do we.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.text import Line, lines, quoted

Voxels = NDArray[np.float32]

MOST_VOXELS = 300**3

_TYPES = {"MET_FLOAT": "f4", "MET_DOUBLE": "f8", "MET_SHORT": "i2", "MET_INT": "i4"}
#: Keys that may be left out, with the only value that MCsquare acts on.
_ONLY = {
    "CompressedData": "False",
    "ElementNumberOfChannels": "1",
    "ElementByteOrderMSB": "False",
    "BinaryDataByteOrderMSB": "False",
    "HeaderSize": "0",
}
_SMALLEST, _LARGEST = 1e-3, 1e3  # spacing in mm


@dataclass(frozen=True, slots=True)
class Grid:
    """Voxels along (x, y, z), and their size in mm."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def length(self, axis: int) -> float:
        """Size of the grid along an axis, in mm."""
        return self.shape[axis] * self.spacing[axis]

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Distances in mm of the voxels' centres from the corner of the grid, shape (n,)."""
        return np.asarray((np.arange(self.shape[axis]) + 0.5) * self.spacing[axis])


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says: the grid, the type of the numbers, and the name of the file that holds them."""

    grid: Grid
    dtype: np.dtype[np.generic]
    raw: str


def parse_grid(shape: Line, spacing: Line, first: int) -> Grid:
    """A grid from two lines whose numbers begin at word `first`; raises InvalidInput."""
    for line in (shape, spacing):
        if len(line.words) != first + 3:
            raise line.refusal("three numbers are needed, along x, y and z")
    nx, ny, nz = (shape.integer(first + axis, "The number of voxels", 1, MOST_VOXELS) for axis in range(3))
    dx, dy, dz = (spacing.real(first + axis, "The spacing in mm", _SMALLEST, _LARGEST) for axis in range(3))
    grid = Grid((nx, ny, nz), (dx, dy, dz))
    if grid.voxels > MOST_VOXELS:
        raise shape.refusal(f"{grid.voxels} voxels are too many, the limit is {MOST_VOXELS}")
    return grid


def parse_header(file: str, text: str) -> Header:
    """Read a header; raises InvalidInput for what MCsquare cannot read or would silently read in another way."""
    fields = _fields(file, text)
    fields.one_of("NDims", "3")
    kind = fields.one_of("ElementType", *_TYPES)
    for key, value in _ONLY.items():
        if key in fields.lines:
            fields.one_of(key, value)
    grid = parse_grid(fields.line("DimSize"), fields.line("ElementSpacing"), 2)
    raw = " ".join(fields.line("ElementDataFile").words[2:])
    return Header(grid, np.dtype("<" + _TYPES[kind]), raw)


def voxels(file: str, header: Header, raw: bytes) -> Voxels:
    """The numbers of the raw `file`, shape (nz, ny, nx); raises InvalidInput if it is not of the size of the grid."""
    expected = header.grid.voxels * header.dtype.itemsize
    if len(raw) != expected:
        raise InvalidInput(f"{file}: {expected} bytes are needed for {_by(header.grid)} voxels, found {len(raw)}")
    with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite, and the caller looks for that
        numbers = np.frombuffer(raw, dtype=header.dtype).astype(np.float32, copy=False)
    return numbers.reshape(header.grid.shape[::-1])


def write(folder: Path, stem: str, grid: Grid, numbers: Voxels) -> None:
    """Write ``<stem>.mhd`` and ``<stem>.raw``, float32, little endian."""
    spacing = " ".join(map(repr, grid.spacing))
    (folder / f"{stem}.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = {' '.join(map(str, grid.shape))}\nElementSpacing = {spacing}\n"
        f"Offset = 0 0 0\nElementType = MET_FLOAT\nElementByteOrderMSB = False\nElementDataFile = {stem}.raw\n",
        encoding="ascii",
    )
    numbers.astype("<f4", copy=False).tofile(folder / f"{stem}.raw")


def read(folder: Path, name: str) -> tuple[Grid, Voxels]:
    """Read the image with the header `name`; raises InvalidInput if it is no image, OSError if it is not there."""
    header = parse_header(name, (folder / name).read_text(errors="replace"))
    return header.grid, voxels(header.raw, header, (folder / header.raw).read_bytes())


@dataclass(frozen=True, slots=True)
class _Fields:
    """The lines of a header by their key."""

    file: str
    lines: dict[str, Line]

    def line(self, key: str) -> Line:
        if key not in self.lines:
            raise InvalidInput(f"{self.file}: {key} is missing")
        return self.lines[key]

    def one_of(self, key: str, *allowed: str) -> str:
        line = self.line(key)
        if line.words[2] not in allowed:
            raise line.refusal(f"{key} must be {' or '.join(allowed)}, not {quoted(line.words[2])}")
        return line.words[2]


def _fields(file: str, text: str) -> _Fields:
    fields: dict[str, Line] = {}
    for line in lines(file, text.replace("=", " = ")):
        if len(line.words) < 3 or line.words[1] != "=":
            raise line.refusal("a line of a MetaImage header is: Key = value")
        fields[line.words[0]] = line
    return _Fields(file, fields)


def _by(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))

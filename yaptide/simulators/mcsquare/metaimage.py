"""MetaImage: a text header (``.mhd``) and a file of raw numbers, x fastest, then y, then z.

The format is documented by the Insight Toolkit. MCsquare ignores the orientation and other keys that change the meaning
of the numbers, so headers with such keys are rejected here. It also measures positions from the corner of the grid,
whatever the Offset, which only affects the axes of the results.
"""

import difflib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.text import Line, filled_lines, quote_word

Voxels = NDArray[np.float32]

#: Maximum size of any grid: a CT of 512 x 512 voxels has up to 512 slices.
MOST_VOXELS = 1 << 27

_TYPES = {
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
    "MET_SHORT": "i2",
    "MET_INT": "i4",  # those of MCsquare
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_USHORT": "u2",
    "MET_UINT": "u4",
}
_YES, _NO = "True", "False"

#: Required keys.
_SHAPE = ("NDims", "DimSize", "ElementSpacing", "ElementType", "ElementDataFile")
#: Optional keys with the only values that MCsquare supports.
_ONLY = {
    "ObjectType": ("Image",),
    "BinaryData": (_YES,),
    "CompressedData": (_NO,),
    "ElementByteOrderMSB": (_NO,),
    "BinaryDataByteOrderMSB": (_NO,),
    "ElementNumberOfChannels": ("1",),
    "HeaderSize": ("0", "-1"),
    "HeaderSizePerSlice": ("0",),
    "DistanceUnits": ("mm", "?"),
    "Modality": ("MET_MOD_CT", "MET_MOD_OTHER", "MET_MOD_UNKNOWN"),
}
#: Optional keys with the only numbers that MCsquare supports: voxels contain HU.
_ONLY_NUMBER = {
    "ElementToIntensityFunctionSlope": 1.0,
    "ElementToIntensityFunctionOffset": 0.0,
    "RescaleSlope": 1.0,
    "RescaleIntercept": 0.0,
}
_MATRIX = ("TransformMatrix", "Orientation", "Rotation")  # synonyms
_OFFSET = ("Offset", "Position", "Origin")
_ANATOMY = "AnatomicalOrientation"
_IDENTITY = ("RAI", "???")  # right, anterior, inferior; unknown
#: Keys that may be repeated, and may have no value.
_COMMENTS = ("Comment", "Name")
_WITHOUT_EFFECT = (*_COMMENTS, "CenterOfRotation", "ElementMin", "ElementMax", "CompressedDataSize")
#: Known keys, to detect typing errors. Other keys have no effect on the numbers.
_KEYS = (*_SHAPE, *_ONLY, *_ONLY_NUMBER, *_MATRIX, *_OFFSET, _ANATOMY, "ElementSize", *_WITHOUT_EFFECT)

_SMALLEST, _LARGEST = 1e-3, 1e3  # spacing in mm
_FAR = 1e6  # mm
_TURNED = 1e-4  # tolerance of axes: 0.1 mm per m
_MOST_LINES = 1000
_RESAMPLE = "resample the CT so that its axes are x, y and z"


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers of voxels along (x, y, z), and their size in mm.

    `offset` is the centre of the first voxel in the CT's coordinates, in mm; without it, coordinates begin at the
    corner of the grid.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    offset: tuple[float, float, float] | None = None

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def axis_length(self, axis: int) -> float:
        """Return the size of the grid along an axis, in mm."""
        return self.shape[axis] * self.spacing[axis]

    def voxel_centres(self, axis: int) -> NDArray[np.float64]:
        """Return the distances in mm of the voxels' centres from the corner of the grid, shape (n,)."""
        return np.asarray((np.arange(self.shape[axis]) + 0.5) * self.spacing[axis])

    def voxel_coordinates(self, axis: int) -> NDArray[np.float64]:
        """Return the voxels' centres in the CT's coordinates, in mm, shape (n,)."""
        if self.offset is None:
            return self.voxel_centres(axis)
        return np.asarray(self.offset[axis] + np.arange(self.shape[axis]) * self.spacing[axis])

    def to_ct_coordinates(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Convert a point from distances to the corner of the grid to the CT's coordinates; all in mm."""
        if self.offset is None:
            return point
        x, y, z = (at + first - size / 2 for at, first, size in zip(point, self.offset, self.spacing, strict=True))
        return x, y, z


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header: the grid, the type of the numbers, and the name of the raw file.

    With `has_prefix` (HeaderSize -1), the voxels are the end of the raw file, whatever is before them.
    """

    grid: Grid
    dtype: np.dtype[np.generic]
    raw: str
    has_prefix: bool = False


def parse_grid(shape: Line, spacing: Line, first: int, most: int = MOST_VOXELS) -> Grid:
    """Parse a grid of at most `most` voxels from two lines, numbers begin at word `first`; raise InvalidInput."""
    for line in (shape, spacing):
        if len(line.words) != first + 3:
            raise line.make_error("three numbers are needed, along x, y and z")
    nx, ny, nz = (shape.parse_integer(first + axis, "The number of voxels", 1, most) for axis in range(3))
    dx, dy, dz = (spacing.parse_real(first + axis, "The spacing in mm", _SMALLEST, _LARGEST) for axis in range(3))
    grid = Grid((nx, ny, nz), (dx, dy, dz))
    if grid.voxels > most:
        raise shape.make_error(f"{grid.voxels} voxels exceed the limit of {most}")
    return grid


def parse_header(file: str, text: str) -> Header:
    """Parse a header; raise InvalidInput for keys that MCsquare cannot read or would misinterpret."""
    fields = _fields(file, text)
    fields.one_of("NDims", "3")
    kind = fields.one_of("ElementType", *_TYPES)
    grid = parse_grid(fields.line("DimSize"), fields.line("ElementSpacing"), 2)
    _check_numbers(fields, grid)
    _check_orientation(fields)
    raw = _raw_name(fields.line("ElementDataFile"))
    has_prefix = any(_value(line) == "-1" for line in fields.present("HeaderSize"))
    return Header(replace(grid, offset=_offset(fields)), np.dtype("<" + _TYPES[kind]), raw, has_prefix)


def read_voxels(file: str, header: Header, raw: bytes) -> Voxels:
    """Return the numbers of the raw `file`, shape (nz, ny, nx); raise InvalidInput if its size is not the grid's."""
    expected = header.grid.voxels * header.dtype.itemsize
    if header.has_prefix:
        raw = raw[max(len(raw) - expected, 0) :]
    if len(raw) != expected:
        raise InvalidInput(
            f"{file}: {expected} bytes are needed for {_by(header.grid)} voxels, but there are {len(raw)}"
        )
    with np.errstate(over="ignore"):  # overflow in float32 gives infinity, which the caller checks
        numbers = np.frombuffer(raw, dtype=header.dtype).astype(np.float32, copy=False)
    return numbers.reshape(header.grid.shape[::-1])


def write_image(folder: Path, stem: str, grid: Grid, numbers: Voxels) -> None:
    """Write ``<stem>.mhd`` and ``<stem>.raw``, float32, little endian."""
    spacing = " ".join(map(repr, grid.spacing))
    offset = f"Offset = {' '.join(map(repr, grid.offset))}\n" if grid.offset else ""
    (folder / f"{stem}.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = {' '.join(map(str, grid.shape))}\nElementSpacing = {spacing}\n"
        f"{offset}ElementType = MET_FLOAT\nElementByteOrderMSB = False\nElementDataFile = {stem}.raw\n",
        encoding="ascii",
    )
    numbers.astype("<f4", copy=False).tofile(folder / f"{stem}.raw")


def read_image(folder: Path, name: str) -> tuple[Grid, Voxels]:
    """Read the image with the header `name`; raise InvalidInput if it is invalid, OSError if it is missing."""
    header = parse_header(name, (folder / name).read_text(errors="replace"))
    return header.grid, read_voxels(header.raw, header, (folder / header.raw).read_bytes())


@dataclass(frozen=True, slots=True)
class _Fields:
    """The lines of a header by key."""

    file: str
    lines: dict[str, Line]

    def line(self, key: str) -> Line:
        if key not in self.lines:
            raise InvalidInput(f"{self.file}: {key} is missing")
        return self.lines[key]

    def one_of(self, key: str, *allowed: str) -> str:
        value = _value(self.line(key))
        if value not in allowed:
            raise self.line(key).make_error(f"{key} must be {' or '.join(allowed)}, not {quote_word(value)}")
        return value

    def present(self, *keys: str) -> list[Line]:
        return [self.lines[key] for key in keys if key in self.lines]


def _raw_name(line: Line) -> str:
    """Return the name of the raw file, without its folder; raise InvalidInput for other kinds of data."""
    name = _value(line).replace("\\", "/").rpartition("/")[2]
    if not name:
        raise line.make_error("ElementDataFile has no value")
    kind = name.split()[0]
    if kind in {"LOCAL", "LIST"} or "%" in name:
        raise line.make_error(
            f"ElementDataFile is {quote_word(name)}, but the voxels must be in one file of their own: save the CT as "
            ".mhd with a .raw file"
        )
    return name


def _fields(file: str, text: str) -> _Fields:
    fields: dict[str, Line] = {}
    for line in filled_lines(file, text):
        key, equals, value = (part.strip() for part in " ".join(line.words).partition("="))
        if line.words[0] in _COMMENTS:
            continue
        if not key or not equals:
            raise line.make_error("a line of a MetaImage header must be: Key = value")
        if key in fields:
            raise line.make_error(f"{quote_word(key)} is repeated, after line {fields[key].number}")
        if len(fields) == _MOST_LINES:
            raise line.make_error(f"a header may have at most {_MOST_LINES} lines")
        fields[key] = Line(file, line.number, (key, "=", *value.split()))
    for key, line in fields.items():
        _check_known(key, line)
    return _Fields(file, fields)


def _check_known(key: str, line: Line) -> None:
    """Reject a key that is similar to a known one; others are comments, e.g. of DICOM converters."""
    if key not in _KEYS:
        known = {name.lower(): name for name in _KEYS}
        similar = difflib.get_close_matches(key[:80].lower(), known, 1, 0.85)
        if similar:
            raise line.make_error(f"MetaImage has no key {quote_word(key)}, did you mean {known[similar[0]]}?")


def _check_numbers(fields: _Fields, grid: Grid) -> None:
    """Reject keys that change the meaning of the numbers."""
    for line in fields.present(*_ONLY):
        key = line.words[0]
        if _normal(_value(line), _ONLY[key]) not in _ONLY[key]:
            raise line.make_error(f"{key} must be {_ONLY[key][0]}, not {quote_word(_value(line))}")
    for line in fields.present(*_ONLY_NUMBER):
        key = line.words[0]
        if _reals(line, 1) != [_ONLY_NUMBER[key]]:
            raise line.make_error(f"{key} must be {_ONLY_NUMBER[key]:g}: the raw file must contain HU")
    for line in fields.present("ElementSize"):
        if not np.allclose(_reals(line, 3), grid.spacing, rtol=1e-5, atol=0):
            raise line.make_error("ElementSize differs from ElementSpacing, and would be ignored: remove it")


def _check_orientation(fields: _Fields) -> None:
    for line in fields.present(*_MATRIX):
        if np.abs(np.subtract(_reals(line, 9), np.eye(3).ravel())).max() > _TURNED:
            raise line.make_error(f"{line.words[0]} turns or mirrors the CT, which MCsquare would ignore: {_RESAMPLE}")
    for line in fields.present(_ANATOMY):
        if _value(line) not in _IDENTITY:
            value = quote_word(_value(line))
            raise line.make_error(f"{_ANATOMY} must be RAI, not {value}: {_RESAMPLE}, or write RAI if they are")


def _offset(fields: _Fields) -> tuple[float, float, float] | None:
    """Return the centre of the first voxel; None without an offset. Raise InvalidInput for conflicting offsets."""
    points = []
    for line in fields.present(*_OFFSET):
        x, y, z = _reals(line, 3, _FAR)
        points.append((x, y, z))
        if points[0] != points[-1]:
            raise line.make_error(f"{line.words[0]} contradicts its synonym {fields.present(*_OFFSET)[0].words[0]}")
    return points[0] if points else None


def _value(line: Line) -> str:
    return " ".join(line.words[2:])


def _normal(value: str, allowed: tuple[str, ...]) -> str:
    """Return a Boolean as MetaImage reads it, by its first letter; any other value as it is."""
    if allowed[0] not in (_YES, _NO) or not value:
        return value
    return _YES if value[0] in "Tt1" else _NO if value[0] in "Ff0" else value


def _reals(line: Line, count: int, most: float = math.inf) -> list[float]:
    if len(line.words) != 2 + count:
        raise line.make_error(f"{line.words[0]}: {count} numbers are needed, but there are {len(line.words) - 2}")
    return [line.parse_real(index, line.words[0], -most, most) for index in range(2, 2 + count)]


def _by(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))

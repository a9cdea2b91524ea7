"""The beam data library (BDL): properties of the beam at each energy of the machine.

The beam is the sum of two Gaussian spots, each with a size, a divergence and their correlation in x and y. Format: a
title, distances and range shifters as label and value, then ``N energies``, column names, and rows of 18 numbers.
MCsquare 1.1 reads the first N rows and the first 18 numbers of each; so does this module.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.mcsquare.tables import FIRST_MATERIAL, LAST_MATERIAL
from yaptide.simulators.text import Line, filled_lines, quote_word

_TITLES = ("--UPenn beam model (double gaussian)--", "--Lookup table BDL format--")  # equivalent for MCsquare

_DISTANCES = ("Nozzle exit to Isocenter distance", "SMX to Isocenter distance", "SMY to Isocenter distance")

_NAMES = (
    "NominalEnergy MeanEnergy EnergySpread ProtonsMU "
    "Weight1 SpotSize1x Divergence1x Correlation1x SpotSize1y Divergence1y Correlation1y "
    "Weight2 SpotSize2x Divergence2x Correlation2x SpotSize2y Divergence2y Correlation2y"
)
_COLUMNS = tuple(_NAMES.split())
_SHIFTER_KEYS = ("RS_ID", "RS_type", "RS_material", "RS_density", "RS_WET")

#: Minimum |Correlation| x Divergence / SpotSize, per mm. Below 6e-9, MCsquare 1.1 starts every proton outside the grid
#: (measured; probably an angle that is rounded to 0 in single precision). With a safety margin.
_LEAST_TILT = 1e-8


@dataclass(frozen=True, slots=True)
class RangeShifter:
    """A range shifter: name, ``binary`` or ``analog``, material label, density in g/cm3, water thickness in mm."""

    name: str
    kind: str
    material: int
    density: float
    thickness: float


@dataclass(frozen=True, slots=True)
class BDL:
    """A validated beam data library.

    `distances` in mm from the isocentre to the nozzle exit and to the two magnets; `rows` of 18 numbers in the order of
    the file: energies (MeV) ascend, sizes are in mm, divergences in rad.
    """

    distances: tuple[float, ...]
    shifters: tuple[RangeShifter, ...]
    rows: tuple[tuple[float, ...], ...]

    @property
    def energies(self) -> tuple[float, float]:
        """Lowest and highest nominal energy in MeV."""
        return self.rows[0][0], self.rows[-1][0]


def parse_bdl(file: str, text: str) -> BDL:
    """Parse a BDL; raise InvalidInput for input that MCsquare cannot read, and for beams whose protons it loses."""
    rest = filled_lines(file, text)
    if not rest or " ".join(rest[0].words) not in _TITLES:
        raise InvalidInput(f"{file}: the first line must be {_TITLES[0]!r}")
    head, table = _split(file, rest[1:])
    distances, shifters = _head(file, iter(head))
    return BDL(distances, shifters, _rows(file, table))


def format_bdl(bdl: BDL) -> str:
    """Return the text of a BDL file for MCsquare."""
    parts = [_TITLES[0]]
    parts += [f"{label}\n{distance!r}" for label, distance in zip(_DISTANCES, bdl.distances, strict=True)]
    parts += [
        f"Range Shifter parameters\nRS_ID = {shifter.name}\nRS_type = {shifter.kind}\n"
        f"RS_material = {shifter.material}\nRS_density = {shifter.density!r}\nRS_WET = {shifter.thickness!r}"
        for shifter in bdl.shifters
    ]
    parts += [f"Beam parameters\n{len(bdl.rows)} energies"]
    parts += ["\n".join([_NAMES, *(" ".join(map(repr, row)) for row in bdl.rows)])]
    return "\n\n".join(parts) + "\n"


def _split(file: str, body: list[Line]) -> tuple[list[Line], list[Line]]:
    """Return the lines before and after ``Beam parameters``."""
    for index, line in enumerate(body):
        if line.words == ("Beam", "parameters"):
            return body[:index], body[index + 1 :]
    raise InvalidInput(f"{file}: the line 'Beam parameters' is missing")


def _head(file: str, head: Iterator[Line]) -> tuple[tuple[float, ...], tuple[RangeShifter, ...]]:
    distances: dict[str, float] = {}
    shifters: list[RangeShifter] = []
    for line in head:
        label = " ".join(line.words)
        if label in _DISTANCES:
            distances[label] = next(head, line).parse_real(0, f"{label!r} in mm", 1e-3, 1e6)
        elif label == "Range Shifter parameters":
            shifters.append(_shifter(line, head))
        else:
            raise line.make_error(f"unexpected {quote_word(label)}")
    for label in _DISTANCES:
        if label not in distances:
            raise InvalidInput(f"{file}: {label!r} is missing")
    return tuple(distances[label] for label in _DISTANCES), tuple(shifters)


def _shifter(title: Line, head: Iterator[Line]) -> RangeShifter:
    values: dict[str, Line] = {}
    line = title
    for _ in _SHIFTER_KEYS:
        line = next(head, line)
        words = " ".join(line.words).replace("=", " ").split()
        if len(words) != 2 or words[0] not in _SHIFTER_KEYS or words[0] in values:
            missing = next(key for key in _SHIFTER_KEYS if key not in values)
            raise line.make_error(f"a range shifter needs the line: {missing} = value")
        values[words[0]] = Line(line.file, line.number, tuple(words))
    kind = values["RS_type"].words[1].lower()
    if kind not in {"binary", "analog"}:
        raise values["RS_type"].make_error("RS_type must be binary or analog")
    return RangeShifter(
        name=values["RS_ID"].words[1],
        kind=kind,
        material=values["RS_material"].parse_integer(1, "RS_material", FIRST_MATERIAL, LAST_MATERIAL),
        density=values["RS_density"].parse_real(1, "RS_density in g/cm3", 1e-6, 100),
        thickness=values["RS_WET"].parse_real(1, "RS_WET in mm", 0, 1e4),
    )


def _rows(file: str, table: list[Line]) -> tuple[tuple[float, ...], ...]:
    if len(table) < 3:
        raise InvalidInput(
            f"{file}: 'Beam parameters' must be followed by the number of energies, column names and rows"
        )
    count, names, *rows = table
    declared = count.parse_integer(0, "The number of energies", 1, 10**6)
    if declared > len(rows):
        raise count.make_error(f"{count.words[0]} energies are declared, but there are {len(rows)} rows")
    rows = rows[:declared]  # MCsquare ignores further ones (measured)
    if names.words[: len(_COLUMNS)] != _COLUMNS:
        raise names.make_error(f"the columns must be {_NAMES}")
    numbers = tuple(_row(line) for line in rows)
    for line, before, after in zip(rows[1:], numbers, numbers[1:], strict=False):
        if after[0] <= before[0]:
            raise line.make_error("the energy must be larger than that of the row before")
    return numbers


def _row(line: Line) -> tuple[float, ...]:
    if len(line.words) < len(_COLUMNS):
        raise line.make_error(f"A row of the BDL: {len(_COLUMNS)} numbers are needed, found {len(line.words)} words")
    numbers = tuple(line.parse_real(index, name) for index, name in enumerate(_COLUMNS))  # MCsquare ignores the rest
    value = dict(zip(_COLUMNS, numbers, strict=True))
    for name in ("NominalEnergy", "MeanEnergy", "ProtonsMU"):
        if value[name] <= 0:
            raise line.make_error(f"{name} must be more than 0")
    for name in ("EnergySpread", "Weight1", "Weight2"):
        if value[name] < 0:
            raise line.make_error(f"{name} must be 0 or more")
    if value["Weight1"] + value["Weight2"] == 0:
        raise line.make_error("Weight1 or Weight2 must be more than 0")
    for spot in "12":
        if value["Weight" + spot]:
            _spot(line, value, spot + "x")
            _spot(line, value, spot + "y")
    return numbers


def _spot(line: Line, value: dict[str, float], axis: str) -> None:
    size, divergence, correlation = (value[name + axis] for name in ("SpotSize", "Divergence", "Correlation"))
    if size <= 0 or divergence <= 0 or not abs(correlation) <= 1:
        raise line.make_error(
            f"SpotSize{axis} and Divergence{axis} must be more than 0 and Correlation{axis} between -1 and 1"
        )
    if abs(correlation) * divergence / size < _LEAST_TILT:
        raise line.make_error(
            f"Correlation{axis} x Divergence{axis} / SpotSize{axis} must be at least {_LEAST_TILT:g}, otherwise "
            f"MCsquare starts every proton outside the geometry: use a Correlation{axis} of 1e-4 instead of 0"
        )

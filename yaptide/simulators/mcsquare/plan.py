"""The treatment plan: fields, their control points (one energy each), and spots.

Format: a tag in its own line, e.g. ``###GantryAngle``, and its value in the next line. MCsquare skips unknown tags,
reads whatever follows a missing spot as a spot, and may hang; so the declared counts are checked here.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.text import Line, quote_word, split_lines

Spot = tuple[float, float, float]

_TAG_NAMES = (
    "TREATMENT-PLAN-DESCRIPTION PlanName NumberOfFractions FractionID NumberOfFields FieldsID "
    "TotalMetersetWeightOfAllFields FIELD-DESCRIPTION FieldID FinalCumulativeMeterSetWeight GantryAngle "
    "PatientSupportAngle IsocenterPosition RangeShifterID RangeShifterType NumberOfControlPoints "
    "SPOTS-DESCRIPTION ControlPointIndex SpotTunnedID SpotTuneID CumulativeMetersetWeight Energy "
    "RangeShifterSetting IsocenterToRangeShifterDistance RangeShifterWaterEquivalentThickness NbOfScannedSpots X"
)
_TAGS = frozenset(_TAG_NAMES.split())
_TAG = re.compile(r"#+(\S+)\s*(.*)")  # "# words" is a comment
#: Allowed text after a tag in its line: it declares the columns below. Times are for an unsupported mode.
_HEADS = {"Energy": ("(MeV)", ""), "X": ("Y Weight", "Y Weight Time")}

_MANY = 10**6
_FAR = 1e5  # mm
_HEAVY = 1e30


@dataclass(frozen=True, slots=True)
class ShifterSetting:
    """The range shifter at a control point: ``IN`` or ``OUT``, mm from the isocentre, mm of water."""

    setting: str
    distance: float
    thickness: float


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """Spots of one energy: `energy` in MeV, `spots` as (x mm, y mm, weight) in the plane of the isocentre."""

    energy: float
    spots: tuple[Spot, ...]
    shifter: ShifterSetting | None = None
    line: int = dataclasses.field(default=0, compare=False)  # where it begins in the file


@dataclass(frozen=True, slots=True)
class Field:
    """A direction of the beam: angles in degrees, `isocentre` in mm as in the plan (geometry.py mirrors its x)."""

    gantry: float
    couch: float
    isocentre: tuple[float, float, float]
    points: tuple[ControlPoint, ...]
    shifter: tuple[str, str] | None = None  # name and kind
    line: int = dataclasses.field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """The fields in the order of the file."""

    fields: tuple[Field, ...]


_OUT = ShifterSetting("OUT", 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tag and the lines of its value."""

    tag: str
    line: Line
    values: list[Line]

    def value(self) -> Line:
        if len(self.values) != 1:
            raise self.line.make_error(f"{self.tag} needs one line with its value, but there are {len(self.values)}")
        return self.values[0]


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the file: where it begins, and its entries."""

    name: str
    start: Line
    entries: tuple[_Entry, ...]

    def find(self, tag: str) -> _Entry | None:
        entries = [entry for entry in self.entries if entry.tag == tag]
        if len(entries) > 1:
            raise entries[1].line.make_error(f"{tag} is given twice in {self.name}")
        return entries[0] if entries else None

    def entry(self, tag: str) -> _Entry:
        entry = self.find(tag)
        if entry is None:
            raise self.start.make_error(f"{self.name} has no {tag}")
        return entry

    def split(self, tag: str, name: str) -> tuple["_Section", list["_Section"]]:
        """Return the entries before the first `tag`, and the parts that begin with it."""
        starts = [index for index, entry in enumerate(self.entries) if entry.tag == tag]
        parts = [
            _Section(f"{name} {number}", self.entries[begin].line, self.entries[begin:end])
            for number, (begin, end) in enumerate(itertools.pairwise([*starts, len(self.entries)]), 1)
        ]
        return _Section(self.name, self.start, self.entries[: starts[0] if starts else None]), parts


def parse_plan(file: str, text: str) -> Plan:
    """Parse a plan; raise InvalidInput for input that MCsquare cannot read or would misinterpret.

    Layers and fields without weight are left out: MCsquare samples no proton of them (measured: the same dose bits).
    """
    entries = _entries(file, text)
    if not entries:
        raise InvalidInput(f"{file}: not a treatment plan: it has no lines")
    whole = _Section("the plan", entries[0].line, tuple(entries))
    head, fields = whole.split("FIELD-DESCRIPTION", "field")
    _count(head, "NumberOfFields", fields)
    weighted = tuple(field for field in map(_field, fields) if field.points)
    if not weighted:
        raise fields[0].start.make_error("all weights of the plan are 0, so nothing would be simulated")
    return Plan(weighted)


def format_plan(plan: Plan) -> str:
    """Return the text of a plan file for MCsquare."""
    weights = [[sum(spot[2] for spot in point.spots) for point in field.points] for field in plan.fields]
    ids = "".join(f"###FieldsID\n{number}\n" for number in range(1, len(plan.fields) + 1))
    head = (
        "#TREATMENT-PLAN-DESCRIPTION\n#PlanName\nplan\n#NumberOfFractions\n1\n##FractionID\n1\n"
        f"##NumberOfFields\n{len(plan.fields)}\n{ids}#TotalMetersetWeightOfAllFields\n{sum(map(sum, weights))!r}\n"
    )
    fields = (_field_text(number, field, weights[number - 1]) for number, field in enumerate(plan.fields, 1))
    return head + "".join(fields)


def _entries(file: str, text: str) -> list[_Entry]:
    entries: list[_Entry] = []
    is_name = False  # MCsquare takes the line after #PlanName as the name, whatever it is
    for number, content in enumerate(split_lines(text), 1):
        tag = None if is_name else _TAG.match(content.strip())
        line = Line(file, number, tuple(content.split("#")[0].split()))
        if tag:
            if tag[1] not in _TAGS:
                raise line.make_error(f"unknown tag {quote_word(tag[1])}")
            heads = _HEADS.get(tag[1])
            if heads and " ".join(tag[2].split()) not in heads:
                raise line.make_error(f"the columns must be {tag[1]} {heads[0]}, not {quote_word(content.strip('# '))}")
            entries.append(_Entry(tag[1], line, []))
            is_name = tag[1] == "PlanName"
        elif is_name:
            is_name = False
        elif line.words:
            if not entries or entries[-1].tag.endswith("DESCRIPTION"):  # such tags have no value
                raise line.make_error("expected a tag here, e.g. ###GantryAngle")
            entries[-1].values.append(line)
    return entries


def _count(section: _Section, tag: str, parts: Sequence[object], least: int = 1) -> None:
    value = section.entry(tag).value()
    if value.parse_integer(0, tag, least, _MANY) != len(parts):
        raise value.make_error(f"{tag} is {value.words[0]}, but there are {len(parts)}")


def _field(section: _Section) -> Field:
    head, points = section.split("ControlPointIndex", f"{section.name}, control point")
    _count(head, "NumberOfControlPoints", points)
    x, y, z = head.entry("IsocenterPosition").value().parse_reals(3, "IsocenterPosition in mm")
    name = head.find("RangeShifterID")
    layers = [_point(point, name is not None) for point in points]
    return Field(
        gantry=head.entry("GantryAngle").value().parse_real(0, "GantryAngle in degrees", -720, 720),
        couch=head.entry("PatientSupportAngle").value().parse_real(0, "PatientSupportAngle in degrees", -720, 720),
        isocentre=(x, y, z),
        points=tuple(point for point in layers if any(weight for _, _, weight in point.spots)),
        shifter=(name.value().words[0], _kind(head)) if name else None,
        line=section.start.number,
    )


def _kind(section: _Section) -> str:
    return section.entry("RangeShifterType").value().words[0].lower()


def _point(section: _Section, shifter: bool) -> ControlPoint:
    table = section.find("X")
    spots = tuple(_spot(line) for line in table.values) if table else ()
    _count(section, "NbOfScannedSpots", spots, least=0)
    energy = section.entry("Energy").value().parse_real(0, "Energy in MeV", 0)
    return ControlPoint(energy, spots, _setting(section) if shifter else None, section.start.number)


def _spot(line: Line) -> Spot:
    if len(line.words) not in {3, 4}:  # the fourth is the time, for an unsupported mode
        raise line.make_error("a spot must be: x y weight")
    x, y = (line.parse_real(index, "The spot's position in mm", -_FAR, _FAR) for index in range(2))
    return x, y, line.parse_real(2, "The spot's weight", 0, _HEAVY)


def _setting(section: _Section) -> ShifterSetting:
    """Return the setting at a control point: OUT where there is none. A distance does not matter then (measured)."""
    entry = section.find("RangeShifterSetting")
    if entry is None:
        return _OUT
    setting = entry.value()
    if setting.words[0] not in {"IN", "OUT"}:
        raise setting.make_error("RangeShifterSetting must be IN or OUT")
    if setting.words[0] == "OUT" and not section.find("IsocenterToRangeShifterDistance"):
        return _OUT
    distance = section.entry("IsocenterToRangeShifterDistance").value().parse_real(0, "The distance in mm", -_FAR, _FAR)
    thickness = (
        section.entry("RangeShifterWaterEquivalentThickness").value().parse_real(0, "The thickness in mm", 0, _FAR)
    )
    return ShifterSetting(setting.words[0], distance, thickness)


def _field_text(number: int, field: Field, weights: Sequence[float]) -> str:
    shifter = ""
    if field.shifter:
        shifter = f"###RangeShifterID\n{field.shifter[0]}\n###RangeShifterType\n{field.shifter[1]}\n"
    return (
        f"\n#FIELD-DESCRIPTION\n###FieldID\n{number}\n###FinalCumulativeMeterSetWeight\n{sum(weights)!r}\n"
        f"###GantryAngle\n{field.gantry!r}\n###PatientSupportAngle\n{field.couch!r}\n"
        f"###IsocenterPosition\n{' '.join(map(repr, field.isocentre))}\n{shifter}"
        f"###NumberOfControlPoints\n{len(field.points)}\n\n#SPOTS-DESCRIPTION\n"
    ) + "".join(map(_point_text, itertools.count(1), field.points, itertools.accumulate(weights)))


def _point_text(index: int, point: ControlPoint, cumulative: float) -> str:
    shifter = ""
    if point.shifter:
        shifter = (
            f"####RangeShifterSetting\n{point.shifter.setting}\n"
            f"####IsocenterToRangeShifterDistance\n{point.shifter.distance!r}\n"
            f"####RangeShifterWaterEquivalentThickness\n{point.shifter.thickness!r}\n"
        )
    spots = "".join(f"{x!r} {y!r} {weight!r}\n" for x, y, weight in point.spots)
    return (
        f"####ControlPointIndex\n{index}\n####SpotTunnedID\n1\n####CumulativeMetersetWeight\n{cumulative!r}\n"
        f"####Energy (MeV)\n{point.energy!r}\n{shifter}"
        f"####NbOfScannedSpots\n{len(point.spots)}\n####X Y Weight\n{spots}"
    )

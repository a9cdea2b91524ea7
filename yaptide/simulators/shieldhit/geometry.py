"""Writes ``geo.dat``: bodies, zones, and the medium of each zone, in columns of combinatorial geometry.

A body: its type in columns 3 to 5, its number in 6 to 10, then numbers in columns of 10, six in a line. A zone: its
name in columns 3 to 5, then up to nine fields of seven columns, ``OR`` or blanks, and the number of a body with its
sign. Media: lines of 14 zones, then lines of their media.
"""

from collections.abc import Iterator, Sequence

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import BLACK_HOLE, VACUUM, Figure, Material
from yaptide.editor.regions import Region, Regions, Term
from yaptide.editor.sections import quote_text
from yaptide.simulators.bodies import describe_body, measure_body
from yaptide.simulators.columns import format_number
from yaptide.simulators.projects import comment

_WIDTH = 10
_COARSEST = 0.01  # relative change of a thickness by rounding
_IN_LINE, _MEDIA_IN_LINE, _BODIES_IN_LINE = 6, 14, 9
_MOST_ZONES = 999


def format_geometry(title: str, regions: Regions, media: dict[Material, int]) -> str:
    """Return geo.dat; raise InvalidInput for too many zones, or lengths that do not fit."""
    if len(regions.regions) > _MOST_ZONES:
        raise InvalidInput(f"SHIELD-HIT12A supports {_MOST_ZONES} zones: the project has {len(regions.regions)}")
    lines = [f"{0:5d}{0:5d}{'':10}{comment(title) or 'Project'}"]
    for number, body in enumerate(regions.bodies, 1):
        lines += _format_body(number, body)
    lines.append("  END")
    for number, region in enumerate(regions.regions, 1):
        lines += [f"* {comment(region.name)}: {comment(region.material.name)}", *_format_zone(number, region)]
    lines.append("  END")
    lines += _format_rows(range(1, len(regions.regions) + 1))
    lines += _format_rows([_medium(region.material, media) for region in regions.regions])
    return "\n".join(lines) + "\n"


def _format_body(number: int, body: Figure) -> Iterator[str]:
    kind, values = describe_body(body)
    columns = [_format_length(value) for value in values]
    _check_thickness(body, measure_body(kind, values), measure_body(kind, [float(text) for text in columns]))
    yield f"* {comment(body.name)}"
    label = f"  {kind}{number:5d}"
    for first in range(0, len(columns), _IN_LINE):
        yield label + "".join(f"{text:>{_WIDTH}}" for text in columns[first : first + _IN_LINE])
        label = " " * len(label)


def _format_length(value: float) -> str:
    """Return a length, with a blank or a sign in front that separates it from the one before."""
    text = format_number(value, _WIDTH)
    return text if text.startswith("-") else format_number(value, _WIDTH - 1)


def _check_thickness(body: Figure, exact: Sequence[float], rounded: Sequence[float]) -> None:
    """Raise InvalidInput if rounding changes a body that is thin and far from the origin."""
    for before, after in zip(exact, rounded, strict=True):
        if abs(after - before) > _COARSEST * before:
            raise InvalidInput(
                f"Project, figure {quote_text(body.name)}: the columns of geo.dat would change its thickness from "
                f"{before:g} to {after:g} cm: move it closer to the origin, or make it thicker"
            )


def _format_zone(number: int, region: Region) -> Iterator[str]:
    fields = [field for term in region.terms for field in _format_term(term, is_one_of=len(region.terms) > 1)]
    label = f"  {number:03d}{'':5}"
    for first in range(0, len(fields), _BODIES_IN_LINE):
        yield label + "".join(fields[first : first + _BODIES_IN_LINE])
        label = " " * len(label)


def _format_term(term: Term, *, is_one_of: bool) -> list[str]:
    numbers = sorted(term, key=lambda number: (number < 0, abs(number)))
    marks = ["OR" if is_one_of else "  ", *["  "] * (len(numbers) - 1)]
    return [f"{mark}{number:+5d}" for mark, number in zip(marks, numbers, strict=True)]


def _format_rows(values: Sequence[int]) -> Iterator[str]:
    for first in range(0, len(values), _MEDIA_IN_LINE):
        yield "".join(f"{value:5d}" for value in values[first : first + _MEDIA_IN_LINE])


def _medium(material: Material, media: dict[Material, int]) -> int:
    if material.is_black_hole:
        return BLACK_HOLE
    return VACUUM if material.is_empty else media[material]

"""Writes bodies and regions between GEOBEGIN and GEOEND, by name and in free format (FLUKA manual 8)."""

from collections.abc import Iterator

from yaptide.editor.project import Figure, Material
from yaptide.editor.regions import Region, Regions, Term
from yaptide.simulators.bodies import describe_body
from yaptide.simulators.fluka.cards import format_card
from yaptide.simulators.projects import comment

_LONGEST = 120  # characters of a line
_NEIGHBOURS = 5
#: Decimals of lengths in cm: many, because edges of a box must be perpendicular.
_DECIMALS = 10


def format_geometry(title: str, regions: Regions) -> Iterator[str]:
    """Yield the lines of the geometry."""
    yield format_card("GEOBEGIN", (), "COMBNAME")
    yield f"    0    0          {comment(title)}".rstrip()
    for number, body in enumerate(regions.bodies, 1):
        yield f"* {comment(body.name)}"
        yield from _format_body(number, body)
    yield "END"
    for number, region in enumerate(regions.regions, 1):
        yield f"* {comment(region.name)}: {comment(region.material.name)}"
        yield from _format_region(number, region)
    yield "END"
    yield format_card("GEOEND")


def format_assignments(regions: Regions, names: dict[Material, str]) -> Iterator[str]:
    """Yield the card that assigns a material to each region."""
    for number, region in enumerate(regions.regions, 1):
        yield format_card("ASSIGNMA", [names[region.material], name_region(number)])


def name_region(number: int) -> str:
    """Return the name of a region."""
    return f"REG{number:05d}"


def _format_body(number: int, body: Figure) -> Iterator[str]:
    kind, values = describe_body(body)
    words = [kind, f"B{number}", *(f"{round(value, _DECIMALS) + 0.0:.16g}" for value in values)]
    yield from _wrap(words)


def _format_region(number: int, region: Region) -> Iterator[str]:
    words = [name_region(number), str(_NEIGHBOURS)]
    for term in region.terms:
        words += ["|"] if len(region.terms) > 1 else []
        words += _format_term(term)
    yield from _wrap(words)


def _format_term(term: Term) -> list[str]:
    numbers = sorted(term, key=lambda number: (number < 0, abs(number)))
    return [f"{'+' if number > 0 else '-'}B{abs(number)}" for number in numbers]


def _wrap(words: list[str]) -> Iterator[str]:
    """Yield words in lines that are not too long; those after the first begin with a blank."""
    line = words[0]
    for word in words[1:]:
        if len(line) + len(word) >= _LONGEST:
            yield line
            line = ""
        line += f" {word}"
    yield line

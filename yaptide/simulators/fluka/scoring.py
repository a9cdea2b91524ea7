"""Writes the cards of scoring: USRBIN, with AUXSCORE for filters of particles (FLUKA manual 7).

The quantities of an output are in one file, whose unit is 21 for the first output, 22 for the second ...
"""

from collections.abc import Iterator

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Beam, Cylinder, Mesh, Output, Project, Quantity
from yaptide.editor.sections import quote_text
from yaptide.simulators.fluka.cards import Field, format_card
from yaptide.simulators.projects import make_names, refuse_differential, refuse_quantity, refuse_rescaling

FIRST_UNIT, _LAST_UNIT = 21, 99
QUANTITIES = ("Dose", "DoseGy", "Fluence")
_CARTESIAN, _CYLINDRICAL = 10.0, 11.0
_LONGEST = 8
_HEAVIEST = 300
#: Names of particles by Z and A.
_PARTICLES: dict[tuple[float, float], str] = {
    (0, 1): "NEUTRON",
    (1, 1): "PROTON",
    (1, 2): "DEUTERON",
    (1, 3): "TRITON",
    (2, 3): "3-HELIUM",
    (2, 4): "4-HELIUM",
}
_PRIMARIES, _ALL = "BEAMPART", "ALL-PART"


def format_scoring(project: Project) -> Iterator[str]:
    """Yield the cards; raise InvalidInput for a detector or quantity that yaptide cannot convert for FLUKA."""
    if len(project.outputs) > _LAST_UNIT - FIRST_UNIT:
        raise InvalidInput(f"Project, outputs: FLUKA has units for {_LAST_UNIT - FIRST_UNIT} outputs")
    scored = [
        (unit, output, quantity)
        for unit, output in enumerate(project.outputs, FIRST_UNIT)
        for quantity in output.quantities
    ]
    names = make_names([quantity.name for _, _, quantity in scored], _LONGEST, "Quantity")
    for name, (unit, output, quantity) in zip(names, scored, strict=True):
        yield from _format_quantity(name, unit, output, quantity, project.beam)


def _format_quantity(name: str, unit: int, output: Output, quantity: Quantity, beam: Beam) -> Iterator[str]:
    if quantity.keyword not in QUANTITIES:
        raise refuse_quantity(output, quantity, f"yaptide cannot convert {quote_text(quantity.keyword)} for FLUKA")
    refuse_differential(output, quantity, "FLUKA")
    refuse_rescaling(output, quantity, "FLUKA")
    particle = _choose_particle(output, quantity, beam)
    is_fluence = quantity.keyword == "Fluence"
    named = particle if is_fluence and isinstance(particle, str) else None
    kind, upper, lower = _bins(output)
    yield format_card("USRBIN", [kind, (named or _ALL) if is_fluence else "DOSE", -float(unit), *upper], name)
    yield format_card("USRBIN", lower, "&")
    if particle is not None and named is None:
        yield format_card("AUXSCORE", ["USRBIN", particle, None, name, name, 1.0])


def _bins(output: Output) -> tuple[float, list[Field], list[Field]]:
    """Return the kind of bins, and the upper and lower limits with the numbers of bins."""
    detector = output.detector
    if isinstance(detector, Mesh):
        limits = [(c - s / 2, c + s / 2) for c, s in zip(detector.centre, detector.size, strict=True)]
        return _CARTESIAN, [high for _, high in limits], [*(low for low, _ in limits), *map(float, detector.bins)]
    if isinstance(detector, Cylinder):
        x, y, z = detector.centre
        low, high = z - detector.depth / 2, z + detector.depth / 2
        bins = [float(detector.bins[0]), 1.0, float(detector.bins[1])]
        return _CYLINDRICAL, [detector.radius, y, high], [detector.inner, x, low, *bins]
    raise InvalidInput(
        f"Project, output {quote_text(output.name)}: yaptide converts detectors with bins for FLUKA, not a zone or the "
        "whole world, whose volume FLUKA does not know"
    )


def _choose_particle(output: Output, quantity: Quantity, beam: Beam) -> str | float | None:
    """Return FLUKA's name or number of the particles of a filter; None for all particles."""
    rules = quantity.filter.rules if quantity.filter else ()
    if not rules:
        return None
    values = {keyword: value for keyword, operator, value in rules if operator == "=="}
    name = quote_text(quantity.filter.name if quantity.filter else "")
    if len(values) != len(rules) or not values.keys() <= {"Z", "A", "GEN"}:
        raise refuse_quantity(
            output, quantity, f"FLUKA has no filter with the rules of {name}: use Z ==, A ==, GEN == 0"
        )
    z, a, generation = values.get("Z"), values.get("A"), values.get("GEN")
    if generation is not None:
        own = (float(beam.particle.z), float(beam.particle.a))
        if generation == 0 and (z, a) in {own, (None, None)}:
            return _PRIMARIES
        raise refuse_quantity(output, quantity, f"FLUKA has no filter {name}: it selects primaries by GEN == 0 only")
    if z is None or a is None:
        raise refuse_quantity(output, quantity, f"FLUKA has no filter {name}: it needs Z == and A ==")
    if (z, a) in _PARTICLES:
        return _PARTICLES[z, a]
    if not (z.is_integer() and a.is_integer() and 1 <= z <= a <= _HEAVIEST):
        raise refuse_quantity(
            output, quantity, f"FLUKA has no filter {name}: A must be 1 to {_HEAVIEST}, and Z 1 to A, or 0 for neutrons"
        )
    return -(100.0 * z + 100000.0 * a)

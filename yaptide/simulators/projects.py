"""What the writers of input files for several codes have in common: checks of a project, and names in files."""

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.containment import covers
from yaptide.editor.geometry import Geometry, box_of_project
from yaptide.editor.project import (
    Beam,
    BeamShape,
    Cylinder,
    Detector,
    Doubles,
    Mesh,
    Mode,
    Modifier,
    Output,
    Physics,
    Project,
    Quantity,
)
from yaptide.editor.sections import quote_text

_JUST_BEHIND = 1e-6  # cm
#: Factor and distance (cm) from everything to the limits of a world.
_WIDER, _MARGIN = 1.01, 1.0
_CUT_AT = 4.0  # standard deviations
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_]+")


def check_start(project: Project) -> None:
    """Raise InvalidInput if the beam starts in a black hole."""
    beam = project.beam
    x, y, z = (float(part) for part in np.array(beam.position) + _JUST_BEHIND * np.array(beam.direction))
    if Geometry(project).material_at((x, y, z)).is_black_hole:
        at = " ".join(f"{part:g}" for part in beam.position)
        raise InvalidInput(f"The beam starts in a black hole, at {at} cm: no particle can leave it")


def check_and_describe(project: Project, title: str, units: Mapping[str, str]) -> tuple[str, ...]:
    """Check a project for the code `title`, and return sentences about what its input files leave out.

    `units` describes quantities with other units by keyword. Raises InvalidInput for what the code cannot simulate.
    """
    check_common(project, title)
    check_simple_source(project.beam, title)
    require_all_physics(project.physics, title)
    return (
        *describe_distances(project.beam, title),
        *describe_models(project.physics, title),
        *describe_units(project, title, units),
    )


def check_common(project: Project, title: str) -> None:
    """Raise InvalidInput for parts of a project that the code `title` cannot simulate, as no code can here."""
    if project.special:
        raise InvalidInput(f"The project has {' and '.join(project.special)}, which yaptide cannot convert for {title}")
    for zone in project.zones:
        if zone.material.own_table:
            raise InvalidInput(
                f"Project, zone {quote_text(zone.name)}: yaptide cannot convert its own stopping powers of "
                f"{quote_text(zone.material.name)} for {title}"
            )
    if not any(output.quantities for output in project.outputs):
        raise InvalidInput("Project, scoringManager.outputs: no output has quantities, so nothing would be scored")
    for output in project.outputs:
        _check_output(output, title)
    check_start(project)


def _check_output(output: Output, title: str) -> None:
    where = f"Project, output {quote_text(output.name)}"
    if output.detector is None:
        raise InvalidInput(f"{where}: choose its detector")
    if output.trace:
        raise InvalidInput(f"{where}: yaptide cannot convert its list of particles for {title}: turn off trace")
    for quantity in output.quantities:
        if quantity.extras:
            raise refuse_quantity(output, quantity, f"yaptide cannot convert {' and '.join(quantity.extras)}")
        if quantity.filter is not None and quantity.filter.other:
            raise refuse_quantity(
                output, quantity, f"yaptide cannot convert its filter {quote_text(quantity.filter.name)}: use rules"
            )


def refuse_quantity(output: Output, quantity: Quantity, why: str) -> InvalidInput:
    """Return the error about a quantity that cannot be scored."""
    return InvalidInput(f"Project, output {quote_text(output.name)}, quantity {quote_text(quantity.name)}: {why}")


def refuse_differential(output: Output, quantity: Quantity, title: str) -> None:
    """Raise InvalidInput for a differential quantity."""
    if quantity.modifiers:
        kinds = " and ".join(quote_text(modifier.kind) for modifier in quantity.modifiers)
        raise refuse_quantity(output, quantity, f"yaptide cannot convert spectra in {kinds} for {title}")


def refuse_rescaling(output: Output, quantity: Quantity, title: str) -> None:
    """Raise InvalidInput for a quantity that is multiplied by a factor."""
    if quantity.rescale != 1:
        raise refuse_quantity(output, quantity, f"{title} does not multiply results by a factor: set rescale to 1")


def check_simple_source(beam: Beam, title: str) -> None:
    """Raise InvalidInput for a source that is described by a file, and for cutoffs of its energies."""
    if beam.source is not None:
        raise InvalidInput(
            f"Project, beam: the file {quote_text(beam.source[0])} describes the particles, which yaptide cannot "
            f"convert for {title}"
        )
    low, high = beam.cutoffs
    if beam.energy - _CUT_AT * beam.spread < low or beam.energy + _CUT_AT * beam.spread > high:
        raise InvalidInput(
            f"Project, beam: {title} cannot cut the energies of the beam at {low:g} and {high:g} MeV: use limits that "
            "are four standard deviations away"
        )


def describe_distances(beam: Beam, title: str) -> Iterator[str]:
    """Yield the sentence that the distances of the source (SAD) are left out, if there are some.

    They are the distances of scanning magnets, which deflect the spots of a source file; other particles are parallel.
    """
    if beam.distances is not None:
        x, y = beam.distances
        yield f"Beam: the source-axis distances, {x:g} and {y:g} cm, are ignored: {title} starts parallel particles"


def require_all_physics(physics: Physics, title: str) -> None:
    """Raise InvalidInput for a project that turns off processes, which the code `title` always simulates."""
    off = {
        "nuclear reactions": not physics.nuclear_reactions,
        "energy straggling": physics.straggling == "no straggling",
        "multiple scattering": physics.scattering == "no scattering",
    }
    for process, is_off in off.items():
        if is_off:
            raise InvalidInput(f"Project, physic: yaptide cannot turn off {process} in {title}")


def describe_models(physics: Physics, title: str) -> Iterator[str]:
    """Yield sentences about models that the project chooses and the code `title` does not have."""
    if physics.straggling != "Vavilov" or physics.scattering != "Moliere":
        yield f"Physics: {title} uses its own models of straggling and scattering"


def describe_units(project: Project, title: str, units: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each output with quantities in other units, which `units` describes by keyword."""
    for output in project.outputs:
        if others := dict.fromkeys(units[each.keyword] for each in output.quantities if each.keyword in units):
            yield f"Output {quote_text(output.name)}: {title} gives {'; '.join(others)}"


def describe_totals(project: Project, title: str, exception: str = "") -> Iterator[str]:
    """Yield sentences about scores of codes that add up all primaries, and have dense lead instead of a black hole."""
    yield f"Scoring: {title} gives totals of the run, not means per primary{exception}"
    materials = [zone for zone in project.zones if not zone.material.is_black_hole]
    figures = [figure for zone in materials for term in zone.terms for mode, figure in term if mode is Mode.UNION]
    figures += [] if project.world.material.is_black_hole else [project.world.figure]
    for output in project.outputs:
        is_energy = any(quantity.keyword == "Energy" for quantity in output.quantities)
        if is_energy and not any(covers(figure, output.detector) for figure in figures):
            yield (
                f"Output {quote_text(output.name)}: its detector reaches into a black hole, where {title} also counts "
                "the energy of the particles that end there"
            )


def beam_frame(beam: Beam) -> Doubles:
    """Return the matrix, shape (3, 3), whose columns are the beam's own x, y and direction."""
    return np.array([*beam.axes, beam.direction]).T


def is_pencil(beam: Beam) -> bool:
    """Return whether all particles start at one point."""
    return max(beam.size) == 0


def is_flat(beam: Beam) -> bool:
    """Return whether particles start evenly in a square or circle."""
    return beam.shape is not BeamShape.GAUSSIAN and not is_pencil(beam)


def make_names(names: Iterable[str], longest: int, default: str) -> list[str]:
    """Return different names, regardless of case, of ASCII letters, digits and underscores for names of the user."""
    used: set[str] = set()
    last_numbers: dict[str, int] = {}  # of names that begin alike
    chosen = []
    for name in names:
        candidate = plain = (_FORBIDDEN.sub("_", name).strip("_") or default)[:longest]
        beginning = plain[: longest - 2].lower()
        while candidate.lower() in used:
            number = last_numbers[beginning] = last_numbers.get(beginning, 1) + 1
            candidate = f"{plain[: longest - len(str(number)) - 1]}_{number}"
        used.add(candidate.lower())
        chosen.append(candidate)
    return chosen


def comment(text: str) -> str:
    """Return a text of the user as one line of ASCII, for a comment."""
    return " ".join(re.sub(r"[^ -~]", "?", text).split())[:60]


def format_limits(modifier: Modifier) -> str:
    """Return lower limit, upper limit and number of bins."""
    return f"{modifier.low:.10g} {modifier.high:.10g} {modifier.bins}"


def list_detectors(project: Project) -> list[Detector | None]:
    """Return the detectors of outputs that score something."""
    return [output.detector for output in project.outputs if output.quantities]


def world_reach(project: Project) -> list[float]:
    """Return half of the sizes, cm, of a box around the origin that contains zones, world, detectors and beam."""
    boxes = [box_of_project(project), np.array([project.beam.position] * 2)]
    boxes += [box for output in project.outputs if (box := _box_of_detector(output.detector)) is not None]
    return [float(reach) * _WIDER + _MARGIN for reach in np.abs(np.array(boxes)).max(axis=(0, 1))]


def _box_of_detector(detector: Detector | None) -> Doubles | None:
    if isinstance(detector, Mesh):
        half = np.array(detector.size) / 2
    elif isinstance(detector, Cylinder):
        half = np.array([detector.radius, detector.radius, detector.depth / 2])
    else:
        return None
    return np.array([detector.centre - half, detector.centre + half])

"""Writes ``detect.dat``: geometries, filters and settings, and outputs that refer to them by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Cylinder, Detector, Everywhere, Filter, Mesh, Output, Project, Quantity, ZoneDetector
from yaptide.editor.regions import Regions
from yaptide.editor.sections import quote_text
from yaptide.simulators.outputs import name_files
from yaptide.simulators.projects import format_limits, make_names, refuse_quantity

#: The editor's quantities that SHIELD-HIT12A scores.
QUANTITIES = (
    *("AvgBeta", "AvgEnergy", "COUNT", "COUNTPOINT", "dLET", "Dose", "DoseEqv", "DoseGy", "dQ", "dQeff", "dZeff2Beta2"),
    *("EnergyNuc", "Energy", "EqvDose", "FluenceChar", "FluenceNeqv", "FluenceNeut", "Fluence", "MATERIAL", "MEDIUM"),
    *("NORMCOUNT", "NORMCOUNTPOINT", "RHO", "SPC", "tLET", "tQ", "tQeff", "tZeff2Beta2", "ZONE"),
)
_VARIABLES = {
    name.upper() for name in ("A", "ANGLE", "E", "EAMU", "EKIN", "ENUC", "LET", "dEdx", "QEFF", "Z", "ZEFF2BETA2")
}
_FILTERED = {"A", "AMASS", "AMU", "E", "EAMU", "ENUC", "GEN", "ID", "NPRIM", "Z"}
_OPERATORS = {"==", "!=", "<", "<=", ">", ">="}
_LONGEST = 40
_AXIS_TOLERANCE = 1e-9  # cm


def format_detectors(project: Project, regions: Regions) -> str:
    """Return detect.dat; raise InvalidInput for a detector or quantity that SHIELD-HIT12A does not have."""
    outputs = [output for output in project.outputs if output.quantities]
    detectors = _unique(output.detector for output in outputs if output.detector is not None)
    filters = _unique(quantity.filter for output in outputs for quantity in output.quantities if quantity.filter)
    geometries = _by_identity(detectors, make_names([each.name for each in detectors], _LONGEST, "Detector"))
    # A filter and a setting follow a quantity in one line: their names must differ.
    scales = sorted({quantity.rescale for output in outputs for quantity in output.quantities} - {1.0})
    names = make_names([*(each.name for each in filters), *("Scale" for _ in scales)], _LONGEST, "Filter")
    filter_names = _by_identity(filters, names)
    settings = dict(zip(scales, names[len(filters) :], strict=True))
    every_file = name_files([output.name for output in project.outputs])
    files = [file for output, file in zip(project.outputs, every_file, strict=True) if output.quantities]
    blocks = [
        *(_geometry(detector, geometries[id(detector)], regions) for detector in detectors),
        *(_filter(particle_filter, filter_names[id(particle_filter)]) for particle_filter in filters),
        *(["Settings", f"    Name {name}", f"    Rescale {scale:.10g}"] for scale, name in settings.items()),
        *(
            _output(output, file, geometries[id(output.detector)], filter_names, settings)
            for output, file in zip(outputs, files, strict=True)
        ),
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


_Named = TypeVar("_Named", Filter, Detector)


def _unique(values: Iterable[_Named]) -> list[_Named]:
    return list({id(value): value for value in values}.values())


def _by_identity(values: Sequence[Filter] | Sequence[Detector], names: Sequence[str]) -> dict[int, str]:
    return {id(value): name for value, name in zip(values, names, strict=False)}


def _geometry(detector: Detector, name: str, regions: Regions) -> list[str]:
    if isinstance(detector, Everywhere):
        return ["Geometry All", f"    Name {name}"]
    if isinstance(detector, ZoneDetector):
        number = regions.number_of_zone(detector.zone)
        if number is None:
            raise InvalidInput(f"Project, detector {quote_text(detector.name)}: its zone is empty")
        return ["Geometry Zone", f"    Name {name}", f"    Zone {number}"]
    if isinstance(detector, Mesh):
        lines = [
            f"    {axis} {_limits(centre - size / 2, centre + size / 2)} {bins}"
            for axis, centre, size, bins in zip("XYZ", detector.centre, detector.size, detector.bins, strict=True)
        ]
        return ["Geometry Mesh", f"    Name {name}", *lines]
    return ["Geometry Cyl", f"    Name {name}", *_rings(detector)]


def _rings(detector: Cylinder) -> list[str]:
    x, y, z = detector.centre
    if max(abs(x), abs(y)) > _AXIS_TOLERANCE:
        raise InvalidInput(
            f"Project, detector {quote_text(detector.name)}: SHIELD-HIT12A has rings around the z axis only, but its "
            f"centre is at x = {x:g}, y = {y:g} cm"
        )
    low, high = z - detector.depth / 2, z + detector.depth / 2
    radii = _limits(detector.inner, detector.radius)
    return [f"    R {radii} {detector.bins[0]}", f"    Z {_limits(low, high)} {detector.bins[1]}"]


def _limits(low: float, high: float) -> str:
    return f"{_round(low):.10g} {_round(high):.10g}"


def _round(value: float) -> float:
    """Return a length without rounding errors, cm: 15.3, not 15.299999999999999."""
    return round(value, 9) + 0.0


def _filter(particle_filter: Filter, name: str) -> list[str]:
    lines = ["Filter", f"    Name {name}"]
    for keyword, operator, value in particle_filter.rules:
        if keyword.upper() not in _FILTERED or operator not in _OPERATORS:
            rule = quote_text(f"{keyword} {operator}")
            raise InvalidInput(f"Project, filter {quote_text(particle_filter.name)}: SHIELD-HIT12A has no rule {rule}")
        lines.append(f"    {keyword} {operator} {value:.10g}")
    return lines


def _output(
    output: Output, file: str, geometry: str, filters: Mapping[int, str], settings: Mapping[float, str]
) -> list[str]:
    lines = ["Output", f"    Filename {file}.bdo", f"    Geo {geometry}"]
    for quantity in output.quantities:
        if quantity.keyword not in QUANTITIES:
            raise refuse_quantity(output, quantity, f"SHIELD-HIT12A does not score {quote_text(quantity.keyword)}")
        words = ["Quantity", quantity.keyword]
        words += [filters[id(quantity.filter)]] if quantity.filter else []
        words += [settings[quantity.rescale]] if quantity.rescale in settings else []
        lines += [f"    {' '.join(words)}", *_spectra(output, quantity)]
    return lines


def _spectra(output: Output, quantity: Quantity) -> Iterator[str]:
    for number, modifier in enumerate(quantity.modifiers, 1):
        if modifier.kind.upper() not in _VARIABLES:
            raise refuse_quantity(output, quantity, f"SHIELD-HIT12A has no spectra in {quote_text(modifier.kind)}")
        yield f"    Diff{number} {format_limits(modifier)}{' log' if modifier.is_logarithmic else ''}"
        yield f"    Diff{number}Type {modifier.kind}"

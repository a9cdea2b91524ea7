"""Writes the scorers of a TOPAS job (TOPAS user guide, "Volume Scorers", "Filtering Scorers" and "Miscellaneous").

Each detector is a component in a parallel world, which does not change the materials. Each quantity has one file:
that of the first one is called like the output, those of the others like output, number and quantity.
"""

from collections.abc import Iterator

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Cylinder, Detector, Mesh, Output, Project, Quantity
from yaptide.editor.sections import quote_text
from yaptide.simulators.outputs import name_files, name_quantity_files
from yaptide.simulators.projects import make_names, refuse_quantity, refuse_rescaling
from yaptide.simulators.topas.geometry import format_placement, format_real

_SCORERS = {
    "Dose": "DoseToMedium",
    "DoseGy": "DoseToMedium",
    "Energy": "EnergyDeposit",
    "Fluence": "Fluence",
    "dLET": "ProtonLET",
    "tLET": "ProtonLET",
}
QUANTITIES = tuple(_SCORERS)
_ENERGIES = {"E", "EKIN"}
_LONGEST = 60


def format_scoring(project: Project) -> Iterator[str]:
    """Yield detectors and scorers; raise InvalidInput for those that yaptide cannot convert for TOPAS."""
    outputs = [output for output in project.outputs if output.quantities]
    detectors = {id(output.detector): output.detector for output in outputs if output.detector is not None}
    names = make_names([f"{each.name[:_LONGEST]}_Grid" for each in detectors.values()], 2 * _LONGEST, "Grid")
    grids = dict(zip(detectors, names, strict=True))
    for key, detector in detectors.items():
        yield from _format_grid(grids[key], detector)
    files = name_files([output.name for output in project.outputs])
    later = [name for output, file in zip(project.outputs, files, strict=True) for name in _files_of(output, file)[1:]]
    scorers = dict(zip([*files, *later], make_names([*files, *later], 2 * _LONGEST, "Scorer"), strict=True))
    for output, file in zip(project.outputs, files, strict=True):
        for each, quantity in zip(_files_of(output, file), output.quantities, strict=True):
            yield from _format_scorer(scorers[each], each, grids[id(output.detector)], output, quantity)


def _files_of(output: Output, file: str) -> list[str]:
    return name_quantity_files(file, [quantity.name for quantity in output.quantities])


def _format_grid(name: str, detector: Detector) -> Iterator[str]:
    if not isinstance(detector, Mesh | Cylinder):
        raise InvalidInput(
            f"Project, detector {quote_text(detector.name)}: yaptide converts detectors with bins for TOPAS, not a "
            "zone or the whole world"
        )
    yield f's:Ge/{name}/Parent = "World"'
    yield f'b:Ge/{name}/IsParallel = "True"'
    if isinstance(detector, Mesh):
        yield f's:Ge/{name}/Type = "TsBox"'
        for axis, size, bins in zip("XYZ", detector.size, detector.bins, strict=True):
            yield f"d:Ge/{name}/HL{axis} = {format_real(size / 2)} cm"
            yield f"i:Ge/{name}/{axis}Bins = {bins}"
    else:
        yield f's:Ge/{name}/Type = "TsCylinder"'
        yield f"d:Ge/{name}/RMin = {format_real(detector.inner)} cm"
        yield f"d:Ge/{name}/RMax = {format_real(detector.radius)} cm"
        yield f"d:Ge/{name}/HL = {format_real(detector.depth / 2)} cm"
        yield f"i:Ge/{name}/RBins = {detector.bins[0]}"
        yield f"i:Ge/{name}/ZBins = {detector.bins[1]}"
    yield from format_placement(name, np.array(detector.centre), np.eye(3))


def _format_scorer(scorer: str, file: str, grid: str, output: Output, quantity: Quantity) -> Iterator[str]:
    if quantity.keyword not in _SCORERS:
        raise refuse_quantity(output, quantity, f"yaptide cannot convert {quote_text(quantity.keyword)} for TOPAS")
    refuse_rescaling(output, quantity, "TOPAS")
    yield f's:Sc/{scorer}/Quantity = "{_SCORERS[quantity.keyword]}"'
    yield f's:Sc/{scorer}/Component = "{grid}"'
    yield f's:Sc/{scorer}/OutputFile = "{file}"'
    yield f's:Sc/{scorer}/IfOutputFileAlreadyExists = "Overwrite"'
    yield f'sv:Sc/{scorer}/Report = 1 "Sum"'
    if _SCORERS[quantity.keyword] == "ProtonLET":
        yield from _format_let(scorer, output, quantity)
    else:
        yield from _format_filter(scorer, output, quantity)
    yield from _format_spectrum(scorer, output, quantity)


def _format_let(scorer: str, output: Output, quantity: Quantity) -> Iterator[str]:
    if quantity.filter is None or not quantity.filter.is_protons:
        raise refuse_quantity(output, quantity, "TOPAS averages LET over all protons: filter by Z == 1 and A == 1")
    yield f's:Sc/{scorer}/WeightBy = "{"Dose" if quantity.keyword == "dLET" else "Track"}"'


def _format_filter(scorer: str, output: Output, quantity: Quantity) -> Iterator[str]:
    keywords = [keyword for keyword, _, _ in quantity.filter.rules] if quantity.filter else []
    if twice := [keyword for keyword in keywords if keywords.count(keyword) > 1]:
        raise refuse_quantity(output, quantity, f"TOPAS has no filter with several rules of {quote_text(twice[0])}")
    for keyword, operator, value in quantity.filter.rules if quantity.filter else ():
        if (keyword, operator) in {("Z", "=="), ("A", "==")} and value.is_integer():
            what = "AtomicNumber" if keyword == "Z" else "AtomicMass"
            yield f"i:Sc/{scorer}/OnlyIncludeParticlesOf{what} = {int(value)}"
        elif (keyword, operator, value) == ("GEN", "==", 0):
            yield f's:Sc/{scorer}/OnlyIncludeParticlesOfGeneration = "Primary"'
        elif (keyword, operator, value) in {("GEN", ">=", 1), ("GEN", ">", 0)}:
            yield f's:Sc/{scorer}/OnlyIncludeParticlesOfGeneration = "Secondary"'
        else:
            rule = quote_text(f"{keyword} {operator} {value:g}")
            raise refuse_quantity(output, quantity, f"TOPAS has no filter {rule}: use Z ==, A ==, GEN == 0, GEN >= 1")


def _format_spectrum(scorer: str, output: Output, quantity: Quantity) -> Iterator[str]:
    if not quantity.modifiers:
        return
    modifier = quantity.modifiers[0]
    if len(quantity.modifiers) > 1 or modifier.kind.upper() not in _ENERGIES or modifier.is_logarithmic:
        raise refuse_quantity(output, quantity, "TOPAS has spectra in energy (E) with equal bins only")
    yield f"i:Sc/{scorer}/EBins = {modifier.bins}"
    yield f"d:Sc/{scorer}/EBinMin = {format_real(modifier.low)} MeV"
    yield f"d:Sc/{scorer}/EBinMax = {format_real(modifier.high)} MeV"
    yield f's:Sc/{scorer}/EBinEnergy = "PreStep"'

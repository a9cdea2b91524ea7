"""Converts projects of the web editor to input of TOPAS."""

from collections.abc import Iterator

from yaptide.editor.nesting import place_figures
from yaptide.editor.project import Project
from yaptide.editor.regions import make_regions
from yaptide.simulators.base import Converted
from yaptide.simulators.geant4.materials import name_materials
from yaptide.simulators.projects import check_and_describe, comment, describe_totals
from yaptide.simulators.topas.geometry import format_geometry
from yaptide.simulators.topas.materials import format_materials
from yaptide.simulators.topas.scoring import format_scoring
from yaptide.simulators.topas.source import format_source

FILE = "topas.txt"
_TITLE, _SEED = "TOPAS", 1
_LET = "LET in MeV/mm/(g/cm3), not keV/um"
_UNITS = {"Dose": "doses in Gy, not MeV/g", "Fluence": "fluences per mm2, not cm2", "dLET": _LET, "tLET": _LET}
_EXCEPTION = ", except for LET"
_PHYSICS = (
    "g4em-standard_opt4",
    "g4h-phy_QGSP_BIC_HP",
    "g4decay",
    "g4ion-binarycascade",
    "g4h-elastic_HP",
    "g4stopping",
)


def convert_project(project: Project) -> Converted:
    """Return the parameter file; raise InvalidInput for what yaptide cannot convert for TOPAS."""
    left_out = (*check_and_describe(project, _TITLE, _UNITS), *describe_totals(project, _TITLE, _EXCEPTION))
    text = "\n".join(_format_job(project)) + "\n"
    return Converted({FILE: text}, left_out, "figures placed inside of each other")


def _format_job(project: Project) -> Iterator[str]:
    regions = make_regions(project)
    roots = place_figures(regions, _TITLE)
    names = name_materials([region.material for region in regions.regions], _TITLE)
    yield f"# {comment(project.title)}"
    yield from format_materials(names)
    yield from format_geometry(project, roots, names)
    yield from format_source(project.beam)
    yield from format_scoring(project)
    yield f"sv:Ph/Default/Modules = {len(_PHYSICS)} {' '.join(f'{chr(34)}{name}{chr(34)}' for name in _PHYSICS)}"
    yield f"i:Ts/Seed = {_SEED}"
    yield f"i:Ts/ShowHistoryCountAtInterval = {max(1, project.beam.primaries // 100)}"
    yield "i:Ts/NumberOfThreads = 1"

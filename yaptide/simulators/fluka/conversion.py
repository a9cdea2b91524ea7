"""Converts projects of the web editor to input of FLUKA."""

from collections.abc import Iterator

from yaptide.editor.project import Project
from yaptide.editor.regions import Regions, make_regions
from yaptide.simulators.base import Converted
from yaptide.simulators.fluka.beam import format_beam
from yaptide.simulators.fluka.cards import format_card, format_whole
from yaptide.simulators.fluka.geometry import format_assignments, format_geometry
from yaptide.simulators.fluka.materials import format_materials, name_materials
from yaptide.simulators.fluka.scoring import format_scoring
from yaptide.simulators.projects import check_and_describe, comment

FILE = "fl_sim.inp"
_TITLE, _SEED = "FLUKA", 137
_UNITS = {"DoseGy": "doses in MeV/g, not Gy"}


def convert_project(project: Project) -> Converted:
    """Return the input file; raise InvalidInput for what yaptide cannot convert for FLUKA."""
    left_out = check_and_describe(project, _TITLE, _UNITS)
    regions = make_regions(project)
    text = "\n".join(_format_deck(project, regions)) + "\n"
    return Converted({FILE: text}, left_out, f"{len(regions.bodies)} bodies, {len(regions.regions)} regions")


def _format_deck(project: Project, regions: Regions) -> Iterator[str]:
    names = name_materials(region.material for region in regions.regions)
    yield "TITLE"
    yield f"Project {comment(project.title)}".rstrip()  # a title must not begin like a comment or directive
    yield format_card("DEFAULTS", (), "HADROTHE")
    yield from format_beam(project.beam)
    yield from format_geometry(project.title, regions)
    yield from format_materials(names)
    yield from format_assignments(regions, names)
    yield from format_scoring(project)
    yield format_card("RANDOMIZ", [None, float(_SEED)])
    yield format_card("START", [format_whole(project.beam.primaries, "Project, beam: numberOfParticles")])
    yield format_card("STOP")

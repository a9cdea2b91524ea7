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
from yaptide.simulators.projects import (
    check_common,
    check_simple_source,
    comment,
    describe_distances,
    describe_doses,
    describe_models,
    require_all_physics,
)

FILE = "fl_sim.inp"
_TITLE, _SEED = "FLUKA", 137


def convert_project(project: Project) -> Converted:
    """Return the input file; raise InvalidInput for what yaptide cannot convert for FLUKA."""
    check_common(project, _TITLE)
    check_simple_source(project.beam, _TITLE)
    require_all_physics(project.physics, _TITLE)
    regions = make_regions(project)
    text = "\n".join(_format_deck(project, regions)) + "\n"
    left_out = (
        *describe_distances(project.beam, _TITLE),
        *describe_models(project.physics, _TITLE),
        *describe_doses(project, "DoseGy", "FLUKA gives doses in MeV/g, not Gy"),
    )
    return Converted({FILE: text}, left_out, f"{len(regions.bodies)} bodies, {len(regions.regions)} regions")


def _format_deck(project: Project, regions: Regions) -> Iterator[str]:
    names = name_materials(region.material for region in regions.regions)
    yield "TITLE"
    yield comment(project.title) or "Project"
    yield format_card("DEFAULTS", (), "HADROTHE")
    yield from format_beam(project.beam)
    yield from format_geometry(project.title, regions)
    yield from format_materials(names)
    yield from format_assignments(regions, names)
    yield from format_scoring(project)
    yield format_card("RANDOMIZ", [None, float(_SEED)])
    yield format_card("START", [format_whole(project.beam.primaries, "Project, beam: numberOfParticles")])
    yield format_card("STOP")

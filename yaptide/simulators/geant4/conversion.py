"""Converts projects of the web editor to input of Geant4: GDML and a macro. yaptide does not run it."""

from yaptide.editor.project import Project
from yaptide.editor.regions import make_regions
from yaptide.simulators.base import Converted
from yaptide.simulators.geant4.geometry import format_gdml
from yaptide.simulators.geant4.macro import format_macro
from yaptide.simulators.geant4.materials import name_materials
from yaptide.simulators.projects import (
    check_common,
    check_simple_source,
    describe_distances,
    describe_doses,
    describe_models,
    require_all_physics,
    world_reach,
)

GEOMETRY, MACRO = "geometry.gdml", "run.mac"


class Geant4:
    """The writer of input for Geant4."""

    name = "geant4"
    title = "Geant4"

    def convert(self, project: Project) -> Converted:
        """Return GDML and macro; raise InvalidInput for what they cannot express."""
        check_common(project, self.title)
        check_simple_source(project.beam, self.title)
        require_all_physics(project.physics, self.title)
        regions = make_regions(project)
        names = name_materials([region.material for region in regions.regions], self.title)
        files = {GEOMETRY: format_gdml(regions, names, world_reach(project)), MACRO: format_macro(project)}
        left_out = (
            *describe_distances(project.beam, self.title),
            *describe_models(project.physics, self.title),
            *describe_doses(project, "Dose", "Geant4 gives doses in Gy, not MeV/g"),
        )
        return Converted(files, left_out, f"{len(regions.regions)} regions")

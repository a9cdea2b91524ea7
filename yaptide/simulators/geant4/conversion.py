"""Converts projects of the web editor to input of Geant4: GDML and a macro. yaptide does not run it."""

from yaptide.editor.project import Project
from yaptide.editor.regions import make_regions
from yaptide.simulators.base import Converted
from yaptide.simulators.geant4.geometry import format_gdml
from yaptide.simulators.geant4.macro import format_macro
from yaptide.simulators.geant4.materials import name_materials
from yaptide.simulators.projects import check_and_describe, describe_totals

GEOMETRY, MACRO = "geometry.gdml", "run.mac"
_UNITS = {"Dose": "doses in Gy, not MeV/g"}


class Geant4:
    """The writer of input for Geant4."""

    name = "geant4"
    title = "Geant4"

    def convert(self, project: Project) -> Converted:
        """Return GDML and macro; raise InvalidInput for what they cannot express."""
        left_out = (*check_and_describe(project, self.title, _UNITS), *describe_totals(project, self.title))
        regions = make_regions(project)
        names = name_materials([region.material for region in regions.regions], self.title)
        files = {GEOMETRY: format_gdml(project, regions, names), MACRO: format_macro(project)}
        return Converted(files, left_out, f"{len(regions.regions)} regions")

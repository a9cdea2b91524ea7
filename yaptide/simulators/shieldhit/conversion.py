"""Converts projects of the web editor to input of SHIELD-HIT12A."""

from yaptide.editor.project import Project
from yaptide.editor.regions import make_regions
from yaptide.simulators.base import Converted
from yaptide.simulators.projects import check_common
from yaptide.simulators.shieldhit.beam import SPOTS, format_beam
from yaptide.simulators.shieldhit.detectors import format_detectors
from yaptide.simulators.shieldhit.geometry import format_geometry
from yaptide.simulators.shieldhit.materials import format_materials, number_media


def convert_project(project: Project) -> Converted:
    """Return the input files; raise InvalidInput for what SHIELD-HIT12A cannot simulate."""
    check_common(project, "SHIELD-HIT12A")
    regions = make_regions(project)
    media = number_media(region.material for region in regions.regions)
    files = {
        "beam.dat": format_beam(project.beam, project.physics),
        "mat.dat": format_materials(media),
        "geo.dat": format_geometry(project.title, regions, media),
        "detect.dat": format_detectors(project, regions),
    }
    if project.beam.source is not None:
        files[SPOTS] = project.beam.source[1]
    return Converted(files, (), f"{len(regions.bodies)} bodies, {len(regions.regions)} zones")

"""The minimum that a project of the web editor must contain to be simulated."""

from collections.abc import Mapping
from typing import Any

from yaptide.domain.errors import InvalidInput

MOST_PRIMARIES = 10**15


def check_project(project: Mapping[str, Any]) -> int:
    """Check that a project has a beam, a geometry and outputs; return its primaries.

    Raises InvalidInput with the location in the project and the problem.
    """
    primaries = _section(project, "beam", "the beam").get("numberOfParticles")
    if not isinstance(primaries, int) or isinstance(primaries, bool) or not 1 <= primaries <= MOST_PRIMARIES:
        raise InvalidInput(f"Project, beam.numberOfParticles: must be a whole number from 1 to {MOST_PRIMARIES}")
    _list(_section(project, "figureManager", "the geometry"), "figureManager", "figures")
    zones = _section(project, "zoneManager", "the geometry")
    if not _list(zones, "zoneManager", "zones") and not isinstance(zones.get("worldZone"), Mapping):
        raise InvalidInput("Project, zoneManager: there are no zones")
    detectors = _section(project, "detectorManager", "the detectors")
    if not _list(detectors, "detectorManager", "detectors"):
        raise InvalidInput("Project, detectorManager.detectors: there are no detectors, so nothing can be scored")
    outputs = _section(project, "scoringManager", "the outputs")
    if not _list(outputs, "scoringManager", "outputs"):
        raise InvalidInput("Project, scoringManager.outputs: there are no outputs, so nothing would be scored")
    return primaries


def _section(project: Mapping[str, Any], name: str, meaning: str) -> Mapping[str, Any]:
    section = project.get(name)
    if not isinstance(section, Mapping):
        raise InvalidInput(f"Project, {name}: missing, it defines {meaning}")
    return section


def _list(section: Mapping[str, Any], name: str, key: str) -> list[Any]:
    value = section.get(key)
    if not isinstance(value, list):
        raise InvalidInput(f"Project, {name}.{key}: must be a list")
    return value

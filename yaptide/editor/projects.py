"""What a project of the web editor has to hold so that anything can be simulated."""

from collections.abc import Mapping
from typing import Any

from yaptide.domain.errors import InvalidInput

MOST_PRIMARIES = 10**15


def check_project(project: Mapping[str, Any]) -> int:
    """Check that a project says what is shot at what, and what is scored; returns its primaries.

    Raises InvalidInput with the place in the project, and what is wrong there.
    """
    primaries = _section(project, "beam", "the beam").get("numberOfParticles")
    if not isinstance(primaries, int) or isinstance(primaries, bool) or not 1 <= primaries <= MOST_PRIMARIES:
        raise InvalidInput(f"Project, beam.numberOfParticles: it has to be a whole number, 1 to {MOST_PRIMARIES}")
    _list(_section(project, "figureManager", "the geometry"), "figureManager", "figures")
    zones = _section(project, "zoneManager", "the geometry")
    if not _list(zones, "zoneManager", "zones") and not isinstance(zones.get("worldZone"), Mapping):
        raise InvalidInput("Project, zoneManager: there is no zone, so there is nothing that the beam could meet")
    detectors = _section(project, "detectorManager", "what is scored in")
    if not _list(detectors, "detectorManager", "detectors"):
        raise InvalidInput("Project, detectorManager.detectors: there is no detector, so nothing can be scored")
    scored = _section(project, "scoringManager", "what is to be scored")
    if not _list(scored, "scoringManager", "outputs"):
        raise InvalidInput("Project, scoringManager.outputs: there is no output, so nothing would be scored")
    return primaries


def _section(project: Mapping[str, Any], name: str, meaning: str) -> Mapping[str, Any]:
    section = project.get(name)
    if not isinstance(section, Mapping):
        raise InvalidInput(f"Project, {name}: it is missing, and with it {meaning}")
    return section


def _list(section: Mapping[str, Any], name: str, key: str) -> list[Any]:
    found = section.get(key)
    if not isinstance(found, list):
        raise InvalidInput(f"Project, {name}.{key}: it has to be a list")
    return found

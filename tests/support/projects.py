"""Builds web editor projects from a few words."""

from typing import Any

WATER, AIR, LEAD, PMMA, BONE, VACUUM, BLACK_HOLE = (
    ("WATER, LIQUID", 276, 1.0),
    ("AIR, DRY (NEAR SEA LEVEL)", 104, 0.00120479),
    ("LEAD", 82, 11.35),
    ("PMMA", 223, 1.19),
    ("BONE, CORTICAL (ICRP)", 120, 1.85),
    ("VACUUM", 1000, 0),
    ("BLACK HOLE", 0, 0),
)
_MATERIALS = (WATER, AIR, LEAD, PMMA, BONE, VACUUM, BLACK_HOLE)
_MODES = {"+": "union", "-": "subtraction", "&": "intersection"}

PROTONS = {
    "uuid": "protons",
    "name": "Protons",
    "rules": [{"keyword": "Z", "operator": "==", "value": 1}, {"keyword": "A", "operator": "==", "value": 1}],
}
PRIMARIES = {
    "uuid": "primaries",
    "name": "Primaries",
    "rules": [*PROTONS["rules"], {"keyword": "GEN", "operator": "==", "value": 0}],
}


def _data(kind: str, at: tuple, rotation: tuple, **parameters: Any) -> dict[str, Any]:
    return {"geometryType": kind, "position": [*at], "rotation": [*rotation], "parameters": parameters}


def box(name: str, size: tuple, at: tuple = (0, 0, 0), rotation: tuple = (0, 0, 0)) -> dict[str, Any]:
    """Return a box of full `size`, cm."""
    sides = dict(zip(("width", "height", "depth"), size, strict=True))
    data = _data("BoxGeometry", at, rotation, **sides)
    return {"uuid": name, "name": name, "type": "BoxFigure", "geometryData": data}


def tube(
    name: str, radius: float, depth: float, at: tuple = (0, 0, 0), rotation: tuple = (0, 0, 0), inner: float = 0
) -> dict[str, Any]:
    """Return a cylinder along z, hollow if there is an `inner` radius."""
    data = _data("HollowCylinderGeometry", at, rotation, radius=radius, depth=depth, innerRadius=inner)
    return {"uuid": name, "name": name, "type": "CylinderFigure", "geometryData": data}


def ball(name: str, radius: float, at: tuple = (0, 0, 0)) -> dict[str, Any]:
    """Return a sphere."""
    return {
        "uuid": name,
        "name": name,
        "type": "SphereFigure",
        "geometryData": _data("SphereGeometry", at, (0, 0, 0), radius=radius),
    }


def zone(name: str, material: tuple, *terms: str, **more: Any) -> dict[str, Any]:
    """Return a zone: the union of `terms` such as ``a & b - c``."""
    rows = [_row(term.split()) for term in terms]
    return {"uuid": name, "name": name, "materialUuid": material[0], "unionOperations": rows, **more}


def _row(words: list[str]) -> list[dict[str, str]]:
    signed = zip(["+", *words[1::2]], words[::2], strict=True)
    return [{"mode": _MODES[sign], "objectUuid": figure} for sign, figure in signed]


def mesh(name: str, size: tuple, bins: tuple, at: tuple = (0, 0, 0)) -> dict[str, Any]:
    """Return a detector of boxes."""
    sides = dict(zip(("width", "height", "depth"), size, strict=True))
    segments = dict(zip(("xSegments", "ySegments", "zSegments"), bins, strict=True))
    return {"uuid": name, "name": name, "geometryData": _data("Mesh", at, (0, 0, 0), **sides, **segments)}


def rings(
    name: str, radius: float, depth: float, bins: tuple, at: tuple = (0, 0, 0), inner: float = 0
) -> dict[str, Any]:
    """Return a detector of rings around z."""
    sizes = {"radius": radius, "innerRadius": inner, "depth": depth, "radialSegments": bins[0], "zSegments": bins[1]}
    return {"uuid": name, "name": name, "geometryData": _data("Cyl", at, (0, 0, 0), **sizes)}


def zone_detector(name: str, zone: str) -> dict[str, Any]:
    """Return a detector that is a zone."""
    return {"uuid": name, "name": name, "geometryData": _data("Zone", (0, 0, 0), (0, 0, 0), zoneUuid=zone)}


def everywhere(name: str) -> dict[str, Any]:
    """Return a detector that covers the whole world."""
    return {"uuid": name, "name": name, "geometryData": _data("All", (0, 0, 0), (0, 0, 0))}


def output(name: str, detector: str, *quantities: dict[str, Any]) -> dict[str, Any]:
    """Return an output of a detector, by default with the dose."""
    return {"name": name, "detectorUuid": detector, "quantities": list(quantities or [quantity("Dose")])}


def quantity(keyword: str, name: str = "", **more: Any) -> dict[str, Any]:
    """Return a quantity of an output."""
    return {"keyword": keyword, "name": name or keyword, "modifiers": [], **more}


def world(size: tuple, material: tuple = BLACK_HOLE, at: tuple = (0, 0, 0), **more: Any) -> dict[str, Any]:
    """Return a world that is a box."""
    return {**box("World Zone", size, at), "materialUuid": material[0], "autoCalculate": False, **more}


def project(
    *figures: dict[str, Any],
    zones: list[dict[str, Any]],
    around: dict[str, Any],
    detectors: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    **beam: Any,
) -> dict[str, Any]:
    """Return a project as the editor sends it; `beam` overrides keys of a 100 MeV proton beam along z."""
    return {
        "metadata": {"version": "0.12", "type": "Editor"},
        "project": {"title": "A test"},
        "beam": {
            "particle": {"id": 2, "name": "Proton", "a": 1, "z": 1},
            "position": [0, 0, 0],
            "direction": [0, 0, 1],
            "energy": 100,
            "energySpread": 0.6,
            "sigma": {"type": "Gaussian", "x": 0.3, "y": 0.3},
            "numberOfParticles": 1600,
            "sourceType": "simple",
            **beam,
        },
        "figureManager": {"figures": list(figures)},
        "zoneManager": {"zones": zones, "worldZone": around},
        "materialManager": {
            "materials": [
                {"uuid": name, "name": name, "icru": icru, "density": density} for name, icru, density in _MATERIALS
            ]
        },
        "detectorManager": {"detectors": detectors},
        "scoringManager": {"filters": [PROTONS, PRIMARIES], "outputs": outputs},
        "specialComponentsManager": {},
        "physic": {"energyLoss": 0.03, "enableNuclearReactions": True},
    }


def water_phantom(**beam: Any) -> dict[str, Any]:
    """Return a cylinder of water in vacuum, with depth doses, slabs, and quantities that not every code supports."""
    return project(
        tube("phantom", 5, 20, at=(0, 0, 10)),
        tube("chamber", 5.5, 22, at=(0, 0, 10.5)),
        zones=[zone("Water", WATER, "phantom"), zone("Vacuum", VACUUM, "chamber - phantom")],
        around=world((12, 12, 24), at=(0, 0, 10.5)),
        detectors=[
            rings("along", 5, 20, (1, 400), at=(0, 0, 10)),
            mesh("plane", (0.5, 4, 20), (1, 80, 400), at=(0, 0, 10)),
            rings("slab", 5, 0.1, (1, 1), at=(0, 0, 0.05)),
        ],
        outputs=[
            output("z_profile", "along", quantity("Dose"), quantity("Fluence", "FluenceProtons", filter="protons")),
            output("yz_profile", "plane", quantity("Dose"), quantity("Fluence", "FluenceProtons", filter="protons")),
            output(
                "entrance",
                "slab",
                quantity("Dose"),
                quantity("AvgEnergy", "KineticEnergyPrimaries", filter="primaries"),
                quantity("dLET", "dLETProtons", filter="protons"),
                quantity("tLET", "tLETProtons", filter="protons"),
                quantity("Fluence", "Spectrum", filter="protons", modifiers=[{"diffType": "E"}]),
            ),
        ],
        **beam,
    )


def nested() -> dict[str, Any]:
    """Return a project with nested figures, each with its own material."""

    def made_of(figure: dict[str, Any], material: tuple, *children: dict[str, Any]) -> dict[str, Any]:
        name, icru, density = material
        own = {"name": name, "icru": icru, "density": density}
        return {**figure, "simulationMaterial": own, "children": list(children)}

    core = made_of(ball("core", 1, at=(0, 1, 0)), LEAD)
    phantom = made_of(box("phantom", (4, 6, 8), at=(0, 0, -1), rotation=(0, 0, 90)), WATER, core)
    whole = project(
        made_of(tube("World", 6, 24), VACUUM, phantom),
        zones=[],
        around=world((0, 0, 0)),
        detectors=[mesh("grid", (4, 4, 4), (2, 2, 2))],
        outputs=[output("dose", "grid", quantity("DoseGy"))],
        position=[0, 0, -11],
    )
    neutrons = {"uuid": "n", "name": "n", "data": {"particleTypes": [{"id": 1}], "kineticEnergyLow": 1}}
    whole["scoringManager"]["filters"].append(neutrons)
    return whole


def from_older_version() -> dict[str, Any]:
    """Return a project without keys that later editor versions added, with a material that a zone overrides."""
    lead = {"uuid": "changed", "name": "LEAD", "icru": 82, "density": 11.35, "originalMaterialUuid": "LEAD"}
    changed = {"density": 11.36, "averageIonisationPotential": 7.53}
    whole = project(
        box("air", (10, 10, 12)),
        tube("ring", 4, 1, at=(0, 0, -4.5)),
        tube("hole", 2, 1, at=(0, 0, -4.5)),
        zones=[
            zone("Ring", ("changed",), "ring - hole", customMaterial=lead, materialPropertiesOverrides=changed),
            zone("Air", AIR, "air - ring", "hole"),
        ],
        around=world((1, 1, 1), WATER, autoCalculate=True, marginMultiplier=1.1),
        detectors=[mesh("slab", (0.1, 10, 12), (1, 100, 120))],
        outputs=[output("slab", "slab", quantity("Fluence", filter="old"))],
        particle={"id": 2, "a": 1, "z": 1},
    )
    del whole["physic"], whole["specialComponentsManager"], whole["beam"]["sourceType"]
    old = {"uuid": "old", "name": "Protons", "particle": {"id": 2, "name": "Proton"}}
    whole["scoringManager"]["filters"] = [old]
    return whole

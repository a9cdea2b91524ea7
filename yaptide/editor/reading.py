"""Parses the JSON of a project, of any version of the editor.

Keys that older versions lack get the editor's default. Invalid values are rejected with their location, e.g. ``Project,
zone 'Target': figure '1f0c...' does not exist``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.geometry import box_of_zone, rotation_matrix, union_of_boxes
from yaptide.editor.places import Section, short
from yaptide.editor.project import (
    Beam,
    BeamShape,
    Cylinder,
    Detector,
    Doubles,
    Everywhere,
    Figure,
    Filter,
    Material,
    Mesh,
    Mode,
    Output,
    Particle,
    Physics,
    Project,
    Quantity,
    Solid,
    Vector,
    World,
    Zone,
    ZoneDetector,
)
from yaptide.editor.projects import MOST_PRIMARIES

_MOST = 1000  # figures, zones, detectors, outputs ...
_MOST_OPERATIONS = 10_000
_MOST_BINS = 10**7
_HEAVIEST = 100  # g/cm3
_ORIGIN: Vector = (0.0, 0.0, 0.0)

#: The editor's particles by number, for projects without names of particles.
_PARTICLES = {1: "Neutron", 2: "Proton", 21: "Deuteron", 22: "Triton", 23: "3-Helium", 24: "4-Helium", 25: "Heavy ion"}
_PROTON, _HEAVY_ION = 2, 25

_SOLIDS = {
    "BoxGeometry": Solid.BOX,
    "CylinderGeometry": Solid.CYLINDER,
    "HollowCylinderGeometry": Solid.CYLINDER,
    "SphereGeometry": Solid.SPHERE,
}

#: Settings of a quantity that change its values.
_EXTRAS = {"medium": "its own medium", "materialUuid": "its own material"}
_EXTRAS |= {"offset": "an offset", "primaries": "its own number of primaries"}


def read_project(document: Mapping[str, Any]) -> Project:
    """Return the project in a JSON document; raise InvalidInput with the first problem and its location."""
    whole = Section("document", document)
    beam = _beam(Section("beam", _needed(whole, "beam")))
    materials = _materials(Section("materials", whole.within("materialManager").values))
    zones, world = _geometry(whole, materials)
    detectors = _detectors(Section("detectors", _needed(whole, "detectorManager")), zones)
    scored_zones = {zone.uuid: ZoneDetector(zone.name, number) for number, zone in enumerate(zones)}
    return Project(
        title=Section("project", whole.within("project").values).text("title"),
        beam=beam,
        zones=zones,
        world=world,
        outputs=_outputs(Section("outputs", _needed(whole, "scoringManager")), detectors, scored_zones),
        physics=_physics(Section("physic", whole.within("physic").values)),
        special=tuple(_special(Section("special components", whole.within("specialComponentsManager").values))),
    )


def _needed(whole: Section, key: str) -> Mapping[str, Any]:
    if whole.values.get(key) is None:
        raise InvalidInput(f"Project, {key}: missing")
    return whole.within(key).values


def _beam(beam: Section) -> Beam:
    particle, a = _particle(beam.within("particle"))
    per_particle = a if beam.text("energyUnit", "MeV") == "MeV/nucl" else 1
    sigma, divergence = beam.within("sigma"), beam.within("divergence")
    shape = sigma.choice("type", BeamShape, BeamShape.GAUSSIAN)
    size = (abs(sigma.number("x", 0.0)), abs(sigma.number("y", 0.0)))
    direction = np.array(beam.vector("direction", (0.0, 0.0, 1.0)))
    if not (length := float(np.linalg.norm(direction))) > 0:
        raise beam.refusal("direction must not be 0 0 0")
    x, y, z = (float(part) for part in direction / length)
    return Beam(
        particle=particle,
        energy=per_particle * beam.number("energy", 150.0, 1e-12),
        spread=per_particle * abs(beam.number("energySpread", 1.5)),
        cutoffs=(
            per_particle * beam.number("energyLowCutoff", 0.0),
            per_particle * beam.number("energyHighCutoff", 1000.0),
        ),
        position=beam.vector("position", _ORIGIN),
        direction=(x, y, z),
        shape=shape,
        size=(size[1], size[1]) if shape is BeamShape.CIRCLE else size,
        divergence=(abs(divergence.number("x", 0.0)), abs(divergence.number("y", 0.0))),
        focus=divergence.number("distanceToFocal", 0.0),
        distances=_distances(beam.within("sad")),
        source=_source(beam),
        primaries=beam.integer("numberOfParticles", None, 1, MOST_PRIMARIES),
    )


def _particle(particle: Section) -> tuple[Particle, float]:
    """Return the particle and its mass number; the editor's default is a proton."""
    number = particle.integer("id", _PROTON, -(10**9), 10**9)
    a = particle.number("a", 1.0, 0, 300)
    z = particle.number("z", 1.0 if number == _PROTON else 0.0, -300, 300)
    name = particle.text("name") or _PARTICLES.get(number, f"particle {number}")
    return Particle(name, number in (_PROTON, _HEAVY_ION) and a == 1 and z == 1), max(a, 1.0)


def _distances(sad: Section) -> tuple[float, float] | None:
    kind = sad.text("type", "none")
    if kind == "none":
        return None
    x = sad.number("x", None, 1e-3)
    return (x, sad.number("y", None, 1e-3) if kind == "double" else x)


def _source(beam: Section) -> tuple[str, str] | None:
    kind = beam.text("sourceType", "simple")
    if kind not in ("simple", "file"):
        raise beam.refusal("sourceType must be simple or file")
    file = beam.within("sourceFile")
    return (file.text("name"), file.text("value")) if kind == "file" else None


def _materials(manager: Section) -> dict[str, Material]:
    return manager.by_uuid(manager.items("materials", "material", _MOST), _material)


def _material(material: Section) -> Material:
    icru = material.integer("icru", None, 0, 10**6)
    name = material.text("name") or f"ICRU {icru}"
    density = material.number("density", None, 0, _HEAVIEST * 1e7)  # that of a black hole is irrelevant
    plain = Material(name, icru, density, own_table=material.flag("customStoppingPower", False))
    if not plain.is_empty and not 0 < density <= _HEAVIEST:
        raise material.refusal(f"density must be more than 0 and at most {_HEAVIEST} g/cm3")
    return plain


def _material_of(zone: Section, materials: Mapping[str, Material]) -> Material:
    """Return the material of a zone, with the properties that the zone overrides."""
    if zone.values.get("customMaterial") is not None:
        plain = _material(zone.within("customMaterial"))
    else:
        plain = zone.resolve("materialUuid", materials, "its material")
    overrides = zone.within("materialPropertiesOverrides")
    ionisation = overrides.values.get("averageIonisationPotential")
    return replace(
        plain,
        density=plain.density if plain.is_empty else overrides.number("density", plain.density, 1e-9, _HEAVIEST),
        ionisation=None if ionisation is None else overrides.number("averageIonisationPotential", None, 0),
        own_table=overrides.flag("customStoppingPower", plain.own_table),
    )


def _geometry(whole: Section, materials: Mapping[str, Material]) -> tuple[tuple[Zone, ...], World]:
    """Return zones and world, from combined figures, or from figures nested in each other."""
    figures = Section("figures", _needed(whole, "figureManager"))
    manager = Section("zones", _needed(whole, "zoneManager"))
    roots = list(figures.items("figures", "figure", _MOST))
    if any(root.values.get("simulationMaterial") is not None for root in roots):
        return _nested(roots)
    known = figures.by_uuid(iter(roots), _figure)
    zones = tuple(_zones(manager, known, materials))
    return zones, _world(Section("the world zone", manager.within("worldZone").values), zones, materials)


def _figure(figure: Section) -> Figure:
    return _placed(figure, np.zeros(3), np.eye(3))


def _placed(figure: Section, origin: Doubles, frame: Doubles, *, hollow: bool = True) -> Figure:
    """Return a figure whose position and rotation are relative to `origin` and the axes in the columns of `frame`."""
    data = Section(figure.place, figure.within("geometryData").values)
    kind = data.text("geometryType")
    if kind not in _SOLIDS:
        raise figure.refusal(f"unknown geometryType {short(kind)}: use one of {', '.join(_SOLIDS)}")
    solid, sizes = _SOLIDS[kind], Section(figure.place, data.within("parameters").values)
    x, y, z = (float(part) for part in origin + frame @ np.array(data.vector("position", _ORIGIN)))
    axes = frame @ rotation_matrix(data.vector("rotation", _ORIGIN))
    name = figure.text("name")
    if solid is Solid.BOX:
        width, height, depth = (sizes.number(key, None, 0) for key in ("width", "height", "depth"))
        return Figure(name, solid, (x, y, z), axes, (width, height, depth))
    radius = sizes.number("radius", None, 0)
    if solid is Solid.SPHERE:
        return Figure(name, solid, (x, y, z), axes, (2 * radius, 2 * radius, 2 * radius), radius)
    inner = sizes.number("innerRadius", 0.0, 0) if hollow else 0.0
    if inner > radius:
        raise figure.refusal("its inner radius is larger than its radius")
    size = (2 * radius, 2 * radius, sizes.number("depth", None, 0))
    return Figure(name, solid, (x, y, z), axes, size, radius, inner)


def _zones(manager: Section, figures: Mapping[str, Figure], materials: Mapping[str, Material]) -> Iterator[Zone]:
    allowance = _MOST_OPERATIONS
    for zone in manager.items("zones", "zone", _MOST):
        terms = tuple(_term(zone, term, figures) for term in zone.sequence("unionOperations", _MOST))
        allowance -= sum(map(len, terms))
        if allowance < 0:
            raise zone.refusal(f"the zones up to here have more than {_MOST_OPERATIONS} operations")
        yield Zone(zone.text("name"), zone.text("uuid"), _material_of(zone, materials), terms)


def _term(zone: Section, operations: Any, figures: Mapping[str, Figure]) -> tuple[tuple[Mode, Figure], ...]:
    """Return a row of operations."""
    row = Section(zone.place, {"unionOperations": operations})
    parts = []
    for operation in row.sequence("unionOperations", _MOST):
        if not isinstance(operation, Mapping):
            raise zone.refusal("an operation must be an object")
        step = Section(zone.place, operation)
        parts.append((step.choice("mode", Mode), step.resolve("objectUuid", figures, "figure")))
    return tuple(parts)


def _world(world: Section, zones: tuple[Zone, ...], materials: Mapping[str, Material]) -> World:
    if not world.values:
        raise world.refusal("missing")
    figure = _placed(world, np.zeros(3), np.eye(3), hollow=False)
    if world.flag("autoCalculate", False) and figure.solid is Solid.BOX:
        figure = _fitted(figure, zones, world.number("marginMultiplier", 1.1, 0, 1e3))
    return World(figure, world.resolve("materialUuid", materials, "its material"))


def _fitted(figure: Figure, zones: tuple[Zone, ...], margin: float) -> Figure:
    """Return the box around all zones, enlarged by a factor: the editor computes it when it opens a project."""
    box = union_of_boxes(box for zone in zones if (box := box_of_zone(zone)) is not None)
    if box is None:
        return figure
    x, y, z = (float(part) for part in box.mean(axis=0))
    width, height, depth = (float(part) for part in margin * (box[1] - box[0]))
    return replace(figure, centre=(x, y, z), size=(width, height, depth), axes=np.eye(3))


@dataclass(frozen=True, slots=True)
class _Branch:
    """A nested figure: its frame and depth."""

    section: Section
    origin: Doubles
    frame: Doubles
    depth: int


def _nested(roots: list[Section]) -> tuple[tuple[Zone, ...], World]:
    """Return zones and world of nested figures, each with its material. Deeper ones win; the first is the world."""
    waiting = [_Branch(root, np.zeros(3), np.eye(3), 0) for root in reversed(roots)]
    solids: list[tuple[int, Section, Figure, Material]] = []
    while waiting:
        branch = waiting.pop()
        figure = _placed(branch.section, branch.origin, branch.frame)
        material = _material(Section(branch.section.place, branch.section.within("simulationMaterial").values))
        solids.append((branch.depth, branch.section, figure, material))
        if len(solids) > _MOST:
            raise branch.section.refusal(f"more than {_MOST} figures")
        children = branch.section.items("children", "figure", _MOST)
        centre = np.array(figure.centre)
        waiting += reversed([_Branch(child, centre, figure.axes, branch.depth + 1) for child in children])
    world = World(solids[0][2], solids[0][3])
    deepest_first = sorted(solids[1:], key=lambda solid: -solid[0])
    zones = (
        Zone(section.text("name"), section.text("uuid"), material, (((Mode.UNION, figure),),))
        for _, section, figure, material in deepest_first
    )
    return tuple(zones), world


def _detectors(manager: Section, zones: tuple[Zone, ...]) -> dict[str, Detector]:
    places = {zone.uuid: number for number, zone in enumerate(zones)}
    return manager.by_uuid(manager.items("detectors", "detector", _MOST), lambda detector: _detector(detector, places))


def _detector(detector: Section, zones: Mapping[str, int]) -> Detector:
    data = Section(detector.place, detector.within("geometryData").values)
    sizes = Section(detector.place, data.within("parameters").values)
    name, kind = detector.text("name"), data.text("geometryType")
    if kind == "All":
        return Everywhere(name)
    if kind == "Zone":
        return ZoneDetector(name, sizes.resolve("zoneUuid", zones, "its zone"))
    if any(data.vector("rotation", _ORIGIN)):
        raise detector.refusal("rotated detectors are not supported: they must lie along the axes")
    centre = data.vector("position", _ORIGIN)
    if kind == "Mesh":
        return _mesh(detector, sizes, name, centre)
    if kind == "Cyl":
        return _cylinder(detector, sizes, name, centre)
    raise detector.refusal(f"unknown geometryType {short(kind)}: use one of Mesh, Cyl, Zone, All")


def _mesh(detector: Section, sizes: Section, name: str, centre: Vector) -> Mesh:
    width, height, depth = (sizes.number(key, None, 1e-9) for key in ("width", "height", "depth"))
    nx, ny, nz = (sizes.integer(f"{axis}Segments", 1, 1, _MOST_BINS) for axis in "xyz")
    if nx * ny * nz > _MOST_BINS:
        raise detector.refusal(f"it has {nx * ny * nz} bins; the limit is {_MOST_BINS}")
    return Mesh(name, centre, (width, height, depth), (nx, ny, nz))


def _cylinder(detector: Section, sizes: Section, name: str, centre: Vector) -> Cylinder:
    inner, radius = sizes.number("innerRadius", 0.0, 0), sizes.number("radius", None, 1e-9)
    if inner >= radius:
        raise detector.refusal("its inner radius must be smaller than its radius")
    bins = (sizes.integer("radialSegments", 1, 1, _MOST_BINS), sizes.integer("zSegments", 1, 1, _MOST_BINS))
    if bins[0] * bins[1] > _MOST_BINS:
        raise detector.refusal(f"it has {bins[0] * bins[1]} bins; the limit is {_MOST_BINS}")
    return Cylinder(name, centre, inner, radius, sizes.number("depth", None, 1e-9), bins)


def _outputs(manager: Section, detectors: Mapping[str, Detector], zones: Mapping[str, Detector]) -> tuple[Output, ...]:
    filters = manager.by_uuid(manager.items("filters", "filter", _MOST), _filter)
    outputs = tuple(
        _output(output, _scored_in(output, detectors, zones), filters)
        for output in manager.items("outputs", "output", _MOST)
    )
    names = [output.name for output in outputs]
    for name in names:
        if names.count(name) > 1:
            raise manager.refusal(f"duplicate name {short(name)}")
    return outputs


def _scored_in(output: Section, detectors: Mapping[str, Detector], zones: Mapping[str, Detector]) -> Detector | None:
    """Return the detector of an output, or its zone; None if none is chosen yet."""
    for key, known, what in (("detectorUuid", detectors, "its detector"), ("zoneUuid", zones, "its zone")):
        if output.values.get(key) is not None:
            return cast("Detector", output.resolve(key, known, what))
    return None


def _output(output: Section, detector: Detector | None, filters: Mapping[str, Filter]) -> Output:
    name = output.text("name")
    if not name:
        raise output.refusal("its name is missing")
    return Output(
        name=name,
        detector=detector,
        quantities=tuple(_quantity(section, filters) for section in output.items("quantities", "quantity", _MOST)),
        trace=output.flag("trace", False),
    )


def _quantity(quantity: Section, filters: Mapping[str, Filter]) -> Quantity:
    keyword = quantity.text("keyword")
    if not keyword:
        raise quantity.refusal("its keyword is missing, e.g. Dose")
    filter_uuid = quantity.values.get("filter")
    return Quantity(
        name=quantity.text("name") or keyword,
        keyword=keyword,
        filter=None if filter_uuid is None else quantity.resolve("filter", filters, "its filter"),
        modifiers=tuple(modifier.text("diffType") for modifier in quantity.items("modifiers", "modifier", 2)),
        rescale=quantity.number("rescale", 1.0, -1e300, 1e300),
        extras=tuple(description for key, description in _EXTRAS.items() if quantity.values.get(key) is not None),
    )


def _filter(section: Section) -> Filter:
    """Return a filter of any version: rules, one particle, or a range of energies of several particles."""
    name = section.text("name")
    rules = tuple(_rule(rule) for rule in section.items("rules", "rule", _MOST))
    if section.values.get("rules") is not None:
        return Filter(name, rules)
    particle = section.within("particle")
    if not particle.values:
        return Filter(name, (), "particles and energies")
    if _particle(particle)[0].is_proton:
        return Filter(name, (("Z", "==", 1.0), ("A", "==", 1.0)))
    return Filter(name, (), particle.text("name") or "a particle")


def _rule(rule: Section) -> tuple[str, str, float]:
    return rule.text("keyword"), rule.text("operator"), rule.number("value", None, -1e300, 1e300)


def _physics(physics: Section) -> Physics:
    return Physics(
        nuclear_reactions=physics.flag("enableNuclearReactions", True),
        straggling=physics.text("energyModelStraggling", "Vavilov"),
        scattering=physics.text("multipleScattering", "Moliere"),
    )


def _special(manager: Section) -> Iterator[str]:
    """Yield other objects in the beam."""
    for key, what in (("modulator", "a beam modulator"), ("CTCube", "a CT"), ("ctCube", "a CT")):
        if manager.values.get(key):
            yield what

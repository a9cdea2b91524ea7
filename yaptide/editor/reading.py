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
from yaptide.editor.particles import Numbers, choose_numbers, read_particle
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
    Modifier,
    Output,
    ParticleKind,
    Physics,
    Project,
    Quantity,
    Solid,
    Vector,
    World,
    Zone,
    ZoneDetector,
)
from yaptide.editor.project_check import MOST_PRIMARIES
from yaptide.editor.sections import Section, quote_text

_MOST = 1000  # figures, zones, detectors, outputs, quantities of all outputs ...
_MOST_OPERATIONS = 10_000
_MOST_BINS = 10**7
_HEAVIEST = 100  # g/cm3
_ORIGIN: Vector = (0.0, 0.0, 0.0)

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
    header = Section("project", whole.read_section("project").values)
    numbers = choose_numbers(header.values.get("simulator"))
    beam = _beam(Section("beam", _needed(whole, "beam")), numbers)
    materials = _materials(Section("materials", whole.read_section("materialManager").values))
    zones, world = _geometry(whole, materials)
    detectors = _detectors(Section("detectors", _needed(whole, "detectorManager")), zones)
    scoring = Section("outputs", _needed(whole, "scoringManager"))
    scored_zones = {zone.uuid: ZoneDetector(zone.name, number) for number, zone in enumerate(zones)}
    return Project(
        title=header.read_text("title"),
        beam=beam,
        zones=zones,
        world=world,
        outputs=_outputs(scoring, detectors, scored_zones, _filters(scoring, numbers)),
        physics=_physics(Section("physic", whole.read_section("physic").values)),
        special=tuple(_special(Section("special components", whole.read_section("specialComponentsManager").values))),
    )


def _needed(whole: Section, key: str) -> Mapping[str, Any]:
    if whole.values.get(key) is None:
        raise InvalidInput(f"Project, {key}: missing")
    return whole.read_section(key).values


def _beam(beam: Section, numbers: Numbers) -> Beam:
    particle = read_particle(beam.read_section("particle"), numbers)
    per_particle = max(particle.a, 1) if beam.read_text("energyUnit", "MeV") == "MeV/nucl" else 1
    sigma, divergence = beam.read_section("sigma"), beam.read_section("divergence")
    shape = sigma.read_choice("type", BeamShape, BeamShape.GAUSSIAN)
    size = (abs(sigma.read_number("x", 0.0)), abs(sigma.read_number("y", 0.0)))
    direction = np.array(beam.read_vector("direction", (0.0, 0.0, 1.0)))
    if not (length := float(np.linalg.norm(direction))) > 0:
        raise beam.make_error("direction must not be 0 0 0")
    x, y, z = (float(part) for part in direction / length)
    return Beam(
        particle=particle,
        energy=per_particle * beam.read_number("energy", 150.0, 1e-12),
        spread=per_particle * abs(beam.read_number("energySpread", 1.5)),
        cutoffs=(
            per_particle * beam.read_number("energyLowCutoff", 0.0),
            per_particle * beam.read_number("energyHighCutoff", 1000.0),
        ),
        position=beam.read_vector("position", _ORIGIN),
        direction=(x, y, z),
        shape=shape,
        size=(size[1], size[1]) if shape is BeamShape.CIRCLE else size,
        divergence=(abs(divergence.read_number("x", 0.0)), abs(divergence.read_number("y", 0.0))),
        focus=divergence.read_number("distanceToFocal", 0.0),
        distances=_distances(beam.read_section("sad")),
        source=_source(beam),
        primaries=beam.read_integer("numberOfParticles", None, 1, MOST_PRIMARIES),
    )


def _distances(sad: Section) -> tuple[float, float] | None:
    kind = sad.read_text("type", "none")
    if kind == "none":
        return None
    x = sad.read_number("x", None, 1e-3)
    return (x, sad.read_number("y", None, 1e-3) if kind == "double" else x)


def _source(beam: Section) -> tuple[str, str] | None:
    kind = beam.read_text("sourceType", "simple")
    if kind not in ("simple", "file"):
        raise beam.make_error("sourceType must be simple or file")
    file = beam.read_section("sourceFile")
    return (file.read_text("name"), file.read_text("value")) if kind == "file" else None


def _materials(manager: Section) -> dict[str, Material]:
    return manager.read_by_uuid(manager.read_sections("materials", "material", _MOST), _material)


def _material(material: Section) -> Material:
    icru = material.read_integer("icru", None, 0, 10**6)
    name = material.read_text("name") or f"ICRU {icru}"
    density = material.read_number("density", None, 0, _HEAVIEST * 1e7)  # that of a black hole is irrelevant
    plain = Material(name, icru, density, own_table=material.read_flag("customStoppingPower", False))
    if not plain.is_empty and not 0 < density <= _HEAVIEST:
        raise material.make_error(f"density must be more than 0 and at most {_HEAVIEST} g/cm3")
    return plain


def _material_of(zone: Section, materials: Mapping[str, Material]) -> Material:
    """Return the material of a zone, with the properties that the zone overrides."""
    if zone.values.get("customMaterial") is not None:
        plain = _material(zone.read_section("customMaterial"))
    else:
        plain = zone.resolve_uuid("materialUuid", materials, "its material")
    overrides = zone.read_section("materialPropertiesOverrides")
    return replace(
        plain,
        density=plain.density if plain.is_empty else overrides.read_number("density", plain.density, 1e-9, _HEAVIEST),
        ionisation=overrides.read_number("averageIonisationPotential", 0.0, 0) or None,
        own_table=overrides.read_flag("customStoppingPower", plain.own_table),
    )


def _geometry(whole: Section, materials: Mapping[str, Material]) -> tuple[tuple[Zone, ...], World]:
    """Return zones and world, from combined figures, or from figures nested in each other."""
    figures = Section("figures", _needed(whole, "figureManager"))
    manager = Section("zones", _needed(whole, "zoneManager"))
    roots = list(figures.read_sections("figures", "figure", _MOST))
    if any(root.values.get("simulationMaterial") is not None for root in roots):
        return _nested(roots)
    known = figures.read_by_uuid(iter(roots), lambda figure: _placed(figure, np.zeros(3), np.eye(3)))
    zones = tuple(_zones(manager, known, materials))
    return zones, _world(Section("the world zone", manager.read_section("worldZone").values), zones, materials)


def _placed(figure: Section, origin: Doubles, frame: Doubles, *, hollow: bool = True) -> Figure:
    """Return a figure whose position and rotation are relative to `origin` and the axes in the columns of `frame`."""
    data = Section(figure.place, figure.read_section("geometryData").values)
    kind = data.read_text("geometryType")
    if kind not in _SOLIDS:
        raise figure.make_error(f"unknown geometryType {quote_text(kind)}: use one of {', '.join(_SOLIDS)}")
    solid, sizes = _SOLIDS[kind], Section(figure.place, data.read_section("parameters").values)
    x, y, z = (float(part) for part in origin + frame @ np.array(data.read_vector("position", _ORIGIN)))
    axes = frame @ rotation_matrix(data.read_vector("rotation", _ORIGIN))
    name = figure.read_text("name")
    if solid is Solid.BOX:
        width, height, depth = (sizes.read_number(key, None, 0) for key in ("width", "height", "depth"))
        return Figure(name, solid, (x, y, z), axes, (width, height, depth))
    radius = sizes.read_number("radius", None, 0)
    if solid is Solid.SPHERE:
        return Figure(name, solid, (x, y, z), axes, (2 * radius, 2 * radius, 2 * radius), radius)
    inner = sizes.read_number("innerRadius", 0.0, 0) if hollow else 0.0
    if inner > radius:
        raise figure.make_error("its inner radius is larger than its radius")
    size = (2 * radius, 2 * radius, sizes.read_number("depth", None, 0))
    return Figure(name, solid, (x, y, z), axes, size, radius, inner)


def _zones(manager: Section, figures: Mapping[str, Figure], materials: Mapping[str, Material]) -> Iterator[Zone]:
    allowance = _MOST_OPERATIONS
    for zone in manager.read_sections("zones", "zone", _MOST):
        terms = tuple(_term(zone, term, figures) for term in zone.read_list("unionOperations", _MOST))
        allowance -= sum(map(len, terms))
        if allowance < 0:
            raise zone.make_error(f"the zones up to here have more than {_MOST_OPERATIONS} operations")
        yield Zone(zone.read_text("name"), zone.read_text("uuid"), _material_of(zone, materials), terms)


def _term(zone: Section, operations: Any, figures: Mapping[str, Figure]) -> tuple[tuple[Mode, Figure], ...]:
    """Return a row of operations."""
    row = Section(zone.place, {"unionOperations": operations})
    parts = []
    for operation in row.read_list("unionOperations", _MOST):
        if not isinstance(operation, Mapping):
            raise zone.make_error("an operation must be an object")
        step = Section(zone.place, operation)
        parts.append((step.read_choice("mode", Mode), step.resolve_uuid("objectUuid", figures, "figure")))
    return tuple(parts)


def _world(world: Section, zones: tuple[Zone, ...], materials: Mapping[str, Material]) -> World:
    if not world.values:
        raise world.make_error("missing")
    figure = _placed(world, np.zeros(3), np.eye(3), hollow=False)
    if world.read_flag("autoCalculate", False) and figure.solid is Solid.BOX:
        figure = _fitted(figure, zones, world.read_number("marginMultiplier", 1.1, 0, 1e3))
    return World(figure, world.resolve_uuid("materialUuid", materials, "its material"))


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
        material = _material(Section(branch.section.place, branch.section.read_section("simulationMaterial").values))
        solids.append((branch.depth, branch.section, figure, material))
        if len(solids) > _MOST:
            raise branch.section.make_error(f"more than {_MOST} figures")
        children = branch.section.read_sections("children", "figure", _MOST)
        centre = np.array(figure.centre)
        waiting += reversed([_Branch(child, centre, figure.axes, branch.depth + 1) for child in children])
    world = World(solids[0][2], solids[0][3])
    deepest_first = sorted(solids[1:], key=lambda solid: -solid[0])
    zones = (
        Zone(section.read_text("name"), section.read_text("uuid"), material, (((Mode.UNION, figure),),))
        for _, section, figure, material in deepest_first
    )
    return tuple(zones), world


def _detectors(manager: Section, zones: tuple[Zone, ...]) -> dict[str, Detector]:
    places = {zone.uuid: number for number, zone in enumerate(zones)}
    return manager.read_by_uuid(
        manager.read_sections("detectors", "detector", _MOST), lambda detector: _detector(detector, places)
    )


def _detector(detector: Section, zones: Mapping[str, int]) -> Detector:
    data = Section(detector.place, detector.read_section("geometryData").values)
    sizes = Section(detector.place, data.read_section("parameters").values)
    name, kind = detector.read_text("name"), data.read_text("geometryType")
    if kind == "All":
        return Everywhere(name)
    if kind == "Zone":
        return ZoneDetector(name, sizes.resolve_uuid("zoneUuid", zones, "its zone"))
    if any(data.read_vector("rotation", _ORIGIN)):
        raise detector.make_error("rotated detectors are not supported: they must lie along the axes")
    centre = data.read_vector("position", _ORIGIN)
    if kind == "Mesh":
        return _mesh(detector, sizes, name, centre)
    if kind == "Cyl":
        return _cylinder(detector, sizes, name, centre)
    raise detector.make_error(f"unknown geometryType {quote_text(kind)}: use one of Mesh, Cyl, Zone, All")


def _mesh(detector: Section, sizes: Section, name: str, centre: Vector) -> Mesh:
    width, height, depth = (sizes.read_number(key, None, 1e-9) for key in ("width", "height", "depth"))
    nx, ny, nz = (sizes.read_integer(f"{axis}Segments", 1, 1, _MOST_BINS) for axis in "xyz")
    if nx * ny * nz > _MOST_BINS:
        raise detector.make_error(f"it has {nx * ny * nz} bins; the limit is {_MOST_BINS}")
    return Mesh(name, centre, (width, height, depth), (nx, ny, nz))


def _cylinder(detector: Section, sizes: Section, name: str, centre: Vector) -> Cylinder:
    inner, radius = sizes.read_number("innerRadius", 0.0, 0), sizes.read_number("radius", None, 1e-9)
    if inner >= radius:
        raise detector.make_error("its inner radius must be smaller than its radius")
    bins = (sizes.read_integer("radialSegments", 1, 1, _MOST_BINS), sizes.read_integer("zSegments", 1, 1, _MOST_BINS))
    if bins[0] * bins[1] > _MOST_BINS:
        raise detector.make_error(f"it has {bins[0] * bins[1]} bins; the limit is {_MOST_BINS}")
    return Cylinder(name, centre, inner, radius, sizes.read_number("depth", None, 1e-9), bins)


def _filters(manager: Section, numbers: Numbers) -> dict[str, Filter]:
    return manager.read_by_uuid(
        manager.read_sections("filters", "filter", _MOST), lambda section: _filter(section, numbers)
    )


def _outputs(
    manager: Section, detectors: Mapping[str, Detector], zones: Mapping[str, Detector], filters: Mapping[str, Filter]
) -> tuple[Output, ...]:
    outputs = tuple(
        _output(output, _scored_in(output, detectors, zones), filters)
        for output in manager.read_sections("outputs", "output", _MOST)
    )
    if (count := sum(len(output.quantities) for output in outputs)) > _MOST:
        raise manager.make_error(f"they have {count} quantities together; the limit is {_MOST}")
    names = [output.name for output in outputs]
    for name in names:
        if names.count(name) > 1:
            raise manager.make_error(f"duplicate name {quote_text(name)}")
    return outputs


def _scored_in(output: Section, detectors: Mapping[str, Detector], zones: Mapping[str, Detector]) -> Detector | None:
    """Return the detector of an output, or its zone; None if none is chosen yet."""
    for key, known, what in (("detectorUuid", detectors, "its detector"), ("zoneUuid", zones, "its zone")):
        if output.values.get(key) is not None:
            return cast("Detector", output.resolve_uuid(key, known, what))
    return None


def _output(output: Section, detector: Detector | None, filters: Mapping[str, Filter]) -> Output:
    name = output.read_text("name")
    if not name:
        raise output.make_error("its name is missing")
    return Output(
        name=name,
        detector=detector,
        quantities=tuple(
            _quantity(section, filters) for section in output.read_sections("quantities", "quantity", _MOST)
        ),
        trace=output.read_flag("trace", False),
    )


def _quantity(quantity: Section, filters: Mapping[str, Filter]) -> Quantity:
    keyword = quantity.read_text("keyword")
    if not keyword:
        raise quantity.make_error("its keyword is missing, e.g. Dose")
    filter_uuid = quantity.values.get("filter")
    return Quantity(
        name=quantity.read_text("name") or keyword,
        keyword=keyword,
        filter=None if filter_uuid is None else quantity.resolve_uuid("filter", filters, "its filter"),
        modifiers=tuple(map(_modifier, quantity.read_sections("modifiers", "modifier", 2))),
        rescale=quantity.read_number("rescale", 1.0, -1e300, 1e300),
        extras=tuple(description for key, description in _EXTRAS.items() if quantity.values.get(key) is not None),
    )


def _modifier(modifier: Section) -> Modifier:
    low, high = modifier.read_number("lowerLimit", 0.0), modifier.read_number("upperLimit", 500.0)
    is_logarithmic = modifier.read_flag("isLog", False)
    if not low < high or (is_logarithmic and low <= 0):
        raise modifier.make_error("lowerLimit must be less than upperLimit, and more than 0 for logarithmic bins")
    bins = modifier.read_integer("binsNumber", 500, 1, _MOST_BINS)
    return Modifier(modifier.read_text("diffType"), low, high, bins, is_logarithmic)


def _filter(section: Section, numbers: Numbers) -> Filter:
    """Return a filter of any version: rules, one particle, or a range of energies of several particles."""
    name = section.read_text("name")
    rules = tuple(_rule(rule) for rule in section.read_sections("rules", "rule", _MOST))
    if section.values.get("rules") is not None:
        return Filter(name, rules)
    particle = section.read_section("particle")
    if particle.values:
        rules = _rules_of_particle(particle, numbers)
        return Filter(name, rules, "" if rules else particle.read_text("name") or "a particle")
    types = list(section.read_section("data").read_sections("particleTypes", "particle", _MOST))
    if section.read_text("filterType") == "particle" and len(types) == 1 and types[0].values:
        rules = _rules_of_particle(types[0], numbers)
    return Filter(name, rules, "" if rules else "particles and energies")


def _rules_of_particle(particle: Section, numbers: Numbers) -> tuple[tuple[str, str, float], ...]:
    """Return the rules of a filter for one nucleus or neutrons; none for another particle."""
    try:
        nucleus = read_particle(particle, numbers)
    except InvalidInput:  # refused only where the filter is used
        return ()
    is_counted = nucleus.z > 0 or nucleus.kind is ParticleKind.NEUTRON
    return (("Z", "==", float(nucleus.z)), ("A", "==", float(nucleus.a))) if nucleus.a and is_counted else ()


def _rule(rule: Section) -> tuple[str, str, float]:
    return rule.read_text("keyword"), rule.read_text("operator"), rule.read_number("value", None, -1e300, 1e300)


def _physics(physics: Section) -> Physics:
    return Physics(
        nuclear_reactions=physics.read_flag("enableNuclearReactions", True),
        straggling=physics.read_text("energyModelStraggling", "Vavilov"),
        scattering=physics.read_text("multipleScattering", "Moliere"),
        energy_loss=physics.read_number("energyLoss", 0.03, 0, 1),
    )


def _special(manager: Section) -> Iterator[str]:
    """Yield other objects in the beam."""
    for key, what in (("modulator", "a beam modulator"), ("CTCube", "a CT"), ("ctCube", "a CT")):
        if manager.values.get(key):
            yield what

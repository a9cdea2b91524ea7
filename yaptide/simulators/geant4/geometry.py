"""Writes ``geometry.gdml`` (GDML manual, "Solids", "Structure").

Figures are placed inside of each other if possible. Otherwise each region is a solid of unions, intersections and
subtractions in the axes of the world. Geant4 reads the angles of a placed volume as a rotation from outside to its own
axes, and those of a part of a solid as the inverse of that.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.nesting import Placed, place_figures, place_in, rotation_angles, walk_placed
from yaptide.editor.project import Doubles, Figure, Material, Project, Solid
from yaptide.editor.regions import Region, Regions, Term
from yaptide.editor.substances import find_substance
from yaptide.simulators.geant4.materials import BLACK_HOLE, DENSE, EXCITATION, is_own, material_around
from yaptide.simulators.projects import list_detectors, make_names, world_reach

_MM = 10.0
_LONGEST = 60
_WORLD = "WorldVolume"
_SCHEMA = "http://service-spi.web.cern.ch/service-spi/app/releases/GDML/schema/gdml.xsd"


def format_gdml(project: Project, regions: Regions, names: dict[Material, str]) -> str:
    """Return the GDML document of a project, with the names of its materials."""
    writer = _Writer()
    try:
        roots = place_figures(regions, "Geant4")
    except InvalidInput:  # written as combined solids
        writer.add_regions(regions, names)
        around = BLACK_HOLE
    else:
        writer.add_placed(roots, names)
        around = material_around(roots, list_detectors(project))
    writer.add_world(around, world_reach(project))
    return _serialise(_materials(names, around), writer)


@dataclass
class _Writer:
    """Solids and volumes so far, and what is placed in the world."""

    solids: list[ET.Element] = field(default_factory=list)
    volumes: list[ET.Element] = field(default_factory=list)
    in_world: list[ET.Element] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def add_placed(self, roots: Sequence[Placed], names: dict[Material, str]) -> None:
        """Add figures inside of each other, the inner ones first."""
        everything = [placed for placed, _ in walk_placed(roots)]
        taken = _name_volumes([placed.name for placed in everything])
        volume = {id(placed): name for placed, name in zip(everything, taken, strict=True)}
        for placed in reversed(everything):
            name = volume[id(placed)]
            solid = self.add_figure(placed.figure)
            inside = [_place(volume[id(child)], *place_in(child.figure, placed.figure)) for child in placed.children]
            self.add_volume(name, names[placed.material], solid, inside)
        self.in_world += [_place(volume[id(root)], *place_in(root.figure, None)) for root in roots]

    def add_regions(self, regions: Regions, names: dict[Material, str]) -> None:
        """Add each region as one solid in the axes of the world; the last one is the world itself."""
        inner = regions.regions[:-1]
        for region, name in zip(inner, _name_volumes([region.name for region in inner]), strict=True):
            solid, figure = self.add_region(region, regions.bodies)
            self.add_volume(name, names[region.material], solid, [])
            where = (np.zeros(3), np.eye(3)) if figure is None else (np.array(figure.centre), figure.axes)
            self.in_world.append(_place(name, *where))

    def add_region(self, region: Region, bodies: Sequence[Figure]) -> tuple[str, Figure | None]:
        """Add the solid of a region; return its name, and its figure if it is in the axes of that."""
        solid, figure = self.add_term(region.terms[0], bodies)
        for term in region.terms[1:]:
            solid, figure = self.combine("union", (solid, figure), self.add_term(term, bodies)), None
        return solid, figure

    def add_term(self, term: Term, bodies: Sequence[Figure]) -> tuple[str, Figure | None]:
        """Add the intersection of bodies, and what is cut out of it."""
        first, *others = sorted(term, key=lambda number: (number < 0, abs(number)))
        solid: tuple[str, Figure | None] = self.add_figure(bodies[first - 1]), bodies[first - 1]
        for number in others:
            body = bodies[abs(number) - 1]
            kind = "intersection" if number > 0 else "subtraction"
            solid = self.combine(kind, solid, (self.add_figure(body), body)), None
        return solid

    def add_figure(self, figure: Figure) -> str:
        """Add a solid around the origin; return its name."""
        name = f"solid{next(self.numbers)}"
        if figure.solid is Solid.BOX:
            sizes = {axis: _mm(size) for axis, size in zip("xyz", figure.size, strict=True)}
            self.solids.append(ET.Element("box", {"name": name, **sizes, "lunit": "mm"}))
        else:
            sizes = {"rmin": "0", "rmax": _mm(figure.radius), "startphi": "0", "deltaphi": "360", "aunit": "deg"}
            is_tube = figure.solid is Solid.CYLINDER
            sizes |= {"z": _mm(figure.size[2])} if is_tube else {"starttheta": "0", "deltatheta": "180"}
            self.solids.append(ET.Element("tube" if is_tube else "sphere", {"name": name, **sizes, "lunit": "mm"}))
        return name

    def combine(self, kind: str, one: tuple[str, Figure | None], other: tuple[str, Figure | None]) -> str:
        """Add a solid of two others, each at its place if it has one."""
        name = f"solid{next(self.numbers)}"
        element = ET.Element(kind, {"name": name})
        ET.SubElement(element, "first", {"ref": one[0]})
        ET.SubElement(element, "second", {"ref": other[0]})
        for prefix, (_, figure) in (("", other), ("first", one)):
            if figure is not None:
                _move(element, prefix, f"{name}{prefix}", np.array(figure.centre), figure.axes.T)
        self.solids.append(element)
        return name

    def add_volume(self, name: str, material: str, solid: str, inside: Sequence[ET.Element]) -> None:
        """Add a volume made of a material."""
        volume = ET.Element("volume", {"name": name})
        ET.SubElement(volume, "materialref", {"ref": material})
        ET.SubElement(volume, "solidref", {"ref": solid})
        volume.extend(inside)
        self.volumes.append(volume)

    def add_world(self, material: str, reach: Sequence[float]) -> None:
        """Add the world, a box around the origin; `reach` is half of its size, in cm."""
        sizes = {axis: _mm(2 * half) for axis, half in zip("xyz", reach, strict=True)}
        self.solids.append(ET.Element("box", {"name": "solidWorld", **sizes, "lunit": "mm"}))
        self.add_volume(_WORLD, material, "solidWorld", self.in_world)


def _name_volumes(names: Sequence[str]) -> list[str]:
    """Return different names of volumes, none of which is that of the world."""
    return make_names([_WORLD, *names], _LONGEST, "Zone")[1:]


def _place(volume: str, centre: Doubles, axes: Doubles) -> ET.Element:
    element = ET.Element("physvol", {"name": f"{volume}_placed"})
    ET.SubElement(element, "volumeref", {"ref": volume})
    _move(element, "", volume, centre, axes)
    return element


def _move(element: ET.Element, prefix: str, name: str, centre: Doubles, axes: Doubles) -> None:
    """Add a position (mm), and the angles (degrees) of the inverse of `axes`."""
    places = {axis: _mm(float(length)) for axis, length in zip("xyz", centre, strict=True)}
    ET.SubElement(element, f"{prefix}position", {"name": f"{name}_position", **places, "unit": "mm"})
    angles = rotation_angles(axes)
    if any(abs(angle) > 1e-10 for angle in angles):
        turns = {axis: f"{angle:.15g}" for axis, angle in zip("xyz", angles, strict=True)}
        ET.SubElement(element, f"{prefix}rotation", {"name": f"{name}_rotation", **turns, "unit": "deg"})


def _mm(length: float) -> str:
    return f"{round(_MM * length, 9) + 0.0:.15g}"


def _materials(names: dict[Material, str], around: str) -> ET.Element:
    element = ET.Element("materials")
    if BLACK_HOLE in {*names.values(), around}:
        _add_material(element, BLACK_HOLE, DENSE, EXCITATION, {"Pb": 1.0})
    for material, name in names.items():
        if is_own(name):
            substance = find_substance(material, "Geant4")
            ionisation, state = substance.ionisation_of(material), "gas" if substance.is_gas else "solid"
            _add_material(element, name, material.density, ionisation, substance.fractions, state)
    return element


def _add_material(
    parent: ET.Element,
    name: str,
    density: float,
    ionisation: float,
    fractions: Mapping[str, float],
    state: str = "solid",
) -> None:
    element = ET.SubElement(parent, "material", {"name": name, "state": state})
    ET.SubElement(element, "MEE", {"unit": "eV", "value": f"{ionisation:.10g}"})
    ET.SubElement(element, "D", {"unit": "g/cm3", "value": f"{density:.10g}"})
    for symbol, part in fractions.items():
        ET.SubElement(element, "fraction", {"n": f"{part:.9g}", "ref": f"G4_{symbol}"})


def _serialise(materials: ET.Element, writer: _Writer) -> str:
    schema = {"xsi:noNamespaceSchemaLocation": _SCHEMA, "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance"}
    document = ET.Element("gdml", schema)
    ET.SubElement(document, "define")
    document.append(materials)
    ET.SubElement(document, "solids").extend(writer.solids)
    ET.SubElement(document, "structure").extend(writer.volumes)
    setup = ET.SubElement(document, "setup", {"name": "Default", "version": "1.0"})
    ET.SubElement(setup, "world", {"ref": _WORLD})
    ET.indent(document)
    return ET.tostring(document, encoding="unicode", xml_declaration=False) + "\n"

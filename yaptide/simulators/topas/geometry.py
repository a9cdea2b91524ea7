"""Writes the components of a TOPAS job, placed inside of each other (TOPAS user guide, "Geometry Components").

TOPAS kills particles that leave its world, a box around the origin.
"""

from collections.abc import Iterator, Sequence

from yaptide.editor.nesting import Placed, place_in, rotation_angles, walk_placed
from yaptide.editor.project import Doubles, Figure, Material, Project, Solid
from yaptide.simulators.geant4.materials import material_around
from yaptide.simulators.projects import comment, list_detectors, make_names, world_reach

_LONGEST = 50


def format_geometry(project: Project, roots: Sequence[Placed], names: dict[Material, str]) -> Iterator[str]:
    """Yield the parameters of the components: the world of a project, and the figures in it."""
    for axis, half in zip("XYZ", world_reach(project), strict=True):
        yield f"d:Ge/World/HL{axis} = {format_real(half)} cm"
    yield f's:Ge/World/Material = "{material_around(roots, list_detectors(project))}"'
    placed = list(walk_placed(roots))
    # The ending tells zones from the world, the beam's position, and the grids of detectors.
    taken = make_names((f"{each.name[:_LONGEST]}_Zone" for each, _ in placed), 2 * _LONGEST, "Zone")
    component = {id(each): name for (each, _), name in zip(placed, taken, strict=True)}
    for each, parent in placed:
        name = component[id(each)]
        yield f"# {comment(each.name)}: {comment(each.material.name)}"
        yield f's:Ge/{name}/Parent = "{component[id(parent)] if parent else "World"}"'
        yield f's:Ge/{name}/Material = "{names[each.material]}"'
        yield from _format_shape(name, each.figure)
        yield from format_placement(name, *place_in(each.figure, parent.figure if parent else None))


def format_placement(name: str, centre: Doubles, axes: Doubles) -> Iterator[str]:
    """Yield translation and rotation of a component."""
    for axis, length, angle in zip("XYZ", centre, rotation_angles(axes), strict=True):
        yield f"d:Ge/{name}/Trans{axis} = {format_real(float(length))} cm"
        yield f"d:Ge/{name}/Rot{axis} = {format_real(angle)} deg"


def _format_shape(name: str, figure: Figure) -> Iterator[str]:
    if figure.solid is Solid.BOX:
        yield f's:Ge/{name}/Type = "TsBox"'
        for axis, size in zip("XYZ", figure.size, strict=True):
            yield f"d:Ge/{name}/HL{axis} = {format_real(size / 2)} cm"
        return
    is_sphere = figure.solid is Solid.SPHERE
    yield f's:Ge/{name}/Type = "{"TsSphere" if is_sphere else "TsCylinder"}"'
    yield f"d:Ge/{name}/RMax = {format_real(figure.radius)} cm"
    if not is_sphere:
        yield f"d:Ge/{name}/HL = {format_real(figure.size[2] / 2)} cm"


def format_real(value: float) -> str:
    """Return a number without rounding errors, and with a point."""
    text = f"{round(value, 10) + 0.0:.12g}"
    return text if "." in text or "e" in text else f"{text}."

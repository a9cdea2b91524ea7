"""Writes ``run.mac``: the source (/gps), meshes of scorers (/score), and the run (Geant4 user guide)."""

from collections.abc import Iterator

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import (
    Beam,
    BeamShape,
    Cylinder,
    Detector,
    Filter,
    Mesh,
    Output,
    ParticleKind,
    Project,
    Quantity,
)
from yaptide.editor.sections import quote_text
from yaptide.simulators.projects import (
    is_flat,
    is_pencil,
    make_names,
    refuse_differential,
    refuse_quantity,
    refuse_rescaling,
)
from yaptide.simulators.topas.source import name_particle

_SCORERS = {"Dose": "doseDeposit", "DoseGy": "doseDeposit", "Energy": "energyDeposit", "Fluence": "cellFlux"}
QUANTITIES = tuple(_SCORERS)
_NAMES = {
    frozenset({("Z", "==", 1.0), ("A", "==", 1.0)}): "proton",
    frozenset({("Z", "==", 0.0), ("A", "==", 1.0)}): "neutron",
    frozenset({("Z", "==", 1.0), ("A", "==", 2.0)}): "deuteron",
    frozenset({("Z", "==", 1.0), ("A", "==", 3.0)}): "triton",
    frozenset({("Z", "==", 2.0), ("A", "==", 3.0)}): "He3",
    frozenset({("Z", "==", 2.0), ("A", "==", 4.0)}): "alpha",
}
_LONGEST = 60


def format_macro(project: Project) -> str:
    """Return the macro; raise InvalidInput for what Geant4's commands cannot express."""
    lines = ["/run/initialize", *_format_source(project.beam)]
    outputs = [output for output in project.outputs if output.quantities]
    meshes = make_names([output.name for output in outputs], _LONGEST, "Mesh")
    dumps: list[str] = []
    for mesh, output in zip(meshes, outputs, strict=True):
        lines += _format_mesh(mesh, output)
        names = make_names([quantity.name for quantity in output.quantities], _LONGEST, "Quantity")
        for name, quantity in zip(names, output.quantities, strict=True):
            lines += _format_quantity(name, output, quantity)
            dumps.append(f"/score/dumpQuantityToFile {mesh} {name} {mesh}_{name}.txt")
        lines.append("/score/close")
    return "\n".join([*lines, f"/run/beamOn {project.beam.primaries}", *dumps]) + "\n"


def _format_source(beam: Beam) -> Iterator[str]:
    if beam.particle.kind is ParticleKind.ION:
        yield "/gps/particle ion"
        yield f"/gps/ion {beam.particle.z} {beam.particle.a} {beam.particle.z} 0"
    else:
        yield f"/gps/particle {name_particle(beam, 'Geant4')}"
    yield f"/gps/position {' '.join(map(_real, beam.position))} cm"
    x, y = beam.axes
    yield f"/gps/pos/rot1 {' '.join(map(_real, x))}"
    yield f"/gps/pos/rot2 {' '.join(map(_real, y))}"
    yield from _format_positions(beam)
    yield from _format_angles(beam)
    yield "/gps/ene/type Gauss"
    yield f"/gps/ene/mono {_real(beam.energy)} MeV"
    yield f"/gps/ene/sigma {_real(beam.spread)} MeV"


def _format_positions(beam: Beam) -> Iterator[str]:
    x, y = (_real(size) for size in beam.size)
    if is_pencil(beam):
        yield "/gps/pos/type Point"
    elif not is_flat(beam):
        yield "/gps/pos/type Beam"
        yield f"/gps/pos/sigma_x {x} cm"
        yield f"/gps/pos/sigma_y {y} cm"
    elif beam.shape is BeamShape.CIRCLE:
        yield "/gps/pos/type Plane"
        yield "/gps/pos/shape Circle"
        yield f"/gps/pos/radius {x} cm"
    else:
        yield "/gps/pos/type Plane"
        yield "/gps/pos/shape Rectangle"
        yield f"/gps/pos/halfx {x} cm"
        yield f"/gps/pos/halfy {y} cm"


def _format_angles(beam: Beam) -> Iterator[str]:
    if any(beam.divergence) and beam.focus:
        raise InvalidInput("Project, beam: yaptide cannot convert a focal point for Geant4: set distanceToFocal to 0")
    if any(beam.divergence):
        # The beam goes along the negative z of its frame, whose y is therefore turned.
        (x, y), (dx, dy) = beam.axes, beam.divergence
        yield "/gps/ang/type beam2d"
        yield f"/gps/ang/rot1 {' '.join(map(_real, x))}"
        yield f"/gps/ang/rot2 {' '.join(_real(-part) for part in y)}"
        yield f"/gps/ang/sigma_x {_real(dx)} mrad"
        yield f"/gps/ang/sigma_y {_real(dy)} mrad"
    else:
        yield f"/gps/direction {' '.join(map(_real, beam.direction))}"


def _format_mesh(mesh: str, output: Output) -> Iterator[str]:
    detector: Detector | None = output.detector
    if isinstance(detector, Mesh):
        yield f"/score/create/boxMesh {mesh}"
        yield f"/score/mesh/boxSize {' '.join(_real(size / 2) for size in detector.size)} cm"
        yield f"/score/mesh/nBin {' '.join(map(str, detector.bins))}"
    elif isinstance(detector, Cylinder) and not detector.inner:
        yield f"/score/create/cylinderMesh {mesh}"
        yield f"/score/mesh/cylinderSize {_real(detector.radius)} {_real(detector.depth / 2)} cm"
        yield f"/score/mesh/nBin {detector.bins[0]} {detector.bins[1]} 1"
    else:
        raise InvalidInput(
            f"Project, output {quote_text(output.name)}: Geant4 scores in boxes or full cylinders, not in zones, "
            "hollow cylinders or the whole world"
        )
    yield f"/score/mesh/translate/xyz {' '.join(map(_real, detector.centre))} cm"


def _format_quantity(name: str, output: Output, quantity: Quantity) -> Iterator[str]:
    if quantity.keyword not in _SCORERS:
        raise refuse_quantity(output, quantity, f"yaptide cannot convert {quote_text(quantity.keyword)} for Geant4")
    refuse_differential(output, quantity, "Geant4")
    refuse_rescaling(output, quantity, "Geant4")
    yield f"/score/quantity/{_SCORERS[quantity.keyword]} {name}"
    if quantity.filter and quantity.filter.rules:
        yield f"/score/filter/particle {name}Filter {_choose_particle(output, quantity, quantity.filter)}"


def _choose_particle(output: Output, quantity: Quantity, particle_filter: Filter) -> str:
    particle = _NAMES.get(frozenset(particle_filter.rules))
    if particle is None:
        raise refuse_quantity(
            output, quantity, f"Geant4 has no filter {quote_text(particle_filter.name)}: use Z and A of a particle"
        )
    return particle


def _real(value: float) -> str:
    return f"{round(value, 10) + 0.0:.12g}"

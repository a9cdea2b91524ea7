"""Converts projects of the web editor to input of MCsquare.

Zones become voxels, the beam becomes a plan with one field, and the detectors are written to an additional file that
maps results to the outputs of the project. Parts that MCsquare does not support are reported and left out.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput
from yaptide.editor.geometry import Geometry
from yaptide.editor.project import Beam, BeamShape, Output, Project, Quantity, ZoneDetector
from yaptide.editor.sections import quote_text
from yaptide.simulators.base import Converted
from yaptide.simulators.mcsquare import beam_library, config, ct, inputs, plan, scoring, tables
from yaptide.simulators.mcsquare.ct import CT
from yaptide.simulators.mcsquare.materials import hu_of, make_tables
from yaptide.simulators.mcsquare.scoring import Scored, ScoredOutput, Scoring
from yaptide.simulators.mcsquare.source import make_source
from yaptide.simulators.mcsquare.voxels import Space, bin_widths, fill_space, make_space
from yaptide.simulators.projects import check_start

_LEAST_PRIMARIES = 10
#: The LET image. It includes deuterons and alpha particles if they are transported.
_PROTON_LET = "LET"
_CT = "ct.txt"  # replaces ct.mhd, which config.txt names
_ALMOST = 0.999
_LONGEST = 2000  # characters of an error message
_NO_RANGE = "the beam is not along z, so its protons do not stop at one z"


@dataclass(frozen=True, slots=True)
class _Request:
    """A requested quantity of an output, and the reason if it is left out."""

    output: Output
    quantity: Quantity
    reason: str | None

    def __str__(self) -> str:
        return f"Output {quote_text(self.output.name)}, quantity {quote_text(self.quantity.name)}: {self.reason}"


def convert_project(project: Project) -> Converted:
    """Convert a project; raise InvalidInput if its beam or materials are not supported, or no output can be scored."""
    _check_beam(project)
    requests = list(_requests(project))
    outputs, left_out = _outputs(requests), [str(request) for request in requests if request.reason]
    _check_any(outputs, left_out)
    geometry = Geometry(project)
    space = make_space(project, [output.detector for output in outputs])
    voxels = CT(space.grid, fill_space(space, geometry))
    lost = [output for output in outputs if _is_lost(output, voxels)]
    left_out += [f"Output {quote_text(output.name)}: its zone contains no centre of a voxel" for output in lost]
    _check_any(remaining := tuple(output for output in outputs if output not in lost), left_out)
    empty = tuple(number for number, material in enumerate(geometry.materials) if material.is_empty)
    scored = Scoring(space.corner, empty, remaining, "" if project.beam.direction[2] > 1 - 1e-12 else _NO_RANGE)
    files = _files(project, geometry, space, voxels, scored)
    inputs.parse_inputs(files)  # verify that the files can be run
    return Converted(
        files, (*left_out, *_bins_left_out(remaining, space), *_settings_left_out(project, scored)), space.description
    )


def _check_any(outputs: tuple[ScoredOutput, ...], left_out: list[str]) -> None:
    """Raise InvalidInput, with the reasons, if no output remains."""
    if not outputs:
        reasons = "; ".join(left_out) or "It has no outputs with quantities"
        raise InvalidInput(f"MCsquare cannot score any output of this project. {reasons}"[:_LONGEST])


def _is_lost(output: ScoredOutput, voxels: CT) -> bool:
    """Return whether the detector is a zone without voxels."""
    return isinstance(output.detector, ZoneDetector) and not (voxels.hu == hu_of(output.detector.zone)).any()


def _check_beam(project: Project) -> None:
    """Raise InvalidInput for a beam, source or geometry at the source that MCsquare does not support."""
    beam = project.beam
    if not beam.particle.is_proton:
        raise InvalidInput(
            f"Unsupported beam particle {quote_text(beam.particle.name)}: MCsquare simulates protons only"
        )
    if beam.source is not None:
        raise InvalidInput(
            f"The beam is defined by the file {quote_text(beam.source[0])}, which yaptide cannot convert for MCsquare"
        )
    if project.special:
        raise InvalidInput(
            f"The project has {' and '.join(project.special)}, which yaptide cannot convert for MCsquare"
        )
    check_start(project)


def _requests(project: Project) -> Iterator[_Request]:
    for output in project.outputs:
        for quantity in output.quantities:
            yield _Request(output, quantity, _reason_against(output, quantity))


def _reason_against(output: Output, quantity: Quantity) -> str | None:
    """Return why MCsquare cannot score a quantity; None if it can."""
    if output.detector is None:
        return "the output has no detector"
    if quantity.keyword not in scoring.KINDS:
        return f"MCsquare does not score {quote_text(quantity.keyword)}"
    if quantity.modifiers:
        kinds = " and ".join(quote_text(modifier.kind) for modifier in quantity.modifiers)
        return f"MCsquare cannot score differentially in {kinds}"
    if quantity.extras:
        return f"yaptide cannot convert {' and '.join(quantity.extras)} for MCsquare"
    return _reason_against_filter(quantity) or scoring.reason_against(output.detector, quantity.keyword)


def _reason_against_filter(quantity: Quantity) -> str | None:
    """Return why MCsquare cannot score a quantity with this filter of particles; None if it can."""
    particle_filter = quantity.filter
    if quantity.keyword == "dLET":
        if particle_filter is None or not particle_filter.is_protons:
            return (
                f"MCsquare averages LET over all primary and secondary protons, not over {_describe_filter(quantity)}"
            )
    elif particle_filter is not None and (particle_filter.rules or particle_filter.other):
        return f"MCsquare scores all particles together, not {_describe_filter(quantity)}"
    return None


def _describe_filter(quantity: Quantity) -> str:
    return "all particles" if quantity.filter is None else f"particles of the filter {quote_text(quantity.filter.name)}"


def _outputs(requests: list[_Request]) -> tuple[ScoredOutput, ...]:
    """Return the outputs to score. An estimator named like an output has its quantities up to the first gap."""
    scored: list[ScoredOutput] = []
    used_names = {request.output.name for request in requests}
    for _, group in itertools.groupby(requests, key=lambda request: id(request.output)):
        quantities = list(group)
        output, detector = quantities[0].output, quantities[0].output.detector
        if detector is None:
            continue
        leading = list(itertools.takewhile(lambda request: request.reason is None, quantities))
        if leading:
            scored.append(ScoredOutput(output.name, detector, tuple(map(_scored, leading))))
        for request in quantities[len(leading) :]:
            if request.reason is None:
                name = _unused_name(f"{output.name}: {request.quantity.name}", used_names)
                used_names.add(name)
                scored.append(ScoredOutput(name, detector, (_scored(request),)))
    return tuple(scored)


def _unused_name(name: str, used_names: set[str]) -> str:
    """Return this name, or this name with a number if another estimator has it."""
    numbered = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(candidate for candidate in numbered if candidate not in used_names)


def _scored(request: _Request) -> Scored:
    quantity, filter_ = request.quantity, request.quantity.filter
    return Scored(quantity.keyword, quantity.name, filter_.name if filter_ else "", quantity.rescale)


def _bins_left_out(outputs: tuple[ScoredOutput, ...], space: Space) -> Iterator[str]:
    """Yield the outputs whose bins are smaller than the voxels."""
    for output in outputs:
        widths = zip(bin_widths(output.detector), space.voxel, strict=True)
        if any(width < _ALMOST * voxel for width, voxel in widths):
            name = quote_text(output.name)
            yield f"Output {name}: its bins are smaller than the voxels, so several bins share a value"


def _settings_left_out(project: Project, scored: Scoring) -> Iterator[str]:
    """Yield the settings of beam, materials and physics that differ from the project."""
    if _PROTON_LET in scored.images:
        yield (
            "Physics: to score the LET of protons alone, deuterons and alpha particles are not transported: their "
            "energy is deposited locally, about 2 % more dose in the first centimetre of a 150 MeV beam"
        )
    materials = {zone.name: zone.material for zone in project.zones}
    for name, material in materials.items():
        if material.ionisation is not None:
            yield f"Zone {quote_text(name)}: MCsquare uses its own mean ionisation potential of {material.name}"
        if material.own_table:
            yield f"Zone {quote_text(name)}: MCsquare uses its own stopping powers of {material.name}"
    if project.physics.straggling == "no straggling":
        yield "Physics: energy straggling cannot be turned off in MCsquare"
    if project.physics.scattering == "no scattering":
        yield "Physics: multiple scattering cannot be turned off in MCsquare"
    yield from _beam_left_out(project.beam)
    for output in project.outputs:
        if output.trace:
            yield f"Output {quote_text(output.name)}: MCsquare does not write particle lists"


def _beam_left_out(beam: Beam) -> Iterator[str]:
    if beam.focus and any(beam.divergence):
        yield "Beam: the divergence applies to particles at their start, without a focal point"
    low, high = beam.cutoffs
    if beam.energy - 4 * beam.spread < low or beam.energy + 4 * beam.spread > high:
        yield f"Beam: the energy cutoffs, {low:g} and {high:g} MeV, are ignored"
    if beam.shape is not BeamShape.GAUSSIAN and max(beam.size) > 0:
        yield "Beam: its flat shape is approximated by many small spots, so its edge is slightly blurred"


def _files(project: Project, geometry: Geometry, space: Space, voxels: CT, scored: Scoring) -> dict[str, str]:
    places = [
        *(f"Zone {quote_text(zone.name)}" for zone in project.zones),
        "The world zone",
        "What is around the world",
    ]
    densities, labels = make_tables(geometry.materials, places)
    library, field = make_source(project.beam, space)
    names = config.TASK_FILES
    return {
        config.FILE: _config(project, scored),
        _CT: _legend(geometry, places) + ct.format_ct(voxels),
        names["HU_Density_Conversion_File"]: tables.format_table(densities),
        names["HU_Material_Conversion_File"]: tables.format_table(labels),
        names["BDL_Machine_Parameter_File"]: beam_library.format_bdl(library),
        names["BDL_Plan_File"]: plan.format_plan(field),
        scoring.FILE: scoring.format_scoring(scored),
    }


def _legend(geometry: Geometry, places: list[str]) -> str:
    """Return comments that map each HU to its zone."""
    zones = enumerate(zip(places, geometry.materials, strict=True))
    return "".join(f"# HU {hu_of(zone)}: {place}, {quote_text(material.name)}\n" for zone, (place, material) in zones)


def _config(project: Project, scored: Scoring) -> str:
    physics = {"Simulate_Nuclear_Interactions": str(project.physics.nuclear_reactions)}
    if _PROTON_LET in scored.images:
        physics |= {"Simulate_Secondary_Deuterons": "False", "Simulate_Secondary_Alphas": "False"}
    settings = {
        "Num_Primaries": str(max(project.beam.primaries, _LEAST_PRIMARIES)),
        **config.TASK_FILES,
        **{f"{image}_MHD_Output": "True" for image in scored.images},
        **physics,
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())

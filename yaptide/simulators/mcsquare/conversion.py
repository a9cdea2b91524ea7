"""A project of the web editor as input of MCsquare.

Zones become voxels, the beam a plan of one field, and the detectors a file beside them, by which the results come under
the names of the project's outputs. What MCsquare cannot do is named, and left out.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.geometry import Geometry
from yaptide.editor.places import short
from yaptide.editor.project import Beam, BeamShape, Output, Project, Quantity, ZoneDetector
from yaptide.simulators.base import Converted
from yaptide.simulators.mcsquare import bdl, config, ct, inputs, plan, scoring, tables
from yaptide.simulators.mcsquare.ct import CT
from yaptide.simulators.mcsquare.materials import hu_of, make_tables
from yaptide.simulators.mcsquare.scoring import Scored, ScoredOutput, Scoring
from yaptide.simulators.mcsquare.source import make_source
from yaptide.simulators.mcsquare.voxels import Space, bin_widths, fill_space, make_space

_LEAST_PRIMARIES = 10
#: The image of LET, which is averaged over deuterons and alpha particles too, if they are followed.
_PROTON_LET = "LET"
_CT = "ct.txt"  # stands for ct.mhd, which config.txt names
_JUST_BEHIND = 1e-6  # cm
_ALMOST = 0.999
_LONGEST = 2000  # characters of a refusal
_NO_RANGE = "the beam is not along z: its protons do not stop at one z"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A quantity of an output, and why it is left out, if it is."""

    output: Output
    quantity: Quantity
    reason: str | None

    def __str__(self) -> str:
        return f"Output {short(self.output.name)}, quantity {short(self.quantity.name)}: {self.reason}"


def convert_project(project: Project) -> Converted:
    """The input files; raises InvalidInput if MCsquare has no such beam or material, or can score nothing of it."""
    _check_beam(project)
    asked = list(_asked(project))
    outputs, left_out = _outputs(asked), [str(each) for each in asked if each.reason]
    _check_any(outputs, left_out)
    geometry = Geometry(project)
    space = make_space(project, [output.detector for output in outputs])
    voxels = CT(space.grid, fill_space(space, geometry))
    lost = [output for output in outputs if _is_lost(output, voxels)]
    left_out += [f"Output {short(output.name)}: no voxel's centre is in its zone" for output in lost]
    _check_any(kept := tuple(output for output in outputs if output not in lost), left_out)
    empty = tuple(number for number, material in enumerate(geometry.materials) if material.is_empty)
    scored = Scoring(space.corner, empty, kept, "" if project.beam.direction[2] > 1 - 1e-12 else _NO_RANGE)
    files = _files(project, geometry, space, voxels, scored)
    inputs.parse_inputs(files)  # what is written can be run
    return Converted(
        files, (*left_out, *_bins_left_out(kept, space), *_settings_left_out(project, scored)), space.description
    )


def _check_any(outputs: tuple[ScoredOutput, ...], left_out: list[str]) -> None:
    """Raise InvalidInput, with the reasons, if there is nothing left to score."""
    if not outputs:
        reasons = "; ".join(left_out) or "It has no outputs with quantities"
        raise InvalidInput(f"MCsquare can score nothing of this project. {reasons}"[:_LONGEST])


def _is_lost(output: ScoredOutput, voxels: CT) -> bool:
    """Whether the detector is a zone without any voxel."""
    return isinstance(output.detector, ZoneDetector) and not (voxels.hu == hu_of(output.detector.zone)).any()


def _check_beam(project: Project) -> None:
    """Raise InvalidInput for a beam that MCsquare has none of, or what else it cannot have in the beam's way."""
    beam = project.beam
    if not beam.particle.is_proton:
        raise InvalidInput(f"The beam is of {short(beam.particle.name)}: MCsquare shoots protons only")
    if beam.source is not None:
        raise InvalidInput(
            f"The beam is described by the file {short(beam.source[0])}, from which yaptide makes no input of MCsquare"
        )
    if project.special:
        raise InvalidInput(f"The project has {' and '.join(project.special)}, which yaptide does not make for MCsquare")
    first = np.array(beam.position) + _JUST_BEHIND * np.array(beam.direction)
    if Geometry(project).material_at((float(first[0]), float(first[1]), float(first[2]))).is_black_hole:
        at = " ".join(f"{part:g}" for part in beam.position)
        raise InvalidInput(f"The beam starts in a black hole, at {at} cm: no particle would get out of it")


def _asked(project: Project) -> Iterator[_Asked]:
    for output in project.outputs:
        for quantity in output.quantities:
            yield _Asked(output, quantity, _reason_against(output, quantity))


def _reason_against(output: Output, quantity: Quantity) -> str | None:
    """Why MCsquare cannot score a quantity; None if it can."""
    if output.detector is None:
        return "the output has no detector"
    if quantity.keyword not in scoring.KINDS:
        return f"MCsquare does not score {short(quantity.keyword)}"
    if quantity.modifiers:
        return f"MCsquare scores nothing differential in {' and '.join(map(short, quantity.modifiers))}"
    if quantity.extras:
        return f"yaptide does not make input of MCsquare for {' and '.join(quantity.extras)}"
    return _reason_against_filter(quantity) or scoring.reason_against(output.detector, quantity.keyword)


def _reason_against_filter(quantity: Quantity) -> str | None:
    """Why MCsquare does not score a quantity of these particles; None if it does."""
    of = quantity.filter
    if quantity.keyword == "dLET":
        if of is None or not of.is_protons:
            return f"MCsquare averages LET over all protons, primary and secondary, and not over {_whose(quantity)}"
    elif of is not None and (of.rules or of.other):
        return f"MCsquare scores it of all particles together, and not of {_whose(quantity)}"
    return None


def _whose(quantity: Quantity) -> str:
    return "all particles" if quantity.filter is None else f"those of the filter {short(quantity.filter.name)}"


def _outputs(asked: list[_Asked]) -> tuple[ScoredOutput, ...]:
    """What can be scored. An estimator with the name of an output holds its quantities up to the first gap."""
    scored: list[ScoredOutput] = []
    taken = {each.output.name for each in asked}
    for _, group in itertools.groupby(asked, key=lambda each: id(each.output)):
        quantities = list(group)
        output, detector = quantities[0].output, quantities[0].output.detector
        if detector is None:
            continue
        leading = list(itertools.takewhile(lambda each: each.reason is None, quantities))
        if leading:
            scored.append(ScoredOutput(output.name, detector, tuple(map(_scored, leading))))
        for each in quantities[len(leading) :]:
            if each.reason is None:
                name = _free(f"{output.name}: {each.quantity.name}", taken)
                taken.add(name)
                scored.append(ScoredOutput(name, detector, (_scored(each),)))
    return tuple(scored)


def _free(name: str, taken: set[str]) -> str:
    """A name that no other estimator has."""
    numbered = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(each for each in numbered if each not in taken)


def _scored(each: _Asked) -> Scored:
    filter_ = each.quantity.filter
    return Scored(each.quantity.keyword, each.quantity.name, filter_.name if filter_ else "", each.quantity.rescale)


def _bins_left_out(outputs: tuple[ScoredOutput, ...], space: Space) -> Iterator[str]:
    """Which outputs have bins that are smaller than the voxels."""
    for output in outputs:
        widths = zip(bin_widths(output.detector), space.voxel, strict=True)
        if any(width < _ALMOST * voxel for width, voxel in widths):
            yield f"Output {short(output.name)}: its bins are smaller than the voxels, and share their values"


def _settings_left_out(project: Project, scored: Scoring) -> Iterator[str]:
    """What of beam, materials and physics is not as the project asks for."""
    if _PROTON_LET in scored.images:
        yield (
            "Physics: for the LET of protons alone, deuterons and alpha particles are not followed: their energy stays "
            "where they are made, about 2 % more dose in the first centimetre of a beam of 150 MeV"
        )
    materials = {zone.name: zone.material for zone in project.zones}
    for name, material in materials.items():
        if material.ionisation is not None:
            yield f"Zone {short(name)}: MCsquare has its own mean ionisation potential of {material.name}"
        if material.own_table:
            yield f"Zone {short(name)}: MCsquare has its own stopping powers of {material.name}"
    if project.physics.straggling == "no straggling":
        yield "Physics: MCsquare cannot do without straggling of energy"
    if project.physics.scattering == "no scattering":
        yield "Physics: MCsquare cannot do without multiple scattering"
    yield from _beam_left_out(project.beam)
    for output in project.outputs:
        if output.trace:
            yield f"Output {short(output.name)}: MCsquare writes no list of particles"


def _beam_left_out(beam: Beam) -> Iterator[str]:
    if beam.focus and any(beam.divergence):
        yield "Beam: the divergence is that of its particles where they start, without a focal point"
    low, high = beam.cutoffs
    if beam.energy - 4 * beam.spread < low or beam.energy + 4 * beam.spread > high:
        yield f"Beam: the limits of its energy, {low:g} and {high:g} MeV, are not kept"
    if beam.shape is not BeamShape.GAUSSIAN and max(beam.size) > 0:
        yield "Beam: its flat shape is made of many small spots, so that its edge is not quite sharp"


def _files(project: Project, geometry: Geometry, space: Space, voxels: CT, scored: Scoring) -> dict[str, str]:
    places = [*(f"Zone {short(zone.name)}" for zone in project.zones), "The world zone", "What is around the world"]
    densities, labels = make_tables(geometry.materials, places)
    library, field = make_source(project.beam, space)
    names = config.TASK_FILES
    return {
        config.FILE: _config(project, scored),
        _CT: _legend(geometry, places) + ct.described_text(voxels),
        names["HU_Density_Conversion_File"]: tables.format_table(densities),
        names["HU_Material_Conversion_File"]: tables.format_table(labels),
        names["BDL_Machine_Parameter_File"]: bdl.format_bdl(library),
        names["BDL_Plan_File"]: plan.format_plan(field),
        scoring.FILE: scoring.formatted(scored),
    }


def _legend(geometry: Geometry, places: list[str]) -> str:
    """Comments that say which zone each HU stands for."""
    zones = enumerate(zip(places, geometry.materials, strict=True))
    return "".join(f"# HU {hu_of(zone)}: {place}, {short(material.name)}\n" for zone, (place, material) in zones)


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

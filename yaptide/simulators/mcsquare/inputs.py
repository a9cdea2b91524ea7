"""The complete input of a run: parsed from the user's files, checked as a whole, and written for a task.

MCsquare gets files that are generated from the parsed input, not copies. So both always read the same values, and line
ends, comments or blank lines that would confuse MCsquare are removed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Image, InputFiles
from yaptide.simulators.mcsquare import beam_library, config, ct, geometry, plan, scoring, tables
from yaptide.simulators.mcsquare.materials import hu_of
from yaptide.simulators.text import require_text


@dataclass(frozen=True, slots=True)
class Inputs:
    """All parsed input files."""

    config: config.Config
    ct: ct.CT
    densities: tables.Table
    materials: tables.Table
    bdl: beam_library.BDL
    plan: plan.Plan
    scoring: scoring.Scoring | None


def parse_inputs(files: InputFiles) -> Inputs:
    """Parse and check all files; raise InvalidInput with the first problem."""
    settings = config.parse_config(require_text(files, config.FILE, "The configuration file"))

    def text(key: str, what: str) -> tuple[str, str]:
        name = settings.files[key]
        return name, require_text(files, name, what)

    inputs = Inputs(
        config=settings,
        densities=tables.parse_densities(*text("HU_Density_Conversion_File", "The table of densities")),
        materials=tables.parse_materials(*text("HU_Material_Conversion_File", "The table of materials")),
        bdl=beam_library.parse_bdl(*text("BDL_Machine_Parameter_File", "The beam data library")),
        plan=plan.parse_plan(*text("BDL_Plan_File", "The treatment plan")),
        ct=ct.parse_ct(files, settings.files["CT_File"]),
        scoring=scoring.parse_scoring(files[scoring.FILE]) if scoring.FILE in files else None,
    )
    _check_together(inputs)
    return inputs


def read_image(files: InputFiles) -> Image:
    """Return the CT, or the zones of a converted project; raise InvalidInput."""
    settings = config.parse_config(require_text(files, config.FILE, "The configuration file"))
    image = ct.parse_ct(files, settings.files["CT_File"])
    grid = image.grid
    if scoring.FILE not in files:
        x, y, z = (float(grid.voxel_coordinates(axis)[0]) for axis in range(3))
        return Image(image.hu, grid.spacing, (x, y, z), "HU")
    corner = scoring.parse_scoring(files[scoring.FILE]).corner
    x, y, z = (10 * at + size / 2 for at, size in zip(corner, grid.spacing, strict=True))  # the corner is in cm
    return Image(image.hu / np.float32(hu_of(1)), grid.spacing, (x, y, z), "zone")


def write_inputs(inputs: Inputs, primaries: int, seed: int, folder: Path) -> None:
    """Write the input files of a task with `primaries` primaries into `folder`."""
    names = config.TASK_FILES
    texts = {
        config.FILE: config.format_config(inputs.config, primaries, seed),
        names["HU_Density_Conversion_File"]: tables.format_table(inputs.densities),
        names["HU_Material_Conversion_File"]: tables.format_table(inputs.materials),
        names["BDL_Machine_Parameter_File"]: beam_library.format_bdl(inputs.bdl),
        names["BDL_Plan_File"]: plan.format_plan(inputs.plan),
    }
    if inputs.scoring is not None:
        texts[scoring.FILE] = scoring.format_scoring(inputs.scoring)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    ct.write_ct(inputs.ct, folder)


def _check_together(inputs: Inputs) -> None:
    """Check conditions between files."""
    names = inputs.config.files
    lowest = float(inputs.ct.hu.min())
    if lowest < inputs.densities.lowest:
        file = names["HU_Density_Conversion_File"]
        raise InvalidInput(
            f"{file}: the table begins at HU {inputs.densities.lowest:g}, but the CT contains {lowest:g}: add a row"
        )
    if inputs.scoring is not None:
        for image in inputs.scoring.images:
            if image not in inputs.config.quantities:
                raise InvalidInput(f"{scoring.FILE} needs the line `{image}_MHD_Output True` in {config.FILE}")
    for field in inputs.plan.fields:
        _check_field(names["BDL_Plan_File"], field, inputs)


def _check_field(file: str, field: plan.Field, inputs: Inputs) -> None:
    grid, where = inputs.ct.grid, f"{file}, line {field.line}: the field"
    if geometry.misses_grid(field, grid, inputs.bdl.distances[0]):
        size = " x ".join(f"{grid.axis_length(axis):g}" for axis in range(3))
        raise InvalidInput(
            f"{where} misses the CT: its central ray, through the isocenter in mm from the CT's corner, must cross "
            f"{size} mm"
        )
    least, most = inputs.bdl.energies
    for point in field.points:
        if not least <= point.energy <= most:
            raise InvalidInput(
                f"{file}, line {point.line}: the layer has {point.energy:g} MeV, but the BDL covers {least:g} to "
                f"{most:g} MeV"
            )
    known = {(shifter.name, shifter.kind) for shifter in inputs.bdl.shifters}
    if field.shifter and field.shifter not in known:
        raise InvalidInput(f"{where} uses a range shifter that is not in the BDL: {' '.join(field.shifter)[:80]}")

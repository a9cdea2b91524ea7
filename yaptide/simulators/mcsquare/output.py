"""Parses the output of a run: its progress, whether it is valid, and its results."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yaptide.domain.errors import InvalidInput, SimulationFailed
from yaptide.domain.estimators import Axis, Estimator, Floats, Page, TaskOutput
from yaptide.simulators.base import OUTPUT_LOG, ProgressRule
from yaptide.simulators.mcsquare import config, geometry, metaimage, plan, scoring
from yaptide.simulators.mcsquare.geometry import Ray, Vector
from yaptide.simulators.mcsquare.layers import Layers, make_layers
from yaptide.simulators.mcsquare.metaimage import Grid, Header, Voxels
from yaptide.simulators.mcsquare.plan import Plan

_FOLDER = "Outputs"

#: Parts of the results of each quantity.
_CURVE, _SLICE, _GRID = "depth curve", "slice", "grid"

_DONE = re.compile(r"^Nbr primaries simulated: (\d+)(?: \((\d+) generated outside the geometry\))?", re.MULTILINE)
_ERROR = re.compile(r"^\s*(?:fatal )?error\b.*", re.MULTILINE | re.IGNORECASE)
_UNSUITABLE = "Please verify that both the operating system and the processor support"

#: MCsquare writes a line per 0.1 %; this many bytes always include the last one.
PROGRESS = ProgressRule(OUTPUT_LOG, 4096, r"^[ \t]*(\d+(?:\.\d+)?) %", _DONE.pattern)

#: A wide beam may miss a narrow phantom; a larger fraction means that the isocentre or the spots are wrong.
_MOST_OUTSIDE = 0.1


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Unit and normalisation of a quantity, and how a layer's value is computed from its voxels."""

    unit: str
    normalisation: str
    layer: str
    weighted: bool = False


_SCORERS = {
    "Dose": _Scorer("eV/g", "per primary", "mean of its voxels"),
    "Energy": _Scorer("eV", "per primary", "sum of its voxels"),
    "LET": _Scorer("keV/um", "average over dose", "mean of its voxels, weighted by dose", weighted=True),
}

#: HU half-way between air and water: if the ray enters a denser voxel, the CT is treated as a block of matter.
_MATTER = -500.0

_SIGNALS = {
    signal.SIGSEGV: "MCsquare crashed: probably it cannot read the plan, the materials or the CT",
    signal.SIGBUS: "MCsquare crashed: probably the plan is truncated",
    signal.SIGABRT: "MCsquare aborted: probably a file or memory is missing",
    signal.SIGILL: "This build of MCsquare needs a newer processor: install it again on this machine",
    signal.SIGKILL: "MCsquare was killed, most likely because memory ran out",
    signal.SIGTERM: "MCsquare was terminated before it finished",
    signal.SIGINT: "MCsquare was interrupted before it finished",
    signal.SIGXCPU: "MCsquare was stopped by the limit of CPU time",
}


@dataclass(frozen=True, slots=True)
class _View:
    """Geometry of the results: the grid, the central ray of the first field, and the layers across it."""

    grid: Grid
    ray: Ray
    layers: Layers
    no_range: str | None

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(Axis("xyz"[axis], "mm", self.grid.voxel_coordinates(axis)) for axis in range(3))


def read_output(folder: Path, exit_code: int) -> TaskOutput:
    """Return the results of a run; raise SimulationFailed if they are not valid."""
    primaries = _simulated(_log(folder), exit_code)
    try:
        settings = config.parse_config((folder / config.FILE).read_text())
        name = config.TASK_FILES["BDL_Plan_File"]
        fields = plan.parse_plan(name, (folder / name).read_text())
        name = config.TASK_FILES["CT_File"]
        header = metaimage.parse_header(name, (folder / name).read_text())
        images = {quantity: _image(folder / _FOLDER, quantity, header.grid) for quantity in settings.quantities}
        if not images["Dose"].any():
            raise SimulationFailed("MCsquare scored no dose: the beam does not reach the CT")
        estimators = _estimators(folder, header, fields, images)
    except (OSError, InvalidInput) as error:
        raise SimulationFailed(f"The results of MCsquare cannot be read: {error}") from None
    return TaskOutput(primaries, estimators)


def _estimators(folder: Path, header: Header, fields: Plan, images: dict[str, Voxels]) -> tuple[Estimator, ...]:
    """Return the results in the detectors of a project, or without detectors on the grid and along the beam."""
    detectors = folder / scoring.FILE
    if detectors.exists():
        hu = metaimage.read_voxels(header.raw, header, (folder / header.raw).read_bytes())
        return scoring.make_estimators(scoring.parse_scoring(detectors.read_text()), header.grid, images, hu)
    view = _view(folder, header, fields)
    return tuple(part for name in images for part in _of_quantity(name, images, view))


def _log(folder: Path) -> str:
    try:
        return (folder / OUTPUT_LOG).read_text(errors="replace")
    except OSError:
        return ""


def _simulated(log: str, exit_code: int) -> int:
    """Return the number of simulated primaries; raise SimulationFailed if the run failed."""
    error = _ERROR.search(log)
    reported = f": {error[0].strip()[:300]}" if error else ""
    if _UNSUITABLE in log:
        raise SimulationFailed(_SIGNALS[signal.SIGILL])
    number = exit_code - 128 if exit_code > 128 else -exit_code  # a shell reports signals as 128 + number
    if number > 0:
        messages = {int(key): message for key, message in _SIGNALS.items()}
        raise SimulationFailed(messages.get(number, f"MCsquare was ended by signal {number}") + reported)
    if exit_code or error:
        reason = f"MCsquare reports{reported}" if reported else f"MCsquare ended with exit code {exit_code}"
        raise SimulationFailed(reason)
    done = _DONE.search(log)
    primaries = int(done[1]) if done else 0
    if not done or not primaries:
        raise SimulationFailed("MCsquare simulated no primaries")
    outside = int(done[2] or 0) / primaries
    if outside > _MOST_OUTSIDE:
        raise SimulationFailed(
            f"{outside:.0%} of the protons miss the CT: check the isocenter and the spots' positions"
        )
    return primaries


def _image(folder: Path, quantity: str, grid: Grid) -> Voxels:
    own, values = metaimage.read_image(folder, f"{quantity}.mhd")
    if own.shape != grid.shape:
        raise InvalidInput(f"{quantity}.mhd has another grid than the CT")
    if not np.isfinite(values).all():
        raise InvalidInput(f"{quantity}.raw contains values that are not numbers")
    return values


def _view(folder: Path, header: Header, fields: Plan) -> _View:
    grid = header.grid
    ray = geometry.central_ray(fields.fields[0], grid)
    block = ray.is_oblique and _hu(folder / header.raw, ray.first_voxel(grid), grid) > _MATTER
    layers = make_layers(grid, ray, block=block)
    return _View(grid, ray, layers, geometry.no_range(fields, ray, layers.thickness))


def _hu(raw: Path, voxel: tuple[int, int, int], grid: Grid) -> float:
    """Return the HU of a voxel of a task's CT."""
    x, y, z = voxel
    place = x + grid.shape[0] * (y + grid.shape[1] * z)
    return float(np.fromfile(raw, dtype="<f4", count=1, offset=4 * place)[0])


def _of_quantity(quantity: str, images: dict[str, Voxels], view: _View) -> Iterator[Estimator]:
    """Yield depth curve, slice and grid as separate estimators, so that the curve can be read without the grid."""
    values, dose = images[quantity], images["Dose"]
    weighted = _SCORERS[quantity].weighted
    parts: tuple[tuple[str, tuple[Axis, ...], Floats, Floats | None], ...] = (
        (_CURVE, (view.layers.depth,), *_curve(quantity, values, dose, view.layers)),
        (
            _SLICE,
            view.layers.slice_axes,
            view.layers.cut_slice(values),
            view.layers.cut_slice(dose) if weighted else None,
        ),
        (_GRID, view.axes, values, dose if weighted else None),
    )
    for part, axes, numbers, weights in parts:
        page = Page(
            number=0,
            name=f"{quantity}, {part}",
            unit=_SCORERS[quantity].unit,
            axes=axes,
            values=np.ascontiguousarray(numbers).ravel(),
            weights=None if weights is None else np.ascontiguousarray(weights).ravel(),
            metadata=_metadata(quantity, part, view),
        )
        name = quantity if part == _CURVE else f"{quantity} {part}"
        yield Estimator(name, f"{quantity}.mhd", (page,), {"simulator": "MCsquare"})


def _curve(quantity: str, values: Voxels, dose: Voxels, layers: Layers) -> tuple[Floats, Floats | None]:
    """Return one value per layer, and its weight for an average over dose."""
    if quantity == "Dose":
        return layers.sum_layers(values) / layers.voxels, None
    if quantity == "Energy":
        return layers.sum_layers(values), None
    weight, total = layers.sum_layers(dose), layers.sum_layers(values, dose)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return mean, weight / layers.voxels


def _metadata(quantity: str, part: str, view: _View) -> dict[str, str]:
    scorer = _SCORERS[quantity]
    metadata = {"quantity": quantity, "normalisation": scorer.normalisation, "layer": scorer.layer}
    if view.ray.is_oblique and quantity == "Dose":
        metadata["layer"] = "integral over it, divided by the area of the grid as seen along the beam"
    if part != _GRID:
        metadata["beam_direction"] = _text(view.ray.direction)
        metadata["beam_entry"] = _text(view.grid.to_ct_coordinates(view.ray.entry))
    if part == _SLICE:
        metadata["slice_normal"] = _text(view.layers.slice_normal)
    if part == _CURVE and view.no_range:
        metadata["no_range"] = view.no_range
    return metadata


def _text(vector: Vector) -> str:
    return " ".join(f"{part:.6g}" for part in vector)

"""What a run leaves behind: its progress, whether it can be believed, and its scores."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yaptide.domain.errors import InvalidInput, SimulationFailed
from yaptide.domain.estimators import Axis, Estimator, Floats, Page, TaskOutput
from yaptide.simulators.base import OUTPUT_LOG, ProgressRule
from yaptide.simulators.mcsquare import config, geometry, metaimage, plan
from yaptide.simulators.mcsquare.geometry import Beam
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels

_FOLDER = "Outputs"

_DONE = re.compile(r"^Nbr primaries simulated: (\d+)(?: \((\d+) generated outside the geometry\))?", re.MULTILINE)
_ERROR = re.compile(r"^\s*(?:fatal )?error\b.*", re.MULTILINE | re.IGNORECASE)
_UNSUITABLE = "Please verify that both the operating system and the processor support"

#: MCsquare writes a line for every tenth; so many bytes surely hold the last one.
PROGRESS = ProgressRule(OUTPUT_LOG, 4096, r"^\s*(\d+(?:\.\d+)?) %", _DONE.pattern)

#: A wide beam may pass a narrow phantom; with more than this, something is wrong with the isocentre or the spots.
_MOST_OUTSIDE = 0.1


@dataclass(frozen=True, slots=True)
class _Scorer:
    """What the numbers of a quantity are, and how a layer's number comes from its voxels."""

    unit: str
    normalisation: str
    layer: str
    weighted: bool = False


_SCORERS = {
    "Dose": _Scorer("eV/g", "per primary", "mean of its voxels"),
    "Energy": _Scorer("eV", "per primary", "sum of its voxels"),
    "LET": _Scorer("keV/um", "average over dose", "mean of its voxels, weighted by dose", weighted=True),
}

_SIGNALS = {
    signal.SIGSEGV: "MCsquare crashed, as it does on a plan, material or CT that it cannot read",
    signal.SIGBUS: "MCsquare crashed, as it does on a plan that is cut short",
    signal.SIGABRT: "MCsquare gave up, as it does when a file or memory is missing",
    signal.SIGILL: "This MCsquare needs a newer processor: install it again on this machine",
    signal.SIGKILL: "MCsquare was killed, most likely because memory ran out",
    signal.SIGTERM: "MCsquare was told to stop before it was done",
    signal.SIGINT: "MCsquare was told to stop before it was done",
    signal.SIGXCPU: "MCsquare was stopped at the limit of CPU time",
}


def read(folder: Path, exit_code: int) -> TaskOutput:
    """The scores of a finished run; raises SimulationFailed if it cannot be believed."""
    primaries = _simulated(_log(folder), exit_code)
    try:
        settings = config.parse((folder / config.FILE).read_text())
        name = config.TASK_FILES["BDL_Plan_File"]
        field = plan.parse(name, (folder / name).read_text()).fields[0]
        name = config.TASK_FILES["CT_File"]
        grid = metaimage.parse_header(name, (folder / name).read_text()).grid
        images = {quantity: _image(folder / _FOLDER, quantity, grid) for quantity in settings.quantities}
    except (OSError, InvalidInput) as error:
        raise SimulationFailed(f"The results of MCsquare cannot be read: {error}") from None
    if not images["Dose"].any():
        raise SimulationFailed("MCsquare scored no dose at all: the beam does not reach the CT")
    beam = geometry.beam(field, grid)
    return TaskOutput(primaries, tuple(_estimator(name, images, beam, grid) for name in images))


def _log(folder: Path) -> str:
    try:
        return (folder / OUTPUT_LOG).read_text(errors="replace")
    except OSError:
        return ""


def _simulated(log: str, exit_code: int) -> int:
    """Primaries that were simulated, if the run went well; raises SimulationFailed."""
    error = _ERROR.search(log)
    said = f": {error[0].strip()[:300]}" if error else ""
    if _UNSUITABLE in log:
        raise SimulationFailed(_SIGNALS[signal.SIGILL])
    number = exit_code - 128 if exit_code > 128 else -exit_code  # a shell reports signals as 128 + number
    if number > 0:
        known = {int(key): words for key, words in _SIGNALS.items()}
        raise SimulationFailed(known.get(number, f"MCsquare was ended by signal {number}") + said)
    if exit_code or error:
        raise SimulationFailed(f"MCsquare reports{said}" if said else f"MCsquare ended with exit code {exit_code}")
    done = _DONE.search(log)
    primaries = int(done[1]) if done else 0
    if not done or not primaries:
        raise SimulationFailed("MCsquare simulated no primaries")
    outside = int(done[2] or 0) / primaries
    if outside > _MOST_OUTSIDE:
        raise SimulationFailed(f"{outside:.0%} of the protons miss the CT: mind the isocenter and the spots' positions")
    return primaries


def _image(folder: Path, quantity: str, grid: Grid) -> Voxels:
    own, values = metaimage.read(folder, f"{quantity}.mhd")
    if own.shape != grid.shape:
        raise InvalidInput(f"{quantity}.mhd is on another grid than the CT")
    if not np.isfinite(values).all():
        raise InvalidInput(f"{quantity}.raw holds values that are no numbers")
    return values


def _estimator(quantity: str, images: dict[str, Voxels], beam: Beam, grid: Grid) -> Estimator:
    values, dose = geometry.along(beam, images[quantity]), geometry.along(beam, images["Dose"])
    scorer = _SCORERS[quantity]
    depth = Axis("depth", "mm", grid.centres(beam.axis))
    across = Axis("xyz"[beam.transverse], "mm", grid.centres(beam.transverse))
    space = tuple(Axis("xyz"[axis], "mm", grid.centres(axis)) for axis in range(3))
    parts: tuple[tuple[str, tuple[Axis, ...], Floats, Floats], ...] = (
        ("depth curve", (depth,), _layers(quantity, values, dose), dose.mean(axis=(1, 2), dtype=np.float64)),
        ("slice", (across, depth), values[:, :, beam.cut], dose[:, :, beam.cut]),
        ("grid", space, images[quantity], images["Dose"]),
    )
    pages = tuple(
        Page(
            number=number,
            name=f"{quantity}, {part}",
            unit=scorer.unit,
            axes=axes,
            values=np.ascontiguousarray(numbers).ravel(),
            weights=np.ascontiguousarray(weights).ravel() if scorer.weighted else None,
            metadata={"quantity": quantity, "normalisation": scorer.normalisation, "layer": scorer.layer},
        )
        for number, (part, axes, numbers, weights) in enumerate(parts)
    )
    return Estimator(quantity, f"{quantity}.mhd", pages, {"simulator": "MCsquare"})


def _layers(quantity: str, values: Floats, dose: Floats) -> Floats:
    """One number for each depth, from the voxels of that layer."""
    if quantity == "Dose":
        return np.asarray(values.mean(axis=(1, 2), dtype=np.float64))
    if quantity == "Energy":
        return np.asarray(values.sum(axis=(1, 2), dtype=np.float64))
    weight = dose.sum(axis=(1, 2), dtype=np.float64)
    total = np.sum(values * dose.astype(np.float64), axis=(1, 2))
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 0))

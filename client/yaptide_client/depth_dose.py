"""Ranges of protons from depth-dose curves, and which pages are such curves."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from yaptide_client.errors import InvalidInput, NotFound
from yaptide_client.estimators import Axis, Floats, Page

#: Metadata key of a page: why no range can be determined from it, whatever its curve looks like.
NO_RANGE = "no_range"

#: The range is R80: the depth behind the peak where the dose has fallen to this fraction of the maximum. R80 hardly
#: depends on the energy spread of the beam: B. Gottschalk, "Passive Beam Spreading in Proton Radiation Therapy", 2004.
_DISTAL = 0.8

#: Units of length in mm.
_LENGTHS = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "mm": 1.0, "cm": 10.0, "dm": 100.0, "m": 1000.0}

#: Absorbed or equivalent dose, also per primary: Gy, mSv, MeV/g, (GeV/g)/primary, J/kg.
_DOSE_UNIT = re.compile(r"\W*(?:[numckµμ]?(?:Gy|Sv)|[kMG]?eV\s*/\s*[mk]?g|[mk]?J\s*/\s*[mk]?g)\b", re.IGNORECASE)
_NO_UNIT = {"", "1", "%", "a.u."}

#: Other words in the name of an axis along z: "Position (Z)", "Z [cm]".
_BESIDE_Z = {"position", "pos", "axis", "coordinate", "nm", "um", "mm", "cm", "dm", "m"}

_FINEST = 9


@dataclass(frozen=True, slots=True)
class Range:
    """The range of protons according to a depth-dose curve, in mm.

    `depth_mm` is the depth of the maximum dose, `r80_mm` the depth behind it where the dose has fallen to 80 % of the
    maximum, `bin_mm` the distance of the two depths between which R80 is interpolated.
    """

    depth_mm: float
    r80_mm: float
    bin_mm: float

    def format_length(self, length_mm: float) -> str:
        """Return a length with its unit, rounded to the power of ten nearest to a tenth of `bin_mm`.

        R80 is interpolated within a bin: 1 mm bins give 0.1 mm, 1 cm bins 1 mm.
        """
        digits = min(-round(math.log10(self.bin_mm) - 1), _FINEST)
        return f"{round(length_mm, digits):.{max(digits, 0)}f} mm"

    def __str__(self) -> str:
        peak, r80 = self.format_length(self.depth_mm), self.format_length(self.r80_mm)
        return f"Bragg peak at {peak}, R80 = {r80} (bins of {self.bin_mm:.6g} mm)"


def length_in_mm(unit: str) -> float | None:
    """Return the mm in a unit of length, written as `cm` or `[cm]`; None if the unit is unknown."""
    return _LENGTHS.get(unit.strip().strip("[]() "))


def is_depth_curve(page: Page) -> bool:
    """Return whether a page is a depth-dose curve: dose on one axis along the beam.

    It may be an integral depth dose or a dose on the central axis. A page with `NO_RANGE` in its metadata also counts.
    """
    if page.dimension != 1 or not _scores_dose(page):
        return False
    return NO_RANGE in page.metadata or _is_along_beam(page.axes[0])


def _scores_dose(page: Page) -> bool:
    """Return whether a page scores dose: by its unit, or without a unit by the name of the page or scorer."""
    names = f"{page.name} {page.metadata.get('dettyp', '')}".lower()
    return bool(_DOSE_UNIT.match(page.unit)) or (page.unit.strip() in _NO_UNIT and "dose" in names)


def _is_along_beam(axis: Axis) -> bool:
    """Return whether an axis is depth by its name, or z, the beam axis of the other codes."""
    words = set(re.findall(r"[a-zµμ]+", axis.name.lower()))
    return "depth" in words or ("z" in words and words <= _BESIDE_Z | {"z"})


def read_range(page: Page) -> Range:
    """Return the range of a depth-dose curve (`is_depth_curve`); raise NotFound with the reason if it has none."""
    if NO_RANGE in page.metadata:
        raise NotFound(str(page.metadata[NO_RANGE]))
    (axis,) = page.axes
    scale = length_in_mm(axis.unit)
    if scale is None:
        raise NotFound(f"unknown unit of length {axis.unit!r} for depths")
    with np.errstate(over="ignore"):  # `_fall_off` detects the infinity
        depths = axis.values * scale
    try:
        peak, after, r80 = _fall_off(depths, page.values)
    except InvalidInput as error:
        raise NotFound(str(error)) from error
    return Range(float(depths[peak]), r80, float(depths[after] - depths[after - 1]))


def read_fall_off(page: Page, parts: Sequence[float]) -> dict[float, float]:
    """Return the depths in mm behind the peak of a curve (`read_range`) where the dose is a part of the maximum.

    Interpolated linearly, like R80. A part to which the dose does not fall is left out; no part at all if the curve has
    no range.
    """
    try:
        read_range(page)
    except NotFound:
        return {}
    depths = page.axes[0].values * (length_in_mm(page.axes[0].unit) or math.nan)
    fall_offs = {}
    for part in parts:
        with suppress(InvalidInput):
            fall_offs[part] = _fall_off(depths, page.values, part)[2]
    return fall_offs


def bragg_peak(depths: Floats, doses: Floats) -> tuple[float, float]:
    """Return the depth of the maximum dose, and R80: the depth behind it where the dose has fallen to 80 % of it.

    `depths` (ascending, in any unit, which is also the unit of the result) and `doses` (any unit) have shape (n,). R80
    is interpolated linearly between depths. Raises InvalidInput if the curve has no peak with a distal fall-off, or a
    dose before it is missing (not finite).
    """
    peak, _, r80 = _fall_off(depths, doses)
    return float(depths[peak]), r80


def _fall_off(depths: Floats, doses: Floats, part: float = _DISTAL) -> tuple[int, int, float]:
    """Return the index of the maximum, the index of the first depth behind it with `part` of it, and that depth."""
    depths, doses = np.asarray(depths, dtype=np.float64), np.asarray(doses, dtype=np.float64)
    if depths.ndim != 1 or depths.shape != doses.shape or not np.isfinite(depths).all():
        raise InvalidInput("A depth-dose curve needs as many depths as doses, and all depths must be finite")
    with np.errstate(over="ignore"):
        steps = np.diff(depths)
    if not depths.size or not np.all((steps > 0) & np.isfinite(steps)):
        raise InvalidInput("The depths of a depth-dose curve must ascend")
    known = np.isfinite(doses)
    peak = int(np.argmax(np.where(known, doses, -np.inf)))
    level = part * doses[peak]
    below = np.flatnonzero(doses[peak:] <= level)
    if not doses[peak] > 0 or not below.size:
        raise InvalidInput("The depth-dose curve has no peak with a distal fall-off")
    after = peak + int(below[0])
    if not known[: after + 1].all():
        raise InvalidInput("The depth-dose curve has missing values before its fall-off")
    with np.errstate(over="ignore"):
        fraction = (doses[after - 1] - level) / (doses[after - 1] - doses[after])
    return peak, after, float(depths[after - 1] + fraction * (depths[after] - depths[after - 1]))

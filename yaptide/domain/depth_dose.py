"""Numbers that physicists read off a depth-dose curve."""

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import Floats

#: The protons' range is the depth behind the peak at which the dose has fallen to this part of the maximum. It hardly
#: moves with the spread of the beam's energy: B. Gottschalk, "Passive Beam Spreading in Proton Radiation Therapy",
#: 2004.
_DISTAL = 0.8


def bragg_peak(depths: Floats, doses: Floats) -> tuple[float, float]:
    """Depth of the largest dose, and R80: the depth behind it where the dose has fallen to 80 % of that.

    `depths` (ascending, mm) and `doses` (any unit) have the shape (n,). R80 is interpolated linearly between depths.
    Raises InvalidInput if the curve has no peak with a distal fall-off.
    """
    depths, doses = np.asarray(depths, dtype=np.float64), np.asarray(doses, dtype=np.float64)
    if depths.ndim != 1 or depths.shape != doses.shape or not (np.isfinite(depths).all() and np.isfinite(doses).all()):
        raise InvalidInput("A depth-dose curve needs as many depths as doses, all of them numbers")
    if not depths.size or np.any(np.diff(depths) <= 0):
        raise InvalidInput("The depths of a depth-dose curve must ascend")
    peak = int(np.argmax(doses))
    level = _DISTAL * doses[peak]
    below = np.flatnonzero(doses[peak:] <= level)
    if doses[peak] <= 0 or not below.size:
        raise InvalidInput("The depth-dose curve has no peak with a distal fall-off")
    after = peak + int(below[0])
    part = (doses[after - 1] - level) / (doses[after - 1] - doses[after])
    return float(depths[peak]), float(depths[after - 1] + part * (depths[after] - depths[after - 1]))

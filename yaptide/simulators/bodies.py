"""Bodies of combinatorial geometry, as SHIELD-HIT12A and FLUKA describe them."""

import math
from collections.abc import Sequence

import numpy as np

from yaptide.editor.project import Figure, Solid

_ALONG_AXES = 1 - 1e-12


def describe_body(body: Figure) -> tuple[str, list[float]]:
    """Return type and parameters of a body, in cm.

    SPH: centre, radius. RCC: centre of the base, vector to the other base, radius. RPP: limits along x, y, z. BOX: a
    corner, and the vectors along three edges.
    """
    centre, axes, half = np.array(body.centre), body.axes, np.array(body.size) / 2
    if body.solid is Solid.SPHERE:
        return "SPH", [*body.centre, body.radius]
    if body.solid is Solid.CYLINDER:
        base = centre - half[2] * axes[:, 2]
        return "RCC", [*base.tolist(), *(body.size[2] * axes[:, 2]).tolist(), body.radius]
    if np.abs(axes).max(axis=0).min() > _ALONG_AXES:
        reach = np.abs(axes) @ half
        return "RPP", np.stack([centre - reach, centre + reach], axis=1).ravel().tolist()
    edges = axes * np.array(body.size)
    return "BOX", [*(centre - edges.sum(axis=1) / 2).tolist(), *edges.T.ravel().tolist()]


def measure_body(kind: str, values: Sequence[float]) -> list[float]:
    """Return the thicknesses of a body, cm: sides of RPP and BOX, height and radius of RCC, radius of SPH."""
    if kind == "RPP":
        return [high - low for low, high in zip(values[::2], values[1::2], strict=True)]
    if kind == "SPH":
        return [values[3]]
    sides = [math.hypot(*values[first : first + 3]) for first in range(3, len(values) - 2, 3)]
    return [*sides, values[6]] if kind == "RCC" else sides

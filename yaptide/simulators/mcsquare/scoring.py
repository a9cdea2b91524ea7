"""Results in the detectors of a project instead of on the grid: the input file ``scoring.json``.

It contains the corner of the grid, the numbers of the empty zones, and the detector and quantities of each estimator. A
bin is the mean of its voxels, weighted by the part of its volume that each fills, as if the dose were constant in a
voxel.
"""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.depth_dose import NO_RANGE
from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import Axis, Estimator, Floats, Page
from yaptide.editor.project import Cylinder, Detector, Everywhere, Mesh, Vector, ZoneDetector
from yaptide.editor.sections import Section, quote_text
from yaptide.simulators.mcsquare.materials import hu_of
from yaptide.simulators.mcsquare.metaimage import Grid, Voxels

FILE = "scoring.json"

Doubles = NDArray[np.float64]

_MM, _MOST, _MOST_BINS, _MOST_BYTES = 10.0, 1000, 10**7, 10**7
_MEV_PER_EV = 1e-6
_GY_PER_EV_PER_G = 1.602176634e-16
_MEV_PER_CM_PER_KEV_PER_UM = 10.0

#: Points along a side of a voxel, to determine the part of the voxel in a ring.
_FEWEST_POINTS, _MOST_POINTS = 8, 32
_MOST_IN_ALL = 2 * 10**7


@dataclass(frozen=True, slots=True)
class _Kind:
    """How an image of MCsquare is converted: its name there and here, unit, factor, and how voxels combine."""

    image: str
    name: str
    unit: str
    factor: float
    normalisation: str = "per primary"
    is_sum: bool = False
    is_weighted: bool = False


KINDS = {
    "Dose": _Kind("Dose", "DOSE", "MeV/g", _MEV_PER_EV),
    "DoseGy": _Kind("Dose", "DOSE", "Gy", _GY_PER_EV_PER_G),
    "Energy": _Kind("Energy", "ENERGY", "MeV", _MEV_PER_EV, is_sum=True),
    "dLET": _Kind("LET", "DLET", "MeV/cm", _MEV_PER_CM_PER_KEV_PER_UM, "average over dose", is_weighted=True),
}


@dataclass(frozen=True, slots=True)
class Scored:
    """A quantity of an output: `quantity` is a key of KINDS, `name` is chosen by the user."""

    quantity: str
    name: str
    filter: str
    rescale: float


@dataclass(frozen=True, slots=True)
class ScoredOutput:
    """An estimator: its name, its detector, and a page for each quantity."""

    name: str
    detector: Detector
    pages: tuple[Scored, ...]


@dataclass(frozen=True, slots=True)
class Scoring:
    """The whole file: `corner` of the grid in cm, numbers of the `empty` zones, and the estimators.

    In vacuum and in black holes nothing is scored, whatever MCsquare scores in the materials that replace them.
    `no_range` is the reason why depth-dose curves along z have no range; empty if they have one.
    """

    corner: Vector
    empty: tuple[int, ...]
    outputs: tuple[ScoredOutput, ...]
    no_range: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """The images of MCsquare that are needed."""
        return tuple({"Dose": None} | {KINDS[page.quantity].image: None for out in self.outputs for page in out.pages})


def format_scoring(scoring: Scoring) -> str:
    """Return the text of the file."""
    document = asdict(scoring)
    for output, written in zip(scoring.outputs, document["outputs"], strict=True):
        written["detector"] = {"kind": _DETECTORS[type(output.detector)], **written["detector"]}
    return json.dumps(document, indent=1) + "\n"


_DETECTORS: dict[type, str] = {Mesh: "mesh", Cylinder: "cylinder", ZoneDetector: "zone", Everywhere: "everywhere"}


def parse_scoring(text: str) -> Scoring:
    """Parse the file; raise InvalidInput."""
    whole = Section("document", _document(text), FILE)
    outputs = tuple(_output(output) for output in whole.read_sections("outputs", "output", _MOST))
    names = [output.name for output in outputs]
    if len(set(names)) < len(names) or not names:
        raise whole.make_error("outputs must have names, and all of them must differ")
    empty = Section("document", {"empty": whole.read_list("empty", 10 * _MOST)}, FILE)
    numbers = tuple(
        Section("empty", {"zone": zone}, FILE).read_integer("zone", None, 0, 10**5) for zone in empty.values["empty"]
    )
    return Scoring(whole.read_vector("corner"), numbers, outputs, whole.read_text("no_range")[:300])


def _document(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text) if len(text) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{FILE}: must be a JSON object, as written by `yaptide convert`")
    return document


def _output(output: Section) -> ScoredOutput:
    pages = tuple(_scored(page) for page in output.read_sections("pages", "page", _MOST))
    if not output.read_text("name") or not pages:
        raise output.make_error("name or pages are missing")
    return ScoredOutput(output.read_text("name"), _detector(output.read_section("detector")), pages)


def _scored(page: Section) -> Scored:
    quantity = page.read_text("quantity")
    if quantity not in KINDS:
        raise page.make_error(f"quantity must be one of {', '.join(KINDS)}, not {quote_text(quantity)}")
    return Scored(
        quantity, page.read_text("name"), page.read_text("filter"), page.read_number("rescale", 1.0, -1e300, 1e300)
    )


def _detector(detector: Section) -> Detector:
    name, kind = detector.read_text("name"), detector.read_text("kind")
    if kind == "everywhere":
        return Everywhere(name)
    if kind == "zone":
        return ZoneDetector(name, detector.read_integer("zone", None, 0, 10**5))
    centre = detector.read_vector("centre")
    if kind == "mesh":
        x, y, z = (_positive(detector, "size", index) for index in range(3))
        nx, ny, nz = _bins(detector, 3)
        return Mesh(name, centre, (x, y, z), (nx, ny, nz))
    if kind == "cylinder":
        inner, radius = detector.read_number("inner", None, 0), detector.read_number("radius", None, 1e-9)
        if inner >= radius:
            raise detector.make_error("inner must be smaller than radius")
        rings, layers = _bins(detector, 2)
        return Cylinder(name, centre, inner, radius, detector.read_number("depth", None, 1e-9), (rings, layers))
    raise detector.make_error(f"kind must be one of {', '.join(_DETECTORS.values())}, not {quote_text(kind)}")


def _positive(detector: Section, key: str, index: int) -> float:
    return Section(detector.place, {key: detector.read_vector(key)[index]}, detector.document).read_number(
        key, None, 1e-9
    )


def _bins(detector: Section, count: int) -> tuple[int, ...]:
    values = detector.read_list("bins", count)
    bins = tuple(
        Section(detector.place, {"bins": value}, detector.document).read_integer("bins", None, 1, _MOST_BINS)
        for value in values
    )
    if len(bins) != count or math.prod(bins) > _MOST_BINS:
        raise detector.make_error(f"bins must be {count} numbers with a product of at most {_MOST_BINS}")
    return bins


def reason_against(detector: Detector, quantity: str) -> str | None:
    """Return why a quantity cannot be scored in a detector; None if it can."""
    if isinstance(detector, Everywhere) and quantity in ("Dose", "DoseGy"):
        return "dose cannot be averaged without a volume: the detector covers everything"
    return None


def make_estimators(scoring: Scoring, grid: Grid, images: Mapping[str, Voxels], hu: Voxels) -> tuple[Estimator, ...]:
    """Return the estimators, from images and HU of shape (nz, ny, nx)."""
    scored = ~np.isin(hu, [hu_of(zone) for zone in scoring.empty])
    masked: dict[str, Floats] = {name: np.where(scored, image, np.float32(0)) for name, image in images.items()}
    if "LET" in masked:
        masked["LET"] = masked["LET"] * masked["Dose"].astype(np.float64)
    return tuple(_Scorer(scoring, output, grid, hu).make_estimator(masked) for output in scoring.outputs)


class _Scorer:
    """A detector on the grid."""

    def __init__(self, scoring: Scoring, output: ScoredOutput, grid: Grid, hu: Voxels) -> None:
        self._scoring, self._output, self._grid, self._hu = scoring, output, grid, hu

    def make_estimator(self, images: Mapping[str, Floats]) -> Estimator:
        """Return the estimator, from images that are 0 where nothing is scored; LET must be multiplied by the dose."""
        axes = tuple(axis for axis in _axes(self._output.detector) if axis.values.size > 1)
        pages = tuple(self._page(number, scored, axes, images) for number, scored in enumerate(self._output.pages))
        return Estimator(self._output.name, self._output.name, pages, {"simulator": "MCsquare"})

    def _page(self, number: int, scored: Scored, axes: tuple[Axis, ...], images: Mapping[str, Floats]) -> Page:
        kind = KINDS[scored.quantity]
        values = self._means(images[kind.image])
        weights = None
        if kind.is_sum:
            values = values * self._voxels()
        if kind.is_weighted:
            weights = self._means(images["Dose"])
            values = np.divide(values, weights, out=np.zeros_like(values), where=weights > 0)
        return Page(
            *(number, kind.name, kind.unit, axes, values * (kind.factor * scored.rescale)),
            weights=weights,
            metadata=self._metadata(scored, kind, axes),
        )

    def _metadata(self, scored: Scored, kind: _Kind, axes: tuple[Axis, ...]) -> dict[str, str]:
        spacing = " x ".join(f"{size:.4g}" for size in self._grid.spacing)
        metadata = {"dettyp": kind.name, "quantity": scored.name, "normalisation": kind.normalisation}
        metadata["voxels"] = f"{spacing} mm"
        if scored.filter:
            metadata["filter"] = scored.filter
        if len(axes) == 1 and self._scoring.no_range:
            metadata[NO_RANGE] = self._scoring.no_range
        return metadata

    def _means(self, voxels: Floats) -> Doubles:
        """Return the mean in each bin, shape (bins,), first axis fastest."""
        detector = self._output.detector
        if isinstance(detector, Mesh):
            return _mesh_means(voxels, self._grid, self._scoring.corner, detector)
        if isinstance(detector, Cylinder):
            return _ring_means(voxels, self._grid, self._scoring.corner, detector)
        inside = voxels[self._hu == hu_of(detector.zone)] if isinstance(detector, ZoneDetector) else voxels
        return np.array([inside.mean(dtype=np.float64) if inside.size else math.nan])

    def _voxels(self) -> Doubles:
        """Return the volume of each bin in voxels, shape (bins,) or ()."""
        detector = self._output.detector
        voxel = math.prod(size / _MM for size in self._grid.spacing)
        if isinstance(detector, Mesh):
            return np.array(math.prod(detector.size) / math.prod(detector.bins) / voxel)
        if isinstance(detector, Cylinder):
            edges = np.linspace(detector.inner, detector.radius, detector.bins[0] + 1)
            rings = np.pi * np.diff(edges**2) * detector.depth / detector.bins[1]
            return np.tile(rings / voxel, detector.bins[1])
        if isinstance(detector, ZoneDetector):
            return np.array(np.count_nonzero(self._hu == hu_of(detector.zone)))
        return np.array(self._hu.size)


def _axes(detector: Detector) -> tuple[Axis, ...]:
    """Return the axes of a detector, first axis fastest, including those with one bin."""
    if isinstance(detector, Mesh):
        sides = zip("XYZ", detector.centre, detector.size, detector.bins, strict=True)
        return tuple(_axis(f"Position ({name})", at - size / 2, size, bins) for name, at, size, bins in sides)
    if isinstance(detector, Cylinder):
        rings, layers = detector.bins
        radius = _axis("Radius (R)", detector.inner, detector.radius - detector.inner, rings)
        return (radius, _axis("Position (Z)", detector.centre[2] - detector.depth / 2, detector.depth, layers))
    return ()


def _axis(name: str, low: float, size: float, bins: int) -> Axis:
    return Axis(name, "cm", low + (np.arange(bins) + 0.5) * (size / bins))


def _mesh_means(voxels: Floats, grid: Grid, corner: Vector, mesh: Mesh) -> Doubles:
    means = np.asarray(voxels, dtype=np.float64)
    for axis in sorted(range(3), key=lambda axis: mesh.bins[axis] / grid.shape[axis]):
        low = mesh.centre[axis] - mesh.size[axis] / 2
        edges = low + np.arange(mesh.bins[axis] + 1) * (mesh.size[axis] / mesh.bins[axis])
        means = _resampled(means, 2 - axis, corner[axis], grid.spacing[axis] / _MM, edges)
    return np.ascontiguousarray(means).ravel()


def _resampled(values: Doubles, axis: int, low: float, step: float, edges: Floats) -> Doubles:
    """Return means between `edges` along an axis, of values that are constant in steps from `low`, and 0 elsewhere.

    The integral up to a point is known at the ends of the steps, and linear between them.
    """
    values = np.moveaxis(values, axis, 0)
    integral = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)]) * step
    place = np.clip((edges - low) / step, 0, len(values))
    place = np.where(np.abs(place - np.round(place)) < 1e-9 * (1 + place), np.round(place), place)
    index = np.minimum(place.astype(np.intp), len(values) - 1)
    part = (place - index).reshape(-1, *[1] * (values.ndim - 1))
    at_edges = integral[index] * (1 - part) + integral[index + 1] * part
    widths = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    return np.moveaxis(np.diff(at_edges, axis=0) / widths, 0, axis)


def _ring_means(voxels: Floats, grid: Grid, corner: Vector, rings: Cylinder) -> Doubles:
    """Return the means in rings of each slice of voxels, resampled along z."""
    ring, pixel, part = _parts_in_rings(grid, corner, rings)
    means = np.empty((grid.shape[2], rings.bins[0]))
    for layer, of_layer in zip(voxels.reshape(grid.shape[2], -1), means, strict=True):
        of_layer[:] = np.bincount(ring, layer[pixel] * part, rings.bins[0])
    low = rings.centre[2] - rings.depth / 2
    edges = low + np.arange(rings.bins[1] + 1) * (rings.depth / rings.bins[1])
    return np.ascontiguousarray(_resampled(means, 0, corner[2], grid.spacing[2] / _MM, edges)).ravel()


def _parts_in_rings(grid: Grid, corner: Vector, rings: Cylinder) -> tuple[NDArray[np.intp], NDArray[np.intp], Doubles]:
    """Return pairs of a ring and a row of voxels along z (its number), and the part of the ring that the row fills.

    The parts are determined with points distributed over the rows. Those of a ring within the grid add up to 1; a ring
    so thin that it contains no point has NaN in one row.
    """
    width = (rings.radius - rings.inner) / rings.bins[0]
    step = [size / _MM for size in grid.spacing[:2]]
    low = [corner[axis] - rings.centre[axis] for axis in range(2)]
    rows = grid.shape[0] * grid.shape[1]
    wanted = min(max(math.ceil(4 * max(step) / width), _FEWEST_POINTS), _MOST_POINTS)
    points = max(1, min(wanted, math.isqrt(_MOST_IN_ALL // rows)))
    pixels = np.arange(rows).reshape(grid.shape[1], grid.shape[0])
    keys_of_points = []
    for i, j in itertools.product(range(points), repeat=2):
        x, y = (
            low[axis] + (np.arange(grid.shape[axis]) + (at + 0.5) / points) * step[axis]
            for axis, at in ((0, i), (1, j))
        )
        ring = np.floor((np.hypot(x, y[:, None]) - rings.inner) / width)
        inside = (ring >= 0) & (ring < rings.bins[0])
        keys_of_points.append(ring[inside].astype(np.intp) * rows + pixels[inside])
    keys, counts = np.unique(np.concatenate(keys_of_points), return_counts=True)
    ring, pixel = np.divmod(keys, rows)
    return _whole(ring, pixel, counts * math.prod(step) / points**2, grid, low, rings)


def _whole(
    ring: NDArray[np.intp], pixel: NDArray[np.intp], area: Doubles, grid: Grid, low: list[float], rings: Cylinder
) -> tuple[NDArray[np.intp], NDArray[np.intp], Doubles]:
    """Convert areas to parts of rings: of the sampled area if a ring is within the grid, else of its exact area."""
    edges = np.linspace(rings.inner, rings.radius, rings.bins[0] + 1)
    reach = min(min(-low[axis], low[axis] + grid.axis_length(axis) / _MM) for axis in range(2))
    sampled = np.bincount(ring, area, rings.bins[0])
    within = edges[1:] <= reach
    ring_areas = np.where(within, sampled, np.pi * np.diff(edges**2))
    thin = np.flatnonzero(within & (sampled == 0))
    parts = area / ring_areas[ring]
    return np.append(ring, thin), np.append(pixel, np.zeros_like(thin)), np.append(parts, np.full(thin.size, math.nan))

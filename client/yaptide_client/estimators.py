"""Results as numbers: axes, pages, estimators.

An undefined value (0/0 in an average, an infinity) is NaN in arrays. In documents, which browsers draw without checking
for such values, it is a 0 listed in `data.missing`; if no value of a page is defined, its unit says so too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yaptide_client.errors import InvalidInput

Floats = NDArray[np.floating[Any]]

#: Unit in documents of a page without defined values; the real unit is in its metadata.
NO_VALUE = "(no value)"


class Aggregation(StrEnum):
    """How a page of several tasks is merged."""

    MEAN = "mean"  # quantities per primary: mean weighted by primaries
    SUM = "sum"  # counts
    CONCATENATE = "concatenate"  # lists of particles
    NONE = "none"  # equal in all tasks: the page of the first task is used


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a page.

    `values` are the centres of its bins, shape (n,), in `unit`.
    """

    name: str
    unit: str
    values: Floats

    def __repr__(self) -> str:
        """Show the name, the unit and the number of bins."""
        return f"<Axis {self.name} [{self.unit}]: {self.values.size} bins>"


@dataclass(frozen=True, slots=True)
class Page:
    """A quantity on a grid of 0 to 3 axes.

    `values` is flat, shape (n1*n2*n3,), in `unit`, and the first axis varies fastest: ``values[i1 + n1*(i2 + n2*i3)]``;
    NaN is an undefined value. A list of particles (`Aggregation.CONCATENATE`) has no axes and any number of values, row
    by row; ``metadata["columns"]`` is the length of a row.
    `errors` is the standard error of each value, same shape and unit, NaN where unknown, or None if unknown everywhere
    (a single task).
    `weights` (same shape, any unit) is set for an average over something other than primaries: in the merge each task
    then counts with primaries x weights. LET, for example, is averaged over deposited energy and weighted by dose.
    """

    number: int
    name: str
    unit: str
    axes: tuple[Axis, ...]
    values: Floats
    errors: Floats | None = None
    weights: Floats | None = None
    aggregation: Aggregation = Aggregation.MEAN
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Show what the page is, without its arrays."""
        return f"<Page {self.number}: {self.name} [{self.unit}] on {list(self.axes)}, {self.values.size} values>"

    @property
    def dimension(self) -> int:
        """Number of axes, 0 to 3."""
        return len(self.axes)

    def document(self) -> dict[str, Any]:
        """Return the page as it is stored and returned by `GET /results`; arrays are left to the JSON encoder."""
        data: dict[str, Any] = {"name": self.name, **written_values(self.values, self.unit)}
        if self.errors is not None:
            data["errors"] = self.errors
        axes = {
            f"axis_dim{number}": {"name": axis.name, "unit": axis.unit, "values": axis.values}
            for number, axis in enumerate(self.axes, start=1)
        }
        own = {
            "page_number": str(self.number),
            "name": self.name,
            "unit": self.unit,
            "aggregation": str(self.aggregation),
        }
        return {"dimensions": self.dimension, "data": data, **axes, "metadata": {**self.metadata, **own}}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Page":
        """Return the page in a document written by `document` or a worker; raise InvalidInput if it is not a page."""
        try:
            data, metadata = document["data"], dict(document.get("metadata", {}))
            axes = [document[f"axis_dim{number}"] for number in range(1, int(document["dimensions"]) + 1)]
            unit = str(data.get("unit", ""))
            return cls(
                number=int(metadata.get("page_number", 0)),
                name=str(metadata.get("name", data.get("name", ""))),
                unit=str(metadata.get("unit", "")) if unit == NO_VALUE else unit,
                axes=tuple(Axis(a.get("name", ""), a.get("unit", ""), np.asarray(a["values"], float)) for a in axes),
                values=_read_values(data),
                errors=np.asarray(data["errors"], dtype=np.float64).ravel() if "errors" in data else None,
                aggregation=aggregation_of(metadata),
                metadata=metadata,
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InvalidInput(f"Not a page of results: {error!r}") from error

    def grid(self) -> Floats:
        """Return the values with one index per axis, shape (n1, n2, n3); shape (n,) without axes."""
        return self.values.reshape([len(axis.values) for axis in self.axes] or [-1], order="F")


def aggregation_of(metadata: Mapping[str, Any]) -> Aggregation:
    """Return how a page with this metadata is merged; raise ValueError for an unknown aggregation.

    SHIELD-HIT12A and pymchelper use the key `page_normalized`; 4 means a list of particles.
    """
    if "aggregation" in metadata:
        return Aggregation(metadata["aggregation"])
    return Aggregation.CONCATENATE if str(metadata.get("page_normalized")) == "4" else Aggregation.MEAN


def written_values(values: Floats, unit: str) -> dict[str, Any]:
    """Return the keys of a document for `values`: unit, values, and the undefined ones, if any."""
    exists = np.isfinite(values)
    if exists.all():
        return {"unit": unit, "values": values}
    unit = unit if exists.any() else NO_VALUE
    return {"unit": unit, "values": np.where(exists, values, 0.0), "missing": missing_ranges(exists)}


def missing_ranges(exists: NDArray[np.bool_]) -> list[list[int]]:
    """Return the inclusive ranges of indices where `exists`, shape (n,), is False."""
    edges = np.flatnonzero(np.diff(exists.view(np.int8), prepend=np.int8(1), append=np.int8(1)))
    return [[first, end - 1] for first, end in edges.reshape(-1, 2).tolist()]


def mark_missing(values: Floats, ranges: Iterable[Iterable[int]]) -> Floats:
    """Return `values` with NaN in inclusive `ranges` of indices; raise ValueError for invalid ranges."""
    marked = np.array(values, dtype=np.float64)
    for first, last in ranges:
        if not 0 <= first <= last < len(marked):
            raise ValueError(f"{first} to {last} is not a range of {len(marked)} values")
        marked[first : last + 1] = np.nan
    return marked


def _read_values(data: Mapping[str, Any]) -> Floats:
    """Return the values of a document: integers if all of them are, because doubles lose digits above 2**53."""
    values = np.asarray(data["values"])
    if values.dtype.kind not in "iu" or not values.size:
        values = np.asarray(data["values"], dtype=np.float64)
    values = values.ravel()
    return mark_missing(values, data["missing"]) if data.get("missing") else values


@dataclass(frozen=True, slots=True)
class Estimator:
    """The output of a scorer: `name` for users, `file_name` from the simulator, and pages by number."""

    name: str
    file_name: str
    pages: tuple[Page, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

"""Scores as numbers: axes, pages, estimators, and what one task leaves behind.

A value that does not exist (0/0 in an average, an infinity) is NaN in arrays. In documents, which browsers draw without
looking for such values, it is a 0 that `data.missing` names; if no value of a page exists, its unit says so too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput

Floats = NDArray[np.floating[Any]]

#: The unit of a page in documents if none of its values exists; the true one stays in its metadata.
NO_VALUE = "(no value)"


class Aggregation(StrEnum):
    """How the same page of several tasks becomes one page."""

    MEAN = "mean"  # quantities per primary: mean weighted by primaries
    SUM = "sum"  # counts
    CONCATENATE = "concatenate"  # lists of particles
    NONE = "none"  # the same in every task: the first one is taken


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a page.

    `values` are the centres of its bins, shape (n,), in `unit`.
    """

    name: str
    unit: str
    values: Floats


@dataclass(frozen=True, slots=True)
class Page:
    """One quantity on a grid of 0 to 3 axes.

    `values` is flat, shape (n1*n2*n3,), in `unit`, and the first axis varies fastest: ``values[i1 + n1*(i2 + n2*i3)]``;
    NaN is a value that does not exist. A list of particles (`Aggregation.CONCATENATE`) has no axes and any number of
    values, row by row; ``metadata["columns"]`` tells how many a row has.
    `errors` is the standard error of each value, same shape and unit, NaN where it is not known, or None if it is known
    nowhere (a single task).
    `weights` (same shape, any unit) is set where a value is an average over something else than primaries: the task
    then counts in the merge with primaries x weights. LET is an average over deposited energy: weighted by dose.
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

    @property
    def dimension(self) -> int:
        """Number of axes, 0 to 3."""
        return len(self.axes)

    def document(self) -> dict[str, Any]:
        """The page as it is stored and as `GET /results` answers it; arrays are left for the JSON writer."""
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
        """The page of a document that `document` or a simulator's worker wrote; raises InvalidInput if it is none."""
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
            raise InvalidInput(f"This is no page of results: {error!r}") from error

    def grid(self) -> Floats:
        """The values with one index for each axis, shape (n1, n2, n3); an array of one value where there is none."""
        return self.values.reshape([len(axis.values) for axis in self.axes] or [-1], order="F")


def aggregation_of(metadata: Mapping[str, Any]) -> Aggregation:
    """How a page with this metadata is merged; raises ValueError for a word that says nothing.

    Codes such as SHIELD-HIT12A, and pymchelper, call it `page_normalized`, and 4 a list of particles.
    """
    if "aggregation" in metadata:
        return Aggregation(metadata["aggregation"])
    return Aggregation.CONCATENATE if str(metadata.get("page_normalized")) == "4" else Aggregation.MEAN


def written_values(values: Floats, unit: str) -> dict[str, Any]:
    """What a document says of `values`: unit, values, and where they do not exist, if that is anywhere."""
    exists = np.isfinite(values)
    if exists.all():
        return {"unit": unit, "values": values}
    unit = unit if exists.any() else NO_VALUE
    return {"unit": unit, "values": np.where(exists, values, 0.0), "missing": missing_ranges(exists)}


def missing_ranges(exists: NDArray[np.bool_]) -> list[list[int]]:
    """Inclusive ranges of the indices at which `exists`, shape (n,), is False."""
    edges = np.flatnonzero(np.diff(exists.view(np.int8), prepend=np.int8(1), append=np.int8(1)))
    return [[first, end - 1] for first, end in edges.reshape(-1, 2).tolist()]


def has_missing_values(document: object) -> bool:
    """Whether a document is a page among whose values are null, NaN or infinities."""
    data = document.get("data") if isinstance(document, dict) else None
    values = data.get("values") if isinstance(data, dict) else None
    if not isinstance(values, list) or not values:
        return False
    numbers = all(value is None or isinstance(value, int | float) for value in values)
    return numbers and not np.isfinite(np.array(values, dtype=np.float64)).all()


def with_missing_named(page: Mapping[str, Any]) -> dict[str, Any]:
    """A page that `has_missing_values` with a 0 in the place of each, and `data.missing`."""
    data, metadata = page["data"], page.get("metadata")
    exists = np.isfinite(np.array(data["values"], dtype=np.float64))
    values = [value if there else 0.0 for value, there in zip(data["values"], exists.tolist(), strict=True)]
    named = {**page, "data": {**data, "values": values, "missing": missing_ranges(exists)}}
    if not exists.any():
        named["metadata"] = {"unit": str(data.get("unit", "")), **(metadata if isinstance(metadata, dict) else {})}
        named["data"]["unit"] = NO_VALUE
    return named


def mark_missing(values: Floats, ranges: Iterable[Iterable[int]]) -> Floats:
    """`values` with NaN in inclusive `ranges` of indices; raises ValueError for ranges that are none."""
    marked = np.array(values, dtype=np.float64)
    for first, last in ranges:
        if not 0 <= first <= last < len(marked):
            raise ValueError(f"{first} to {last} is no range of {len(marked)} values")
        marked[first : last + 1] = np.nan
    return marked


def _read_values(data: Mapping[str, Any]) -> Floats:
    """The values of a document: integers where all of them are, since doubles lose digits above 2**53."""
    values = np.asarray(data["values"])
    if values.dtype.kind not in "iu" or not values.size:
        values = np.asarray(data["values"], dtype=np.float64)
    values = values.ravel()
    return mark_missing(values, data["missing"]) if data.get("missing") else values


@dataclass(frozen=True, slots=True)
class Estimator:
    """One scorer's output: `name` as the user knows it, `file_name` as the simulator called it, pages by number."""

    name: str
    file_name: str
    pages: tuple[Page, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What one finished task leaves: the primaries that were really simulated, and its scores per primary."""

    primaries: int
    estimators: tuple[Estimator, ...]


class RefusedPage(NamedTuple):
    """A page that cannot be kept, and why; `page` is None if that holds for the whole estimator."""

    estimator: str
    page: int | None
    reason: str

    def __str__(self) -> str:
        """In one line."""
        page = "" if self.page is None else f"page {self.page} of "
        return f"{page}estimator {self.estimator!r}: {self.reason}"


def refused_metadata(refused: Sequence[RefusedPage]) -> dict[str, Any]:
    """What the metadata of an estimator says of the pages that could not be kept; nothing if there are none."""
    return {"refused_pages": [{"page": page, "reason": reason} for _, page, reason in refused]} if refused else {}

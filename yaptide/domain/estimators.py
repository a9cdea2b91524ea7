"""Scores as numbers: axes, pages, estimators, and what one task leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput

Floats = NDArray[np.floating[Any]]


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

    `values` is flat, shape (n1*n2*n3,), in `unit`, and the first axis varies fastest: ``values[i1 + n1*(i2 + n2*i3)]``.
    `errors` is the standard error of each value, same shape and unit, or None where it is not known (a single task).
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
        data = {"name": self.name, "unit": self.unit, "values": self.values}
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
            return cls(
                number=int(metadata.get("page_number", 0)),
                name=str(metadata.get("name", data.get("name", ""))),
                unit=str(data.get("unit", "")),
                axes=tuple(Axis(a.get("name", ""), a.get("unit", ""), np.asarray(a["values"], float)) for a in axes),
                values=_exact(data["values"]),
                errors=np.asarray(data["errors"], dtype=np.float64) if "errors" in data else None,
                aggregation=Aggregation(metadata.get("aggregation", Aggregation.MEAN)),
                metadata=metadata,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"This is no page of results: {error!r}") from error

    def grid(self) -> Floats:
        """The values with one index for each axis, shape (n1, n2, n3); an array of one value where there is none."""
        return self.values.reshape([len(axis.values) for axis in self.axes] or [-1], order="F")


def _exact(numbers: Any) -> Any:
    """Numbers of a document as an array: of integers where all of them are, since doubles lose those above 2**53."""
    found = np.asarray(numbers)
    return found if found.dtype.kind in "iu" and found.size else np.asarray(numbers, dtype=np.float64)


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

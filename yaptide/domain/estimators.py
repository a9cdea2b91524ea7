"""Task output as numbers, and pages that are rejected.

Axes, pages and estimators are shared with the Python client: `yaptide_client.estimators`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from yaptide_client.estimators import (
    NO_VALUE as NO_VALUE,
    Aggregation as Aggregation,
    Axis as Axis,
    Estimator as Estimator,
    Floats as Floats,
    Page as Page,
    aggregation_of as aggregation_of,
    mark_missing as mark_missing,
    missing_ranges as missing_ranges,
    written_values as written_values,
)


def has_missing_values(document: object) -> bool:
    """Return whether a document is a page with null, NaN or infinity among its values."""
    data = document.get("data") if isinstance(document, dict) else None
    values = data.get("values") if isinstance(data, dict) else None
    if not isinstance(values, list) or not values:
        return False
    numbers = all(value is None or isinstance(value, int | float) for value in values)
    return numbers and not np.isfinite(np.array(values, dtype=np.float64)).all()


def with_missing_named(page: Mapping[str, Any]) -> dict[str, Any]:
    """Return a page that `has_missing_values` with each missing value set to 0 and listed in `data.missing`."""
    data, metadata = page["data"], page.get("metadata")
    exists = np.isfinite(np.array(data["values"], dtype=np.float64))
    values = [value if present else 0.0 for value, present in zip(data["values"], exists.tolist(), strict=True)]
    named = {**page, "data": {**data, "values": values, "missing": missing_ranges(exists)}}
    if not exists.any():
        named["metadata"] = {"unit": str(data.get("unit", "")), **(metadata if isinstance(metadata, dict) else {})}
        named["data"]["unit"] = NO_VALUE
    return named


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """The output of a finished task: primaries that were simulated, estimators per primary, and log files."""

    primaries: int
    estimators: tuple[Estimator, ...]
    logs: Mapping[str, str] = field(default_factory=dict)


class RefusedPage(NamedTuple):
    """A page that is not stored, and the reason; `page` is None if the whole estimator is rejected."""

    estimator: str
    page: int | None
    reason: str

    def __str__(self) -> str:
        """Return the rejection as one line."""
        page = "" if self.page is None else f"page {self.page} of "
        return f"{page}estimator {self.estimator!r}: {self.reason}"


def refused_metadata(refused: Sequence[RefusedPage]) -> dict[str, Any]:
    """Return the entry about rejected pages for the metadata of an estimator; empty if there are none."""
    return {"refused_pages": [{"page": page, "reason": reason} for _, page, reason in refused]} if refused else {}

"""Scores as numbers: what one task leaves behind, and pages that cannot be kept.

Axes, pages and estimators are the client's too: `yaptide_client.estimators`.
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


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What one finished task leaves: the primaries really simulated, its scores per primary, its log files."""

    primaries: int
    estimators: tuple[Estimator, ...]
    logs: Mapping[str, str] = field(default_factory=dict)


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

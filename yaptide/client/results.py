"""Results as arrays: what `GET /results` answers, turned into numbers, tables and files."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np

from yaptide.domain.depth_dose import bragg_peak
from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.domain.estimators import Estimator, Page


@dataclass(frozen=True, slots=True)
class Results:
    """The results of one simulation: its estimators, in the order of the server."""

    estimators: tuple[Estimator, ...]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Results":
        """The results in an answer of `GET /results`; raises InvalidInput if it is none."""
        found = []
        for entry in document.get("estimators", ()):
            pages = tuple(Page.from_document(page) for page in entry["pages"])
            found.append(Estimator(entry["name"], entry["name"], pages, entry.get("metadata", {})))
        return cls(tuple(found))

    def page(self, estimator: str, number: int) -> Page:
        """A page by its estimator's name and its number; raises NotFound with what there is."""
        for found in self.estimators:
            for page in found.pages:
                if found.name == estimator and page.number == number:
                    return page
        there = ", ".join(f"{e.name} {[page.number for page in e.pages]}" for e in self.estimators)
        raise NotFound(f"There is no page {number} of {estimator!r}; there are: {there}")

    def depth_curve(self) -> Page | None:
        """The first depth-dose curve: a page of one axis that scores dose along the beam; None if there is none."""
        for estimator, page in self._pages():
            if page.dimension == 1 and "dose" in f"{estimator.name} {page.name}".lower():
                return page
        return None

    def bragg_peak(self) -> tuple[float, float] | None:
        """Depth of the maximum and R80 of the first depth-dose curve, in its axis' unit; None if there is no peak."""
        page = self.depth_curve()
        try:
            return None if page is None else bragg_peak(page.axes[0].values, page.values)
        except InvalidInput:
            return None

    def save_npz(self, path: Path) -> None:
        """Write all arrays to a compressed numpy file.

        Keys are `<estimator>_<page>_values`, `..._errors`, and `..._axis1`, ...; values have one index for each axis.
        """
        arrays: dict[str, Any] = {}
        for estimator, page in self._pages():
            stem = re.sub(r"\W+", "_", f"{estimator.name}_{page.number}")
            arrays[f"{stem}_values"] = page.grid()
            if page.errors is not None:
                arrays[f"{stem}_errors"] = page.errors.reshape(page.grid().shape, order="F")
            arrays |= {f"{stem}_axis{n}": axis.values for n, axis in enumerate(page.axes, start=1)}
        with path.open("wb") as file:  # given a name, numpy would add an ending to it
            np.savez_compressed(file, **arrays)

    def write_csv(self, file: IO[str]) -> None:
        """Write every value as a line: where it belongs, its coordinates on up to three axes, and its error."""
        writer = csv.writer(file)
        writer.writerow(["estimator", "page", "quantity", "unit", "axis1", "axis2", "axis3", "value", "error"])
        for estimator, page in self._pages():
            errors: Sequence[Any] = [""] * len(page.values) if page.errors is None else page.errors.tolist()
            for place, value, error in zip(_places(page), page.values.tolist(), errors, strict=True):
                writer.writerow([estimator.name, page.number, page.name, page.unit, *place, value, error])

    def _pages(self) -> Iterator[tuple[Estimator, Page]]:
        return ((estimator, page) for estimator in self.estimators for page in estimator.pages)


def _places(page: Page) -> Iterator[tuple[Any, ...]]:
    """Coordinates of each value, the first axis fastest, filled up to three."""
    axes = [axis.values.tolist() for axis in reversed(page.axes)]
    if page.dimension == 0:
        return (("", "", "") for _ in page.values)
    return ((*reversed(place), *("",) * (3 - len(place))) for place in product(*axes))

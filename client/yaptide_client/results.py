"""Results as arrays: converts responses of `GET /results` to numbers, tables and files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from yaptide_client.depth_dose import Range, is_depth_curve, read_range
from yaptide_client.errors import InvalidInput, NotFound
from yaptide_client.estimators import Estimator, Page
from yaptide_client.formats.csv_file import write_csv
from yaptide_client.formats.npz_file import write_npz
from yaptide_client.formats.pandas_frame import to_pandas
from yaptide_client.formats.xarray_dataset import to_xarray

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NO_CURVE = "no page with one axis along the beam scores dose"


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a simulation: its estimators, in the order of the server.

    `left_out` describes pages that could not be read, one line per page.
    """

    estimators: tuple[Estimator, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any], estimator: str | None = None) -> "Results":
        """Return the results in a response of `GET /results`; invalid pages are left out.

        The response does not name the `estimator` if only some of its pages were requested.
        """
        estimators, left_out = [], list[str]()
        requested_pages = [{"name": estimator or "", "pages": document["pages"]}] if document.get("pages") else []
        for entry in document.get("estimators") or requested_pages:
            pages = []
            for position, page in enumerate(entry["pages"]):
                try:
                    pages.append(_read_page(page, position))
                except InvalidInput as error:
                    left_out.append(f"{entry['name']}, page {position} of the response: {error}")
            estimators.append(Estimator(entry["name"], entry["name"], tuple(pages), entry.get("metadata", {})))
        return cls(tuple(estimators), tuple(left_out))

    def __repr__(self) -> str:
        """Show the names of estimators and the numbers of their pages, without the arrays."""
        return f"<Results: {self._listed() or 'none'}>"

    def page(self, estimator: str, number: int) -> Page:
        """Return a page by the name of its estimator and its number; raise NotFound with the available pages."""
        for candidate in self.estimators:
            for page in candidate.pages:
                if candidate.name == estimator and page.number == number:
                    return page
        raise NotFound(f"No page {number} of {estimator!r}; available: {self._listed()}")

    def depth_curve(self) -> Page | None:
        """Return the first depth-dose curve with a range, or else the first curve; None if there is none.

        A depth-dose curve is dose on one axis along the beam: depth, or z for codes whose beams point along z. It may
        be an integral depth dose or a dose on the central axis.
        """
        curves = [page for _, page in self._pages() if is_depth_curve(page)]
        return next(filter(_has_range, curves), curves[0] if curves else None)

    def find_range(self) -> Range:
        """Return the range in mm of the first depth-dose curve; raise NotFound with the reason if there is none."""
        page = self.depth_curve()
        if page is None:
            raise NotFound(NO_CURVE)
        return read_range(page)

    def bragg_peak(self) -> tuple[float, float] | None:
        """Return the depth of the maximum and R80 of the first depth-dose curve in mm; None if there is no range."""
        try:
            proton_range = self.find_range()
        except NotFound:
            return None
        return proton_range.depth_mm, proton_range.r80_mm

    def save_npz(self, path: Path | str) -> None:
        """Write all arrays to a compressed NumPy file, with an index that describes them (docs/results.md)."""
        with Path(path).open("wb") as file:  # given a name, numpy would add an ending to it
            write_npz(self.estimators, file)

    def write_csv(self, file: IO[str]) -> None:
        """Write one line per value, with its estimator, page, coordinates and error (docs/results.md)."""
        write_csv(self.estimators, file)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table of `write_csv` as a data frame; NaN is unknown. Raises NotConfigured without pandas."""
        return to_pandas(self.estimators)

    def to_xarray(self) -> dict[tuple[str, int], "xr.Dataset"]:
        """Return each page, by estimator name and page number, as a data set with its axes as coordinates.

        It contains `value`, and `error` (the standard error) if known; units are in the attribute `units` of each array
        and axis. An axis has its name, or `axis1`, `axis2`, ... if names are missing or not distinct. Raises
        NotConfigured without xarray.
        """
        return to_xarray(self.estimators)

    def _listed(self) -> str:
        return ", ".join(f"{e.name} {[page.number for page in e.pages]}" for e in self.estimators)

    def _pages(self) -> Iterator[tuple[Estimator, Page]]:
        return ((estimator, page) for estimator in self.estimators for page in estimator.pages)


def _read_page(document: Mapping[str, Any], position: int) -> Page:
    """Return a page of a response; raise InvalidInput if values and axes do not match. Such errors are dropped."""
    if "results_url" in document and "data" not in document:
        raise InvalidInput("the response does not include its values; request them with values=1")
    page = Page.from_document(document)
    if "page_number" not in page.metadata:  # then the server numbers pages by position
        page = replace(page, number=position)
    expected = prod(axis.values.size for axis in page.axes)
    if page.axes and page.values.size != expected:
        raise InvalidInput(f"it has {page.values.size} values, but {expected} points on its axes")
    fits = page.errors is None or page.errors.shape == page.values.shape
    return page if fits else replace(page, errors=None)


def _has_range(page: Page) -> bool:
    try:
        read_range(page)
    except NotFound:
        return False
    return True

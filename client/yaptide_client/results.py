"""Results as arrays: what `GET /results` answers, turned into numbers, tables and files."""

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
    """The results of one simulation: its estimators, in the order of the server.

    `left_out` says in a line each which pages could not be read, and why.
    """

    estimators: tuple[Estimator, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any], estimator: str | None = None) -> "Results":
        """The results in an answer of `GET /results`; pages that cannot be read are left out.

        The answer does not name the `estimator` if only some of its pages were asked for.
        """
        estimators, left_out = [], list[str]()
        some = [{"name": estimator or "", "pages": document["pages"]}] if document.get("pages") else []
        for entry in document.get("estimators") or some:
            pages = []
            for position, page in enumerate(entry["pages"]):
                try:
                    pages.append(_read_page(page, position))
                except InvalidInput as error:
                    left_out.append(f"{entry['name']}, page {position} of those sent: {error}")
            estimators.append(Estimator(entry["name"], entry["name"], tuple(pages), entry.get("metadata", {})))
        return cls(tuple(estimators), tuple(left_out))

    def __repr__(self) -> str:
        """Names of estimators and numbers of their pages; the arrays would be a screenful."""
        return f"<Results: {self._listed() or 'none'}>"

    def page(self, estimator: str, number: int) -> Page:
        """A page by its estimator's name and its number; raises NotFound with what there is."""
        for found in self.estimators:
            for page in found.pages:
                if found.name == estimator and page.number == number:
                    return page
        raise NotFound(f"There is no page {number} of {estimator!r}; there are: {self._listed()}")

    def depth_curve(self) -> Page | None:
        """The first depth-dose curve that has a range, or else the first one; None if there is none.

        It is a page of dose whose one axis lies along the beam: depth, or z where the code's beams go along z.
        """
        curves = [page for _, page in self._pages() if is_depth_curve(page)]
        return next(filter(_has_range, curves), curves[0] if curves else None)

    def find_range(self) -> Range:
        """The range in mm that the first depth-dose curve tells; raises NotFound with the reason if there is none."""
        page = self.depth_curve()
        if page is None:
            raise NotFound(NO_CURVE)
        return read_range(page)

    def bragg_peak(self) -> tuple[float, float] | None:
        """Depth of the maximum and R80 of the first depth-dose curve, in mm; None if there is no range."""
        try:
            found = self.find_range()
        except NotFound:
            return None
        return found.depth_mm, found.r80_mm

    def save_npz(self, path: Path | str) -> None:
        """Write all arrays to a compressed numpy file, with an index that says what they are (docs/results.md)."""
        with Path(path).open("wb") as file:  # given a name, numpy would add an ending to it
            write_npz(self.estimators, file)

    def write_csv(self, file: IO[str]) -> None:
        """Write every value as a line: where it belongs, its place on the axes, and its error (docs/results.md)."""
        write_csv(self.estimators, file)

    def to_pandas(self) -> "pd.DataFrame":
        """The table of `write_csv` as a data frame; what is unknown is NaN. Raises NotConfigured without pandas."""
        return to_pandas(self.estimators)

    def to_xarray(self) -> dict[tuple[str, int], "xr.Dataset"]:
        """Each page by its estimator's name and its number, as a data set with its axes as coordinates.

        It holds `value`, and `error` (the standard error) where that is known; units are in the attribute `units` of
        each array and axis. An axis has its name, or `axis1`, `axis2`, ... where names are missing or not different.
        Raises NotConfigured without xarray.
        """
        return to_xarray(self.estimators)

    def _listed(self) -> str:
        return ", ".join(f"{e.name} {[page.number for page in e.pages]}" for e in self.estimators)

    def _pages(self) -> Iterator[tuple[Estimator, Page]]:
        return ((estimator, page) for estimator in self.estimators for page in estimator.pages)


def _read_page(document: Mapping[str, Any], position: int) -> Page:
    """A page of an answer; raises InvalidInput if its values do not fit on its axes. Errors that do not are unknown."""
    if "results_url" in document and "data" not in document:
        raise InvalidInput("its values were not asked for (values=1)")
    page = Page.from_document(document)
    if "page_number" not in page.metadata:  # the server counts them then
        page = replace(page, number=position)
    expected = prod(axis.values.size for axis in page.axes)
    if page.axes and page.values.size != expected:
        raise InvalidInput(f"it has {page.values.size} values, its axes ask for {expected}")
    fits = page.errors is None or page.errors.shape == page.values.shape
    return page if fits else replace(page, errors=None)


def _has_range(page: Page) -> bool:
    try:
        read_range(page)
    except NotFound:
        return False
    return True

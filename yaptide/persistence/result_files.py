"""The file in which a worker sends merged results: payloads, encoded as they will be stored.

A zip archive (APPNOTE.TXT of PKWARE) whose entries are stored uncompressed, because payloads already are compressed:

    <e>.json.gz        metadata of estimator e, counted from 0
    <e>-<p>.json.gz    its page p
    results.json       names, file names, numbers and dimensions of the pages: the last entry

`yaptide.services.results_upload` validates the contents; this module only locates the bytes.
"""

from collections.abc import Iterable
from typing import IO, Annotated
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import msgspec

from yaptide.domain.errors import InvalidInput
from yaptide.persistence.payload import NewEstimator
from yaptide.persistence.zip_safety import MOST_PAGES, explain_damage, open_archive, read_entry

_INDEX = "results.json"
_UNREADABLE = "Cannot read the results"
_MOST_INDEX = 16 << 20
_MOST_METADATA = 16 << 20


class PageEntry(msgspec.Struct):
    """The index entry of a page."""

    number: Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]
    name: str
    dimension: int


class RefusedEntry(msgspec.Struct):
    """A page that could not be merged, and the reason."""

    page: int | None
    reason: str


class EstimatorEntry(msgspec.Struct):
    """The index entry of an estimator."""

    name: str
    file_name: str
    pages: list[PageEntry]
    refused: list[RefusedEntry] = []


_ENTRIES = msgspec.json.Decoder(list[EstimatorEntry])


def write_results(file: IO[bytes], estimators: Iterable[NewEstimator]) -> None:
    """Write the estimators one after the other."""
    index = []
    with ZipFile(file, "w", ZIP_STORED) as archive:
        for e, estimator in enumerate(estimators):
            archive.writestr(_entry(f"{e}.json.gz"), estimator.payload.data)
            for p, page in enumerate(estimator.pages):
                with archive.open(_entry(f"{e}-{p}.json.gz"), "w", force_zip64=True) as entry:
                    for chunk in page.payload.chunks():
                        entry.write(chunk)
            pages = [PageEntry(page.number, page.name, page.dimension) for page in estimator.pages]
            refused = [RefusedEntry(page.page, page.reason) for page in estimator.refused]
            index.append(EstimatorEntry(estimator.name, estimator.file_name, pages, refused))
        archive.writestr(_entry(_INDEX), msgspec.json.encode(index))


class ResultFile:
    """Results opened for reading; raises InvalidInput if `write_results` did not write them."""

    def __init__(self, file: IO[bytes]) -> None:
        with explain_damage(_UNREADABLE):
            self._file = file
            self._archive = open_archive(file, MOST_PAGES)
            if any(info.compress_type != ZIP_STORED for info in self._archive.infolist()):
                raise InvalidInput("The entries of the results must not be compressed")
            self.estimators = _ENTRIES.decode(read_entry(self._archive, _INDEX, _MOST_INDEX))
            self._check_named()

    def _check_named(self) -> None:
        pages = sum(len(estimator.pages) for estimator in self.estimators)
        if len(self._archive.infolist()) != len(self.estimators) + pages + 1:
            raise InvalidInput("The entries of the results do not match their index")

    def metadata(self, e: int) -> bytes:
        """Return the payload of an estimator's metadata."""
        with explain_damage(_UNREADABLE):
            return read_entry(self._archive, f"{e}.json.gz", _MOST_METADATA)

    def page(self, e: int, p: int) -> tuple[int, int]:
        """Return the offset of a page's payload in the file, and its length."""
        with explain_damage(_UNREADABLE):
            info = self._archive.getinfo(f"{e}-{p}.json.gz")
            with self._archive.open(info):  # reads the local header and compares the names
                start = self._file.tell()
        return start, info.file_size


def _entry(name: str) -> ZipInfo:
    """Return an entry without a time, so that the same results give the same bytes."""
    return ZipInfo(name)

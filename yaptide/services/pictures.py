"""What pictures of results are made of: slices of stored pages, and of the CT that was simulated.

A page is one gzip member of JSON text; a slider asks for thirty slices of it in a second. So a page is decoded once,
one page at a time, and the last few stay as arrays (`Cache`). Long arrays lie in files, not in memory.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from yaptide.disk import require_free_space
from yaptide.domain.errors import Busy, InvalidInput, NotFound
from yaptide.domain.estimators import Floats, Page
from yaptide.persistence import codec
from yaptide.persistence.queries import results as result_queries, simulations
from yaptide.persistence.queries.users import User
from yaptide.services import pages
from yaptide.services.access import find_readable
from yaptide.services.backend import Backend
from yaptide.services.results import stream_page
from yaptide.simulators import find_image
from yaptide.simulators.base import Image

#: JSON text of a page that is decoded; 300 x 300 x 300 voxels with errors have about 1 GB.
_MOST_TEXT = 2 << 30
#: Numbers that are processed together.
_BLOCK = 1 << 20
#: Seconds that a request waits for others that decode a page.
_PATIENCE = 60
_BUSY = "The server is decoding other pages of results"
#: Requests that may wait or decode at a time: a browser has six, and the other threads handle all other requests.
_WAITING = threading.BoundedSemaphore(8)


class Sized(Protocol):
    """Something that takes room."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, in memory or in a file."""


S = TypeVar("S", bound=Sized)


class Cache(Generic[S]):
    """The things that were made last, by key: at most `most` of `most_bytes` together, and always the last one.

    Each is made once, however many threads ask for it, and only one is being made at a time.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Future[S]] = OrderedDict()
        self._lock, self._making = threading.Lock(), threading.Lock()

    def get(self, key: str, make: Callable[[], S]) -> S:
        """Return the thing of this key; raises what `make` raises, which is then not kept, and Busy."""
        with self._lock:
            is_new = key not in self._kept
            is_waiting = is_new or not self._kept[key].done()
            if is_waiting and not _WAITING.acquire(blocking=False):
                raise Busy(1, _BUSY)
            future = self._kept.setdefault(key, Future())
            self._kept.move_to_end(key)
        try:
            if is_new:
                self._fill(key, future, make)
            return future.result(timeout=_PATIENCE)
        except TimeoutError:
            raise Busy(_PATIENCE, _BUSY) from None
        finally:
            if is_waiting:
                _WAITING.release()

    def _fill(self, key: str, future: "Future[S]", make: Callable[[], S]) -> None:
        try:
            with self._turn():
                future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised in `get`, for all that wait
            with self._lock:
                self._kept.pop(key, None)
            future.set_exception(error)
        else:
            self._drop_oldest()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one thread at a time make something."""
        if not self._making.acquire(timeout=_PATIENCE):
            raise Busy(_PATIENCE, _BUSY)
        try:
            yield
        finally:
            self._making.release()

    def _drop_oldest(self) -> None:
        with self._lock:
            made = [(key, future.result().nbytes) for key, future in self._kept.items() if future.done()]
            total = sum(size for _, size in made)
            for key, size in made[:-1]:
                if len(self._kept) > self._most or total > self._most_bytes:
                    del self._kept[key]
                    total -= size


@dataclass(frozen=True, slots=True)
class Extremes:
    """The least and the largest value of a page, the least above 0, and the index of the largest one.

    All are None if no value exists; `least_positive` also if none is above 0.
    """

    minimum: float | None = None
    maximum: float | None = None
    least_positive: float | None = None
    index: int | None = None

    @property
    def largest(self) -> float:
        """The largest magnitude; 1 if there is no other than 0."""
        return max(abs(self.minimum or 0.0), abs(self.maximum or 0.0)) or 1.0


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A page as arrays."""

    page: Page
    extremes: Extremes

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of bins along each axis."""
        return tuple(axis.values.size for axis in self.page.axes)

    @property
    def nbytes(self) -> int:
        """Bytes that its arrays take."""
        errors = 0 if self.page.errors is None else self.page.errors.nbytes
        return self.page.values.nbytes + errors

    def place(self, index: int) -> tuple[float, ...]:
        """Where on the axes the value with this index is."""
        bins = np.unravel_index(index, self.shape, order="F") if self.shape else ()
        return tuple(float(axis.values[bin_]) for axis, bin_ in zip(self.page.axes, bins, strict=True))


@dataclass(frozen=True, slots=True)
class OpenImage:
    """The CT of a simulation, or None if it has none."""

    image: Image | None

    @property
    def nbytes(self) -> int:
        """Bytes that its voxels take."""
        return 0 if self.image is None else self.image.voxels.nbytes


_PAGES: Cache[OpenPage] = Cache(8, 1 << 30)
_IMAGES: Cache[OpenImage] = Cache(2, 256 << 20)


class Numbers(StrEnum):
    """Which numbers of a page are asked for."""

    VALUES = "values"
    ERRORS = "errors"
    AXIS = "axis"
    """The centres of the bins of one axis."""
    SHADES = "shades"
    """The values in the precision of a picture (`round_to_shades`)."""


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page that the user may read: its row, and the digest of its text."""

    backend: Backend
    row: Any

    @property
    def digest(self) -> str:
        """SHA-256 of its text, hexadecimal: derived files change only with it."""
        return str(self.row.content_sha256)

    @property
    def dimension(self) -> int:
        """Number of its axes."""
        return int(self.row.page_dimension)

    @property
    def text_size(self) -> int:
        """Bytes of its text, which tell how long it takes to be decoded."""
        return int(self.row.content_size)

    def open(self) -> OpenPage:
        """Decode the page; raises InvalidInput if it is damaged or too large."""
        if self.text_size > _MOST_TEXT:
            raise InvalidInput("This page is too large to be drawn: download it")
        return _PAGES.get(self.digest, partial(_decode_page, self))


def find_page(backend: Backend, user: User, job_id: str, estimator: str, number: int) -> StoredPage:
    """Find a page by its estimator's name and its number; raises NotFound, Forbidden."""
    with backend.database.reading() as connection:
        simulation = find_readable(connection, user, job_id)
        row = result_queries.find_page(connection, simulation.id, estimator, number)
    if row is None:
        raise NotFound(f"There is no page {number} of an estimator {estimator[:80]!r}")
    return StoredPage(backend, row)


def _decode_page(stored: StoredPage) -> OpenPage:
    folder = stored.backend.data_dir
    require_free_space(folder, "to decode results")
    page = pages.read_page(_readable(stream_page(stored.backend, stored.row)), folder)
    expected = math.prod(axis.values.size for axis in page.axes)
    if page.axes and page.values.size != expected:
        raise InvalidInput(f"The page has {page.values.size} values, its axes ask for {expected}")
    return OpenPage(page, _find_extremes(page.values))


def _readable(payload: Iterator[bytes]) -> Iterator[bytes]:
    """The JSON text of a payload, both piece by piece; one of other writers is read as a whole."""
    head = next(payload, b"")
    if codec.written_here(head):
        yield from codec.inflate_pieces(chain([head], payload))
    else:
        yield codec.decode_readable(head + b"".join(payload))


def _find_extremes(values: Floats) -> Extremes:
    extremes = Extremes()
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        if not np.isfinite(block).any():
            continue
        index = int(np.nanargmax(block))
        extremes = _joined(extremes, block, start + index, float(block[index]))
    return extremes


def _joined(extremes: Extremes, block: Floats, index: int, maximum: float) -> Extremes:
    """The extremes of all blocks up to this one, whose largest value is `maximum`."""
    positive = block[block > 0]
    least = [float(positive.min())] if positive.size else []
    before = [] if extremes.least_positive is None else [extremes.least_positive]
    if extremes.maximum is not None and extremes.maximum >= maximum:
        index, maximum = extremes.index or 0, extremes.maximum
    minimum = min(float(np.nanmin(block)), math.inf if extremes.minimum is None else extremes.minimum)
    return Extremes(minimum, maximum, min([*before, *least], default=None), index)


def cut_page(opened: OpenPage, numbers: Numbers, axis: int | None = None, index: int | None = None) -> bytes:
    """Numbers of a page as doubles, little endian, the first of the axes that are left fastest; NaN where unknown.

    With `axis` (counted from 1) and `index` (of its bin, from 0) those of one slice, without them all; for
    `Numbers.AXIS` the centres of the bins along `axis`. `Numbers.SHADES` are written by `round_to_shades` instead.
    Raises NotFound for what the page does not have.
    """
    page = opened.page
    if axis is not None and not 1 <= axis <= page.dimension:
        raise NotFound(f"The page has {page.dimension} axes, not an axis {axis}")
    if numbers is Numbers.AXIS:
        return _doubles(page.axes[_given(axis, "axis") - 1].values)
    array = page.errors if numbers is Numbers.ERRORS else page.values
    if array is None:
        raise NotFound("The errors of this page are not known")
    if axis is None:
        array = _short(array)
    else:
        array = _slice(array.reshape(opened.shape, order="F"), axis - 1, _given(index, "index")).ravel(order="F")
    return round_to_shades(array, opened.extremes.largest) if numbers is Numbers.SHADES else _doubles(array)


def round_to_shades(array: Floats, largest: float) -> bytes:
    """Return numbers divided by `largest` with 8 bits of precision: first all high bytes, then all low ones.

    Each number is the upper half of a 32-bit float, rounded to the nearest; NaN stays NaN. Colours need no more, and
    apart from each other the bytes are well compressed.
    """
    bits = (array / largest).astype("<f4").view("<u4")
    halves = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    halves[np.isnan(array)] = 0x7FC0
    return np.ascontiguousarray(halves.view("u1").reshape(-1, 2)[:, ::-1].T).tobytes()


def _given(number: int | None, name: str) -> int:
    if number is None:
        raise InvalidInput(f"The query needs {name}")
    return number


#: Numbers that are answered at once: a map of 2000 x 2000 bins.
_MOST_NUMBERS = 4_000_000


def _short(array: Floats) -> Floats:
    if array.size > _MOST_NUMBERS:
        raise InvalidInput(f"There are {array.size} numbers: ask for a slice by axis and index")
    return array


def _slice(grid: Floats, axis: int, index: int) -> Floats:
    if not 0 <= index < grid.shape[axis]:
        raise NotFound(f"The axis has {grid.shape[axis]} bins, not a bin {index}")
    return _short(np.moveaxis(grid, axis, 0)[index])


def _doubles(array: Floats) -> bytes:
    return np.ascontiguousarray(array, dtype="<f8").tobytes()


_NO_CT = "The simulation has no CT"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """The input of a simulation that the user may read, in which there may be a CT."""

    backend: Backend
    simulation: Any
    digest: str

    def find_image(self) -> Image | None:
        """Read the CT; None if there is none."""
        return _IMAGES.get(self.digest, self._decode).image

    def open(self) -> Image:
        """Read the CT; raises NotFound if there is none."""
        image = self.find_image()
        if image is None:
            raise NotFound(_NO_CT)
        return image

    def _decode(self) -> OpenImage:
        with self.backend.database.reading() as connection:
            data = simulations.input_of(connection, self.simulation.id)
        document = codec.decode_payload(data) if data else {}
        try:
            return OpenImage(find_image(self.simulation.sim_type, document.get("input_files") or {}))
        except InvalidInput:  # input for an external worker, in a format that yaptide does not know
            return OpenImage(None)


def find_ct(backend: Backend, user: User, job_id: str) -> StoredImage:
    """Find the input in which the CT is; raises NotFound, Forbidden."""
    with backend.database.reading() as connection:
        simulation = find_readable(connection, user, job_id)
        digest = simulations.input_digest(connection, simulation.id)
    if digest is None:
        raise NotFound(_NO_CT)
    return StoredImage(backend, simulation, digest)


def cut_ct(image: Image, axis: int, index: int) -> bytes:
    """A slice of a CT as 32-bit floats, little endian, as `cut_page` has those of a page; raises NotFound."""
    if not 1 <= axis <= image.voxels.ndim:
        raise NotFound(f"A CT has 3 axes, not an axis {axis}")
    voxels = _slice(np.transpose(image.voxels), axis - 1, index)
    return np.ascontiguousarray(voxels.ravel(order="F"), dtype="<f4").tobytes()

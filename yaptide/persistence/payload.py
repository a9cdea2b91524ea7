"""Payloads, and results made of them, ready to be stored; `yaptide.persistence.codec` makes payloads and reads them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # what only administers needs no numpy
    from yaptide.domain.estimators import RefusedPage

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload ready to be stored.

    `data` is the gzip member, `size` the length of its JSON text in bytes, `sha256` that text's digest in hexadecimal.
    """

    data: bytes
    size: int
    sha256: str

    @property
    def length(self) -> int:
        """Bytes that it takes."""
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        """The gzip member, piece by piece."""
        yield self.data

    def columns(self) -> dict[str, Any]:
        """The values of `yaptide.persistence.models.base.PayloadMixin`."""
        return {"compressed_data": self.data, "content_size": self.size, "content_sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class LargePayload:
    """A payload too large to be held in memory: `length` bytes of a file, from `start`. The rest as in `Payload`."""

    file: IO[bytes]
    start: int
    length: int
    size: int
    sha256: str

    def chunks(self) -> Iterator[bytes]:
        """The gzip member, piece by piece."""
        return read_pieces(self.file, self.start, self.length)


AnyPayload = Payload | LargePayload


def read_pieces(file: IO[bytes], start: int, length: int) -> Iterator[bytes]:
    """A part of a file, piece by piece; where the file stands does not matter."""
    while length > 0 and (piece := os.pread(file.fileno(), min(length, _CHUNK), start)):
        yield piece
        start += len(piece)
        length -= len(piece)


@dataclass(frozen=True, slots=True)
class NewPage:
    """A page ready to be stored."""

    number: int
    name: str
    dimension: int
    payload: AnyPayload


@dataclass(frozen=True, slots=True)
class NewEstimator:
    """An estimator ready to be stored; `payload` is its metadata, `refused` are the pages that cannot be kept."""

    name: str
    file_name: str
    payload: Payload
    pages: tuple[NewPage, ...]
    refused: "tuple[RefusedPage, ...]" = ()

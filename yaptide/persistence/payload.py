"""Payloads, and results made of them, ready to be stored; `yaptide.persistence.codec` encodes and decodes them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # administration commands need no numpy
    from yaptide.domain.estimators import RefusedPage

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload ready to be stored.

    `data` is the gzip member, `size` the length of its JSON text in bytes, `sha256` the digest of that text in
    hexadecimal.
    """

    data: bytes
    size: int
    sha256: str

    @property
    def length(self) -> int:
        """Length of the gzip member in bytes."""
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        """Yield the gzip member in pieces."""
        yield self.data

    def columns(self) -> dict[str, Any]:
        """Return the values for `yaptide.persistence.models.base.PayloadMixin`."""
        return {"compressed_data": self.data, "content_size": self.size, "content_sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class LargePayload:
    """A payload too large for memory: `length` bytes of a file from `start`. Otherwise like `Payload`."""

    file: IO[bytes]
    start: int
    length: int
    size: int
    sha256: str

    def chunks(self) -> Iterator[bytes]:
        """Yield the gzip member in pieces."""
        return read_pieces(self.file, self.start, self.length)


AnyPayload = Payload | LargePayload


def read_pieces(file: IO[bytes], start: int, length: int) -> Iterator[bytes]:
    """Yield a part of a file in pieces, independent of the file's position."""
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
    """An estimator ready to be stored; `payload` is its metadata, `refused` lists the pages that were rejected."""

    name: str
    file_name: str
    payload: Payload
    pages: tuple[NewPage, ...]
    refused: "tuple[RefusedPage, ...]" = ()

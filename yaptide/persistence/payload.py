"""Payloads, and results made of them, ready to be stored; `yaptide.persistence.codec` makes payloads and reads them."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload ready to be stored.

    `data` is the gzip member, `size` the length of its JSON text in bytes, `sha256` that text's digest in hexadecimal.
    """

    data: bytes
    size: int
    sha256: str

    def columns(self) -> dict[str, Any]:
        """The values of `yaptide.persistence.models.base.PayloadMixin`."""
        return {"compressed_data": self.data, "content_size": self.size, "content_sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class NewPage:
    """A page ready to be stored."""

    number: int
    name: str
    dimension: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class NewEstimator:
    """An estimator ready to be stored; `payload` is its metadata."""

    name: str
    file_name: str
    payload: Payload
    pages: tuple[NewPage, ...]

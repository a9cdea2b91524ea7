"""A payload ready to be stored; `yaptide.persistence.codec` makes them and reads them."""

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

"""Payloads: JSON text in one gzip member that can be joined with others without inflating it.

A payload is a standard gzip member (RFC 1952) that any tool reads. Ours carries an extra field ``YP`` that promises
how its deflate data (RFC 1951) was made: it ends on a full flush, so that it refers to nothing behind it and stops on a
byte boundary, and is followed by an empty final block (``03 00``). Such data can be copied between other such data. A
document made of many payloads is then one member again: a header, the stored data and *glue* between them (the brackets
and names of the JSON around the payloads), a final block, and a trailer with the CRC-32 combined from the parts'.

Payloads of other writers (plain ``gzip.compress``) are recognised by the missing field, and are inflated and written
anew when they have to be joined. Python's json module writes numbers there that JSON has no word for. Readers get a
number in their place: 0.0 for NaN, which is what codes leave where nothing was scored (0/0), and the largest double,
with its sign, for an infinity. (null would be as legal, but one null among the values keeps the web editor from showing
any result of the simulation.) What is stored stays as it is. No other module knows any of this.
"""

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from isal import isal_zlib

from yaptide.domain.errors import InvalidInput
from yaptide.persistence.payload import Payload as Payload

_EXTRA = b"YP\x01\x00\x01"  # subfield YP, 1 byte of data: version 1
_MARKED = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff" + struct.pack("<H", len(_EXTRA)) + _EXTRA
_PLAIN = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_FINAL = b"\x03\x00"
_TRAILER = struct.Struct("<II")
_TAIL = len(_FINAL) + _TRAILER.size
_LEVEL = 2
_CHUNK = 1 << 20
#: A string, which is passed over, or a number that JSON has no word for.
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|NaN|-?Infinity', re.DOTALL)
_SUBSTITUTES = {
    b"NaN": b"0.0",
    b"Infinity": b"1.7976931348623157e308",
    b"-Infinity": b"-1.7976931348623157e308",
}


def encode(value: object) -> Payload:
    """Write `value` (anything JSON can say, numpy arrays included) as a payload; floats in shortest round-trip form.

    NaN and infinities have no word in JSON and would become null: callers that hold numbers check them first.
    Raises InvalidInput for values of other types.
    """
    try:
        text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InvalidInput(f"This cannot be written as JSON: {error}") from error
    return encode_text(text)


def encode_text(text: bytes | memoryview) -> Payload:
    """Wrap JSON `text` that was checked before as a payload, without changing a byte of it."""
    data = _MARKED + _segment(text) + _FINAL + _TRAILER.pack(isal_zlib.crc32(text), len(text) & 0xFFFFFFFF)
    return Payload(data, len(text), hashlib.sha256(text).hexdigest())


def decode_text(data: bytes) -> bytes:
    """The JSON text of a payload, whoever wrote it.

    Raises InvalidInput if the payload is damaged: cut short, wrong CRC, or not gzip at all.
    """
    inflater = isal_zlib.decompressobj(wbits=31)
    try:
        text: bytes = inflater.decompress(data) + inflater.flush()
    except isal_zlib.error as error:  # type: ignore[misc]  # its stub calls it a value
        raise InvalidInput(f"A stored payload is damaged: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise InvalidInput("A stored payload is damaged: it does not end where it should")
    return text


def decode(data: bytes) -> Any:
    """The value of a payload; raises InvalidInput if it is damaged."""
    try:
        return orjson.loads(_readable(data))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"A stored payload is damaged: {error}") from error


def numbers_replaced(text: bytes) -> int:
    """How many numbers in the JSON `text` of a foreign payload readers get something else for."""
    if _json_numbers_only(text):
        return 0
    return sum(found[0] in _SUBSTITUTES for found in _STRING_OR_NUMBER.finditer(text))


def written_here(data: bytes) -> bool:
    """Whether a payload is one of ours: those never hold NaN, and are joined with others as they are."""
    return data.startswith(_MARKED)


def check_joinable(data: bytes) -> None:
    """Raise InvalidInput unless a document that the payload is copied into can be read."""
    if decode_text(b"".join(stitch([Stored(data)]))) != b"".join(plain([Stored(data)])):
        raise InvalidInput("A stored payload is damaged: it cannot be joined with others")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored payload as a part of a document, in contrast to glue, which is plain bytes of JSON text."""

    data: bytes


def stitch(parts: Iterable[bytes | Stored]) -> Iterator[bytes | memoryview]:
    """One gzip member of the JSON text that `parts` make one after the other, as chunks to send.

    Stored payloads are copied, not inflated; glue is compressed. Memory is that of the largest part.
    """
    yield _PLAIN
    crc = size = 0
    for part in parts:
        segment, part_crc, part_size = _copied(part.data) if isinstance(part, Stored) else _compressed(part)
        crc = isal_zlib.crc32_combine(crc, part_crc, part_size)
        size += part_size
        yield segment
    yield _FINAL + _TRAILER.pack(crc, size & 0xFFFFFFFF)


def plain(parts: Iterable[bytes | Stored]) -> Iterator[bytes]:
    """The JSON text that `parts` make, for clients that do not accept gzip, inflated piece by piece."""
    for part in parts:
        if not isinstance(part, Stored):
            yield part
        elif part.data.startswith(_MARKED):
            yield from _inflate(part.data)
        else:
            yield _readable(part.data)


def _readable(data: bytes) -> bytes:
    """The JSON text of a payload as readers get it."""
    text = decode_text(data)
    if data.startswith(_MARKED) or _json_numbers_only(text):
        return text
    return _STRING_OR_NUMBER.sub(lambda found: _SUBSTITUTES.get(found[0], found[0]), text)


def _json_numbers_only(text: bytes) -> bool:
    """A quick look that tells of most texts that they hold no NaN and no infinity."""
    return b"NaN" not in text and b"Infinity" not in text


def _segment(text: bytes | memoryview) -> bytes:
    deflater = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
    return bytes(deflater.compress(text) + deflater.flush(isal_zlib.Z_FULL_FLUSH))


def _compressed(text: bytes) -> tuple[bytes, int, int]:
    return _segment(text), isal_zlib.crc32(text), len(text)


def _copied(data: bytes) -> tuple[bytes | memoryview, int, int]:
    if not data.startswith(_MARKED):
        return _compressed(_readable(data))
    if len(data) < len(_MARKED) + _TAIL:
        raise InvalidInput("A stored payload is damaged: it is cut short")
    crc, size = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    return memoryview(data)[len(_MARKED) : -_TAIL], crc, size


def _inflate(data: bytes) -> Iterator[bytes]:
    inflater = isal_zlib.decompressobj(wbits=31)
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        piece = inflater.decompress(view[start : start + _CHUNK], _CHUNK)
        while piece:
            yield piece
            piece = inflater.decompress(inflater.unconsumed_tail, _CHUNK)

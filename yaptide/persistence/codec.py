"""Payloads: JSON text in one gzip member that can be joined with others without decompressing it.

A payload is a standard gzip member (RFC 1952) that any tool can read. One written by yaptide has an extra field ``YP``,
which guarantees how its deflate data (RFC 1951) ends: with a full flush, so that it ends on a byte boundary and nothing
after it refers back, followed by an empty final block (``03 00``). Such data can be copied between other such data. A
document made of many payloads is then again one member: a header, the stored data with *glue* between them (the JSON
brackets and names around the payloads), a final block, and a trailer with the CRC-32 combined from those of the parts.

Payloads from other writers (plain ``gzip.compress``) lack this field. They are decompressed and compressed again when
they are joined. Python's json module writes NaN and Infinity, which JSON does not have. Readers get null instead, or,
among the values of a page, a 0 that `data.missing` lists (`yaptide.domain.estimators`). The stored bytes do not change.
No other module knows this layout.
"""

import hashlib
import json
import re
import struct
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import IO, Any, cast

import orjson
from isal import isal_zlib

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import has_missing_values, with_missing_named
from yaptide.persistence.payload import AnyPayload, LargePayload, Payload as Payload

_EXTRA = b"YP\x01\x00\x01"  # subfield YP, 1 byte of data: version 1
_MARKED = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff" + struct.pack("<H", len(_EXTRA)) + _EXTRA
_PLAIN = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_FINAL = b"\x03\x00"
_TRAILER = struct.Struct("<II")
_TAIL = len(_FINAL) + _TRAILER.size
#: Deflate compresses by at most this factor (258 bytes to 2 bits); gzip stores sizes modulo _GZIP_SIZES.
_MOST_DEFLATED = 1032
_GZIP_SIZES = 2**32
_LEVEL = 2
_CHUNK = 1 << 20
#: Bytes of text compressed at once, and the number of threads for it.
_PACKED = 1 << 19
_PACKERS = 2
#: Array elements in one piece of text.
NUMBERS = 50_000
#: Payloads of more bytes are not held in memory.
LARGE = 16 << 20
_FLUSHED = b"\0\0\xff\xff"
#: A string, which is skipped, or a number that JSON does not have.
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|NaN|-?Infinity', re.DOTALL)
_OTHER_WORDS = (b"NaN", b"-Infinity", b"Infinity")
#: A string (group 1), or numbers of a list, as Python writes them, except its last.
_STRING_OR_RUN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|(?:(?:-?[0-9][0-9.eE+-]*|NaN|-?Infinity),\s*){2,}', re.DOTALL)
#: Texts up to this length are held in memory as they are; of longer ones, strings up to the second length are kept.
_SHORT = 4 << 20
_LONG_STRING = 1 << 16
_QUOTE = re.compile(b'"')
_STRING_END = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONGEST_WORD = max(map(len, _OTHER_WORDS))


@dataclass(frozen=True, slots=True)
class Outline:
    """A JSON text; a large one without its long lists of numbers, and with long strings emptied (None: still too long).

    `size` and `sha256` are those of the whole text, `missing` counts its numbers that JSON does not have.
    """

    text: bytes | None
    size: int
    sha256: str
    missing: int


def encode_payload(value: object) -> Payload:
    """Encode `value` (anything JSON can express, and numpy arrays) as a payload, floats in shortest round-trip form.

    NaN and infinities would become null: callers that hold numbers check them first. Raises InvalidInput for values of
    other types.
    """
    return encode_text(_text(value))


def json_pieces(value: object) -> Iterator[bytes]:
    """Yield the JSON text that `encode_payload` wraps in pieces, so that long numpy arrays take little memory."""
    if isinstance(value, dict):
        glue = b"{"
        for name, inner in value.items():
            yield glue + _text(name) + b":"
            yield from json_pieces(inner)
            glue = b","
        yield b"}" if value else b"{}"
    elif getattr(value, "ndim", None) == 1 and len(array := cast("Any", value)) > NUMBERS:
        for start in range(0, len(array), NUMBERS):
            yield (b"," if start else b"[") + _text(array[start : start + NUMBERS])[1:-1]
        yield b"]"
    else:
        yield _text(value)


def _text(value: object) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InvalidInput(f"Cannot encode this as JSON: {error}") from error


def encode_text(text: bytes | memoryview) -> Payload:
    """Wrap JSON `text` that was checked before as a payload, byte for byte."""
    data = _MARKED + _segment(text) + _FINAL + _TRAILER.pack(isal_zlib.crc32(text), len(text) & 0xFFFFFFFF)
    return Payload(data, len(text), hashlib.sha256(text).hexdigest())


def compress(data: bytes) -> bytes:
    """Return bytes as gzip, quickly: for an answer that is not stored."""
    return bytes(isal_zlib.compress(data, _LEVEL, 31))


def encode_pieces(text: Iterable[bytes], file: IO[bytes]) -> AnyPayload:
    """Wrap pieces of JSON text as `encode_text` does; a large payload is appended to `file`."""
    start = file.seek(0, 2)
    crc = size = 0
    digest, last = hashlib.sha256(), b""
    packing = deque[Future[bytes]]()
    file.write(_MARKED)
    with ThreadPoolExecutor(_PACKERS) as packers:  # compression takes longest
        for piece in _gathered(text):
            if len(piece) >= _PACKED:
                packing.append(packers.submit(_segment, piece))
            else:
                last = piece  # too small for a thread
            crc = isal_zlib.crc32(piece, crc)
            size += len(piece)
            digest.update(piece)
            if len(packing) > _PACKERS:
                file.write(packing.popleft().result())
        while packing:
            file.write(packing.popleft().result())
    file.write(_segment(last) + _FINAL + _TRAILER.pack(crc, size & 0xFFFFFFFF))
    length = file.tell() - start
    file.flush()
    payload = LargePayload(file, start, length, size, digest.hexdigest())
    return payload if length > LARGE else Payload(b"".join(payload.chunks()), size, payload.sha256)


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces so that each but the last has at least `_PACKED` bytes."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= _PACKED:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def decode_text(data: bytes) -> bytes:
    """Return the JSON text of a payload from any writer.

    Raises InvalidInput if the payload is damaged: truncated, wrong CRC, or not gzip.
    """
    return b"".join(inflate_pieces([data]))


def inflate_pieces(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the JSON text of a payload given in pieces; raise InvalidInput, at the end, if it is damaged."""
    inflater = isal_zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            piece = inflater.decompress(chunk, _CHUNK)
            while piece:
                yield piece
                piece = inflater.decompress(inflater.unconsumed_tail, _CHUNK)
    except isal_zlib.error as error:  # type: ignore[misc]  # isal's stub declares a value
        raise InvalidInput(f"A stored payload is damaged: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise InvalidInput("A stored payload is damaged: it is truncated or has trailing data")


def decode_payload(data: bytes) -> Any:
    """Return the value of a payload; raise InvalidInput if it is damaged."""
    try:
        return orjson.loads(decode_readable(data))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"A stored payload is damaged: {error}") from error


def decode_readable_text(text: bytes) -> Any:
    """Return the value of a foreign JSON text with null for missing numbers; raise InvalidInput if it is not JSON."""
    try:
        return orjson.loads(text if _json_numbers_only(text) else b"".join(json_words([text])))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"A stored payload is damaged: {error}") from error


def numbers_replaced(text: bytes) -> int:
    """Count the numbers in the JSON `text` of a foreign payload that are replaced for readers."""
    if _json_numbers_only(text):
        return 0
    return sum(match[0] in _OTHER_WORDS for match in _STRING_OR_NUMBER.finditer(text))


def read_outline(chunks: Iterable[bytes | memoryview]) -> Outline:
    """Return the outline of a foreign payload given in pieces; a long text is not held in memory.

    Raises InvalidInput if the payload is damaged.
    """
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in inflate_pieces(chunks):
            digest.update(piece)
            size += len(piece)
            yield piece

    pieces = counted()
    text: bytes | None = b"".join(_take_pieces(pieces, _SHORT))
    rest = next(pieces, None)
    if rest is None:
        missing = numbers_replaced(text or b"")
    else:
        text, missing = _shortened(chain((text or b"", rest), pieces))
    return Outline(text, size, digest.hexdigest(), missing)


def _take_pieces(pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
    """Yield the first pieces, of at least `length` bytes."""
    taken = 0
    while taken < length and (piece := next(pieces, None)) is not None:
        yield piece
        taken += len(piece)


def _shortened(pieces: Iterable[bytes]) -> tuple[bytes | None, int]:
    """Return a JSON text without its long lists and strings (None if it is long even so), and its missing numbers."""
    missing, is_too_long, rest, text = 0, False, b"", bytearray()

    def keep_string(match: re.Match[bytes]) -> bytes:
        nonlocal missing
        if match[1] is None:
            missing += match[0].count(b"NaN") + match[0].count(b"Infinity")
        return match[1] or b""

    for piece in _empty_long_strings(pieces):
        whole = rest + piece
        cut = _find_cut(whole)
        rest = whole[cut:]
        text += _STRING_OR_RUN.sub(keep_string, whole[:cut])
        if len(text) > LARGE:
            missing += numbers_replaced(bytes(text))
            is_too_long = True
            text.clear()
    whole = bytes(text + rest)
    return (None if is_too_long else whole), missing + numbers_replaced(whole)


def _find_cut(text: bytes) -> int:
    """Return where JSON text that begins outside of strings can be cut: after a string, or a comma outside."""
    done = 0
    while opened := _QUOTE.search(text, done):
        closed = _STRING_END.match(text, opened.end())
        if closed is None:
            return max(done, text.rfind(b",", done, opened.start()) + 1)
        done = closed.end()
    return max(done, text.rfind(b",", done) + 1)


def _empty_long_strings(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield JSON text, given in pieces, with long strings replaced by empty ones."""
    in_string, is_long, rest = False, False, b""
    for chunk in chunks:
        text, done, pieces = rest + chunk, 0, list[bytes]()
        while closed := (_STRING_END.match if in_string else _QUOTE.search)(text, done):
            part = text[done : closed.end()]
            pieces.append(b'"' if in_string and (is_long or len(part) > _LONG_STRING) else part)
            done, in_string, is_long = closed.end(), not in_string, False
        last = text[done:]
        if not in_string:
            pieces.append(last)
            rest = b""
        else:
            is_long = is_long or len(last) > _LONG_STRING
            rest = last[len(last) - _cut_escape(last) :] if is_long else last
        yield b"".join(pieces)


def holds_other_words(chunks: Iterable[bytes | memoryview]) -> bool:
    """Return whether a text, given in pieces, may contain a number that JSON does not have."""
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        if not _json_numbers_only(text):
            return True
        rest = text[-_LONGEST_WORD:]
    return False


def json_words(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield JSON text, given in pieces, with null for each NaN and infinity that is not in a string."""
    in_string, rest = False, b""
    for chunk in chain(chunks, (b"",)):  # the empty chunk marks the end
        text, done, pieces = rest + chunk, 0, []
        while closed := (_STRING_END.match if in_string else _QUOTE.search)(text, done):
            piece = text[done : closed.end()]
            pieces.append(piece if in_string else _with_null(piece))
            done, in_string = closed.end(), not in_string
        last = text[done:] if in_string else _with_null(text[done:])
        cut = (_cut_escape(last) if in_string else _cut_word(last)) if chunk else 0
        rest = last[len(last) - cut :]
        yield b"".join((*pieces, last[: len(last) - cut]))


def _cut_escape(text: bytes) -> int:
    """Return 1 if a text inside a string ends with a backslash that escapes the next byte, else 0."""
    return (len(text) - len(text.rstrip(b"\\"))) % 2


def _cut_word(text: bytes) -> int:
    """Return how many bytes at the end of a text may be the start of a word that continues in the next piece."""
    parts = (word[:length] for word in _OTHER_WORDS for length in range(1, len(word)))
    return max((len(part) for part in parts if text.endswith(part)), default=0)


def _with_null(text: bytes) -> bytes:
    for word in _OTHER_WORDS:
        text = text.replace(word, b"null")
    return text


def written_here(data: bytes) -> bool:
    """Return whether yaptide wrote a payload: such payloads never contain NaN and are joined as they are."""
    return data.startswith(_MARKED)


def check_joinable(data: bytes, size: int) -> None:
    """Raise InvalidInput unless documents that contain this payload, of a text of `size` bytes, are readable."""
    stored = Stored(data, size)
    if decode_text(b"".join(stitch_gzip([stored]))) != b"".join(inflate_parts([stored])):
        raise InvalidInput("A stored payload is damaged: it cannot be joined with others")


def check_ends(head: bytes, tail: bytes) -> None:
    """Raise InvalidInput unless a payload made elsewhere begins and ends like those of yaptide.

    `head` and `tail` are at least its first and last 32 bytes. If the payload is also readable, it can be joined with
    others.
    """
    if not written_here(head):
        raise InvalidInput("The results are not encoded by yaptide: use its encoder")
    if tail[-_TAIL - len(_FLUSHED) : -_TRAILER.size] != _FLUSHED + _FINAL:
        raise InvalidInput("A stored payload is damaged: it cannot be joined with others")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored payload as a part of a document, as opposed to glue, which is plain JSON text in bytes.

    `size` is the length of its text in bytes. It may be omitted: gzip stores it modulo 2**32, so for payloads whose
    text may have 4 GiB or more it is then counted.
    """

    data: bytes
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """A stored payload by yaptide of `length` bytes as a part of a document, read in pieces when it is needed.

    `size` is the length of its text in bytes.
    """

    chunks: Iterable[bytes]
    length: int
    size: int


Part = bytes | Stored | Streamed


def stitch_gzip(parts: Iterable[Part]) -> Iterator[bytes | memoryview]:
    """Yield one gzip member with the JSON text of all `parts`, in chunks to send.

    Stored payloads are copied, not decompressed; glue is compressed. Memory use is that of the largest part, or of one
    piece of it if it is streamed.
    """
    yield _PLAIN
    crc = size = 0
    for part in parts:
        if isinstance(part, Streamed):
            part_crc, part_size = (yield from _passed_on(part.chunks)), part.size
        else:
            segment, part_crc, part_size = _copied(part) if isinstance(part, Stored) else _glue(part)
            yield segment
        crc = isal_zlib.crc32_combine(crc, part_crc, part_size)
        size += part_size
    yield _FINAL + _TRAILER.pack(crc, size & 0xFFFFFFFF)


def stitched_length(parts: Iterable[bytes | int]) -> int:
    """Return the length of the output of `stitch_gzip` for these parts; own payloads are given by their length."""
    around = len(_MARKED) + _TAIL
    inner = (part - around if isinstance(part, int) else len(_glue(part)[0]) for part in parts)
    return len(_PLAIN) + sum(inner) + _TAIL


def _passed_on(chunks: Iterable[bytes]) -> Generator[bytes, None, int]:
    """Yield the deflate data of a payload in pieces; return the checksum of its text."""
    skip, held = len(_MARKED), b""
    for chunk in chunks:
        held += chunk
        yield held[skip:-_TAIL]
        held, skip = held[-_TAIL:], 0
    crc: int = _TRAILER.unpack(held[-_TRAILER.size :])[0]
    return crc


def inflate_parts(parts: Iterable[Part]) -> Iterator[bytes]:
    """Yield the JSON text of `parts`, decompressed in pieces, for clients that do not accept gzip."""
    for part in parts:
        if isinstance(part, Streamed):
            yield from inflate_pieces(part.chunks)
        elif not isinstance(part, Stored):
            yield part
        elif part.data.startswith(_MARKED):
            yield from inflate_pieces(slice_data(part.data))
        else:
            yield decode_readable(part.data)


def slice_data(data: bytes | memoryview) -> Iterator[memoryview]:
    """Yield the data in slices: `inflate_pieces` copies input that it has not processed yet."""
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        yield view[start : start + _CHUNK]


def decode_readable(data: bytes) -> bytes:
    """Return the JSON text of a payload with missing numbers replaced for readers."""
    text = decode_text(data)
    if data.startswith(_MARKED) or (_json_numbers_only(text) and b"null" not in text):
        return text
    try:
        page = json.loads(text)
    except ValueError:  # not JSON: its bytes are kept; other checks report what is wrong
        return text
    if has_missing_values(page):
        text = json.dumps(with_missing_named(page), separators=(",", ":")).encode()
    return b"".join(json_words([text]))


def _json_numbers_only(text: bytes) -> bool:
    """Return False if the text may contain NaN or an infinity; a fast test that is conclusive for most texts."""
    return b"NaN" not in text and b"Infinity" not in text


def _segment(text: bytes | memoryview) -> bytes:
    deflater = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
    return bytes(deflater.compress(text) + deflater.flush(isal_zlib.Z_FULL_FLUSH))


@lru_cache(1024)
def _glue(text: bytes) -> tuple[bytes, int, int]:
    """Compress glue; the same brackets and names recur often."""
    return _compressed(text)


def _compressed(text: bytes) -> tuple[bytes, int, int]:
    return _segment(text), isal_zlib.crc32(text), len(text)


def _copied(part: Stored) -> tuple[bytes | memoryview, int, int]:
    data = part.data
    if not data.startswith(_MARKED):
        return _compressed(decode_readable(data))
    if len(data) < len(_MARKED) + _TAIL:
        raise InvalidInput("A stored payload is damaged: it is truncated")
    crc, size = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    if part.size is not None:
        size = part.size
    elif len(data) * _MOST_DEFLATED > _GZIP_SIZES:
        size = sum(map(len, inflate_pieces(slice_data(data))))
    return memoryview(data)[len(_MARKED) : -_TAIL], crc, size

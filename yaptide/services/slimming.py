"""Large JSON texts that are looked at without being in memory.

Nearly all of a large page is lists of numbers. Those are read piece by piece, checked, counted and left out: what
remains is a small JSON text, in which two numbers stand for each piece: a mark, drawn at random, and the number of the
piece. What is valid in that text is valid in the whole, and the other way round, since a piece is left out only if it
is some numbers with commas between them.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import msgspec

from yaptide.persistence.payload import pieces

_BLOCK = 1 << 15
_FEWEST = 100
_NUMBERS = msgspec.json.Decoder(list[float])


class _Left(NamedTuple):
    """A piece that was left out: where it begins, its bytes, its numbers."""

    start: int
    length: int
    numbers: int


@dataclass(frozen=True, slots=True)
class Slim:
    """A JSON `text` without the pieces in `left`."""

    text: bytes
    mark: int = 0
    left: list[_Left] = field(default_factory=list)

    def count(self, values: list[float]) -> int:
        """How many numbers a list in the whole text has, given the one in ours."""
        mark, total, place = float(self.mark), len(values), 0
        with suppress(ValueError):  # there is no further one
            while self.left:
                place = values.index(mark, place) + 1
                total += self.left[int(values[place])].numbers - 2
        return total

    def is_whole(self, text: str) -> bool:
        """Whether nothing is left out in a string."""
        return not self.left or str(self.mark) not in text

    def original(self, part: bytes | memoryview, file: IO[bytes]) -> Iterator[bytes]:
        """A part of our text as it is in the `file`, which holds the whole; piece by piece."""
        text, end = bytes(part), 0
        if self.left:
            for found in re.finditer(rb"%d,(\d+)" % self.mark, text):
                yield text[end : found.start()]
                left = self.left[int(found[1])]
                yield from pieces(file, left.start, left.length)
                end = found.end()
        yield text[end:]


def slim(chunks: Iterable[bytes | memoryview]) -> Slim:
    """Leave out of a text, given piece by piece, what is nothing but numbers."""
    mark = 10**15 + secrets.randbelow(8 * 10**15)  # below 2**53: the same number as a double
    text, left = bytearray(), list[_Left]()
    rest, start = b"", 0  # what has not been looked at, and where it begins
    for block in _blocks(chunks):
        whole = rest + block
        first, last = whole.find(b","), whole.rfind(b",")
        count = _count(whole[first + 1 : last]) if first < last else 0
        if count:
            text += whole[: first + 1] + b"%d,%d" % (mark, len(left))
            left.append(_Left(start + first + 1, last - first - 1, count))
        else:
            last = last if last > 0 else len(whole)
            text += whole[:last]
        rest = whole[last:]
        start += last
    return Slim(bytes(text + rest), mark, left)


def _blocks(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        for start in range(0, len(chunk), _BLOCK):
            yield chunk[start : start + _BLOCK]


def _count(text: bytes) -> int:
    """How many numbers a text is that is nothing but numbers with commas between them; otherwise, or if few, 0."""
    try:
        count = len(_NUMBERS.decode(b"[%b]" % text))
    except msgspec.MsgspecError:
        return 0
    return count if count >= _FEWEST else 0

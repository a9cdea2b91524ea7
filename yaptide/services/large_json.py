"""Large JSON texts that are checked without holding them in memory.

Nearly all of a large page is lists of numbers. They are read in pieces, checked, counted and left out. What remains is
a small JSON text, in which two numbers replace each piece: a random mark, and the number of the piece. That text is
valid exactly if the whole is, because a piece is left out only if it consists of numbers or nulls separated by commas.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput
from yaptide.persistence.payload import read_pieces

_BLOCK = 1 << 15
#: Maximum bytes of the remaining text.
_MOST = 128 << 20
_FEWEST = 100
_NUMBERS = msgspec.json.Decoder(list[float | None])
#: An integer with this many digits may have no exact double.
_LONG_INTEGER = re.compile(rb"(?<![\d.eE+])\d{16,}(?![\d.eE])")
_LARGEST_EXACT = 2**53

#: Returns bytes of the whole text, given their start and number.
Read = Callable[[int, int], bytes]


class _Piece(NamedTuple):
    """A piece that was left out: its start, its bytes, its numbers, and how many of them are null."""

    start: int
    length: int
    numbers: int
    nulls: int


@dataclass(frozen=True, slots=True)
class LargeJson:
    """A JSON `text` without the `pieces` that were left out."""

    text: bytes
    mark: int = 0
    pieces: list[_Piece] = field(default_factory=list)

    def count(self, values: Sequence[object]) -> int:
        """Count the numbers of a list in the whole text, given the list in the remaining text."""
        return len(values) + sum(piece.numbers - 2 for _, piece in self._left_out(values))

    def nulls(self, values: Sequence[object]) -> int:
        """Count the nulls of a list in the whole text, given the list in the remaining text."""
        return list(values).count(None) + sum(piece.nulls for _, piece in self._left_out(values))

    def read_numbers(self, values: Sequence[int | float | None], read: Read, room: NDArray[np.float64]) -> None:
        """Fill `room` with the numbers of a list in the whole text, NaN for null.

        Raises InvalidInput for integers too large to be exact as doubles.
        """
        end = position = 0
        for found_at, piece in self._left_out(values):
            end = begin = _put(room, end, _exact(values[position:found_at]))
            text = read(piece.start, piece.length)
            end = _put(room, begin, _NUMBERS.decode(b"[%b]" % text))
            if np.nanmax(np.abs(room[begin:end]), initial=0) > _LARGEST_EXACT:  # the text of few pieces is searched
                _exact([int(digits) for digits in _LONG_INTEGER.findall(text)])
            position = found_at + 2
        _put(room, end, _exact(values[position:]))

    def _left_out(self, values: Sequence[object]) -> Iterator[tuple[int, _Piece]]:
        """Yield the positions in a list where pieces were left out, and the pieces."""
        mark, position = float(self.mark), 0
        with suppress(ValueError):  # there is no further mark
            while self.pieces:
                position = values.index(mark, position)
                yield position, self.pieces[int(values[position + 1])]  # type: ignore[call-overload]
                position += 2

    def is_whole(self, text: str) -> bool:
        """Return whether nothing was left out in a string."""
        return not self.pieces or str(self.mark) not in text

    def original(self, part: bytes | memoryview, file: IO[bytes]) -> Iterator[bytes]:
        """Yield a part of the remaining text as it is in the `file` with the whole text."""
        text, end = bytes(part), 0
        if self.pieces:
            for match in re.finditer(rb"%d,(\d+)" % self.mark, text):
                yield text[end : match.start()]
                piece = self.pieces[int(match[1])]
                yield from read_pieces(file, piece.start, piece.length)
                end = match.end()
        yield text[end:]


def slim_json(chunks: Iterable[bytes | memoryview]) -> LargeJson:
    """Leave out pieces of numbers from a text given in chunks; raise InvalidInput if too much remains."""
    mark = 10**15 + secrets.randbelow(8 * 10**15)  # below 2**53: the same number as a double
    text, pieces = bytearray(), list[_Piece]()
    pending, start = b"", 0  # not processed yet, and its offset
    for block in _blocks(chunks):
        whole = pending + block
        first, last = whole.find(b","), whole.rfind(b",")
        numbers = _decoded(whole[first + 1 : last]) if first < last else []
        if len(numbers) >= _FEWEST:
            text += whole[: first + 1] + b"%d,%d" % (mark, len(pieces))
            nulls = numbers.count(None) if b"null" in whole else 0  # searching bytes is faster
            pieces.append(_Piece(start + first + 1, last - first - 1, len(numbers), nulls))
        else:
            last = last if last > 0 else len(whole)
            text += whole[:last]
        pending = whole[last:]
        start += last
        if len(text) + len(pending) > _MOST:
            raise InvalidInput(f"There are more than {_MOST} bytes besides numbers")
    return LargeJson(bytes(text + pending), mark, pieces)


def _blocks(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        for start in range(0, len(chunk), _BLOCK):
            yield chunk[start : start + _BLOCK]


def _decoded(text: bytes) -> list[float | None]:
    """Return the numbers in a text of numbers separated by commas; empty for any other text."""
    try:
        return _NUMBERS.decode(b"[%b]" % text)
    except msgspec.MsgspecError:
        return []


def _put(room: NDArray[np.float64], start: int, numbers: Sequence[int | float | None]) -> int:
    room[start : start + len(numbers)] = numbers
    return start + len(numbers)


def _exact(numbers: Sequence[int | float | None]) -> Sequence[int | float | None]:
    if any(isinstance(number, int) and abs(number) > _LARGEST_EXACT for number in numbers):
        raise InvalidInput("it has integers above 2**53, which would lose digits")
    return numbers

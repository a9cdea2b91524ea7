"""Large JSON texts that are looked at without being in memory.

Nearly all of a large page is lists of numbers. Those are read piece by piece, checked, counted and left out: what
remains is a small JSON text, in which two numbers stand for each piece: a mark, drawn at random, and the number of the
piece. What is valid in that text is valid in the whole, and the other way round, since a piece is left out only if it
is some numbers, or null in the place of one, with commas between them.
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
#: Bytes that may remain of a text.
_MOST = 128 << 20
_FEWEST = 100
_NUMBERS = msgspec.json.Decoder(list[float | None])
#: A whole number of so many digits may be one that no double is equal to.
_LONG_INTEGER = re.compile(rb"(?<![\d.eE+])\d{16,}(?![\d.eE])")
_LARGEST_EXACT = 2**53

#: Gives bytes of the whole text: where they begin, and how many.
Read = Callable[[int, int], bytes]


class _Left(NamedTuple):
    """A piece that was left out: where it begins, its bytes, its numbers, and how many of them are null."""

    start: int
    length: int
    numbers: int
    nulls: int


@dataclass(frozen=True, slots=True)
class LargeJson:
    """A JSON `text` without the pieces in `left`."""

    text: bytes
    mark: int = 0
    left: list[_Left] = field(default_factory=list)

    def count(self, values: Sequence[object]) -> int:
        """How many numbers a list in the whole text has, given the one in ours."""
        return len(values) + sum(left.numbers - 2 for _, left in self._left_out(values))

    def nulls(self, values: Sequence[object]) -> int:
        """How many of them are null."""
        return list(values).count(None) + sum(left.nulls for _, left in self._left_out(values))

    def read_numbers(self, values: Sequence[int | float | None], read: Read, room: NDArray[np.float64]) -> None:
        """Fill `room` with the numbers of a list in the whole text, NaN for null.

        Raises InvalidInput for whole numbers that are too large to be exact as doubles.
        """
        end = place = 0
        for at, left in self._left_out(values):
            end = _put(room, end, _exact(values[place:at]))
            text, begin = read(left.start, left.length), end
            end = _put(room, begin, _NUMBERS.decode(b"[%b]" % text))
            if np.nanmax(np.abs(room[begin:end]), initial=0) > _LARGEST_EXACT:
                _exact([int(digits) for digits in _LONG_INTEGER.findall(text)])
            place = at + 2
        _put(room, end, _exact(values[place:]))

    def _left_out(self, values: Sequence[object]) -> Iterator[tuple[int, _Left]]:
        """Where in a list of ours pieces were left out, and which."""
        mark, place = float(self.mark), 0
        with suppress(ValueError):  # there is no further one
            while self.left:
                place = values.index(mark, place)
                yield place, self.left[int(values[place + 1])]  # type: ignore[call-overload]
                place += 2

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
                yield from read_pieces(file, left.start, left.length)
                end = found.end()
        yield text[end:]


def slim_json(chunks: Iterable[bytes | memoryview]) -> LargeJson:
    """Leave out of a text, given piece by piece, what is nothing but numbers; raises InvalidInput if much remains."""
    mark = 10**15 + secrets.randbelow(8 * 10**15)  # below 2**53: the same number as a double
    text, left = bytearray(), list[_Left]()
    rest, start = b"", 0  # what has not been looked at, and where it begins
    for block in _blocks(chunks):
        whole = rest + block
        first, last = whole.find(b","), whole.rfind(b",")
        numbers = _decoded(whole[first + 1 : last]) if first < last else []
        if len(numbers) >= _FEWEST:
            text += whole[: first + 1] + b"%d,%d" % (mark, len(left))
            nulls = numbers.count(None) if b"null" in whole else 0  # the bytes are looked through sooner
            left.append(_Left(start + first + 1, last - first - 1, len(numbers), nulls))
        else:
            last = last if last > 0 else len(whole)
            text += whole[:last]
        rest = whole[last:]
        start += last
        if len(text) + len(rest) > _MOST:
            raise InvalidInput(f"There are more than {_MOST} bytes of something else than numbers")
    return LargeJson(bytes(text + rest), mark, left)


def _blocks(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        for start in range(0, len(chunk), _BLOCK):
            yield chunk[start : start + _BLOCK]


def _decoded(text: bytes) -> list[float | None]:
    """The numbers that a text is, if it is nothing but numbers with commas between them."""
    try:
        return _NUMBERS.decode(b"[%b]" % text)
    except msgspec.MsgspecError:
        return []


def _put(room: NDArray[np.float64], start: int, numbers: Sequence[int | float | None]) -> int:
    room[start : start + len(numbers)] = numbers
    return start + len(numbers)


def _exact(numbers: Sequence[int | float | None]) -> Sequence[int | float | None]:
    if any(isinstance(number, int) and abs(number) > _LARGEST_EXACT for number in numbers):
        raise InvalidInput("it holds whole numbers above 2**53, of which digits would get lost")
    return numbers

"""Reading numbers and words from input files, with refusals that name the file and the line."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an input file: where it is, and its words."""

    file: str
    number: int
    words: tuple[str, ...]

    def refusal(self, why: str) -> InvalidInput:
        """The error to raise when this line is wrong."""
        return InvalidInput(f"{self.file}, line {self.number}: {why}")

    def real(self, index: int, what: str, low: float = -math.inf, high: float = math.inf) -> float:
        """The word at `index` as a finite number, `low` <= number <= `high`; raises InvalidInput."""
        if index >= len(self.words):
            raise self.refusal(f"{what} is missing")
        word = self.words[index]
        value = float(word) if _NUMBER.fullmatch(word) else math.nan
        if not math.isfinite(value):
            raise self.refusal(f"{what} must be a number, not {quote_word(word)}")
        if not low <= value <= high:
            raise self.refusal(f"{what} must be {_limits(low, high)}, not {word[:40]}")
        return value

    def integer(self, index: int, what: str, low: int, high: int) -> int:
        """The word at `index` as a whole number (``1e5`` is one), `low` <= number <= `high`; raises InvalidInput."""
        value = self.real(index, what, low, high)
        if not value.is_integer():
            raise self.refusal(f"{what} must be a whole number, not {self.words[index][:40]}")
        return int(value)

    def reals(self, count: int, what: str) -> tuple[float, ...]:
        """The line as exactly `count` numbers; raises InvalidInput."""
        if len(self.words) != count:
            raise self.refusal(f"{what}: {count} numbers are needed, found {len(self.words)} words")
        return tuple(self.real(index, what) for index in range(count))


def _limits(low: float, high: float) -> str:
    if high == math.inf:
        return f"{low:g} or more"
    if low == -math.inf:
        return f"{high:g} or less"
    return f"between {low:g} and {high:g}"


def quote_word(word: str) -> str:
    """A word of the user's, fit to be shown in an error."""
    return repr(word if len(word) <= 40 else word[:40] + "...")


def filled_lines(file: str, text: str, comment: str = "#") -> list[Line]:
    """The lines of `text` that hold something, up to any character of `comment`. Any kind of line end will do."""
    mark = re.compile(f"[{re.escape(comment)}]")
    numbered = enumerate((mark.split(line, maxsplit=1)[0].split() for line in text.splitlines()), 1)
    return [Line(file, number, tuple(words)) for number, words in numbered if words]


def require_text(files: Mapping[str, str], name: str, what: str) -> str:
    """The text of the file `name`; raises InvalidInput if it was not given."""
    if name not in files:
        raise InvalidInput(f"{what} {name!r} is missing from the input files")
    return files[name]

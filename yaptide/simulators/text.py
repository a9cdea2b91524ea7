"""Parses numbers and words of input files, with errors that name the file and line."""

import base64
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput
from yaptide_client.texts import explain_undecoded

#: Suffix for names of binary files in base64.
BASE64 = ".base64"
_TEXTS = (".txt", ".dat", ".inp", ".mhd")
#: The byte order mark, where a text was decoded without removing it.
BYTE_ORDER_MARK = "\ufeff"

#: Codes separate words by ASCII blanks only.
_WORD = re.compile(r"[^ \t\n\r\f\v]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an input file with its position and words."""

    file: str
    number: int
    words: tuple[str, ...]

    def make_error(self, why: str) -> InvalidInput:
        """Return the error to raise when this line is invalid."""
        return InvalidInput(f"{self.file}, line {self.number}: {why}")

    def parse_real(self, index: int, what: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Return the word at `index` as a finite number, `low` <= number <= `high`; raise InvalidInput."""
        if index >= len(self.words):
            raise self.make_error(f"{what} is missing")
        word = self.words[index]
        value = float(word) if _NUMBER.fullmatch(word) else math.nan
        if not math.isfinite(value):
            raise self.make_error(f"{what} must be a number, not {quote_word(word)}")
        if not low <= value <= high:
            raise self.make_error(f"{what} must be {_limits(low, high)}, not {word[:40]}")
        return value

    def parse_integer(self, index: int, what: str, low: int, high: int) -> int:
        """Return the word at `index` as an integer (also ``1e5``), `low` <= number <= `high`; raise InvalidInput."""
        value = self.parse_real(index, what, low, high)
        if not value.is_integer():
            raise self.make_error(f"{what} must be a whole number, not {self.words[index][:40]}")
        return int(value)

    def parse_reals(self, count: int, what: str) -> tuple[float, ...]:
        """Return the line as exactly `count` numbers; raise InvalidInput."""
        if len(self.words) != count:
            raise self.make_error(f"{what}: {count} numbers are needed, found {len(self.words)} words")
        return tuple(self.parse_real(index, what) for index in range(count))


def _limits(low: float, high: float) -> str:
    if high == math.inf:
        return f"{low:g} or more"
    if low == -math.inf:
        return f"{high:g} or less"
    return f"between {low:g} and {high:g}"


def quote_word(word: str) -> str:
    """Return a word of the user in quotes, shortened for an error message."""
    return repr(word if len(word) <= 40 else word[:40] + "...")


def find_similar(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean ...?" for a word that is similar to a known one; empty if there is none."""
    similar = difflib.get_close_matches(word[:80], sorted(known), 1)
    return f", did you mean {similar[0]}?" if similar else ""


def filled_lines(file: str, text: str, comment: str = "#") -> list[Line]:
    """Return the non-empty lines of `text` without comments, which begin with any character of `comment`."""
    mark = re.compile(f"[{re.escape(comment)}]")
    numbered = enumerate((_WORD.findall(mark.split(line, maxsplit=1)[0]) for line in split_lines(text)), 1)
    return [Line(file, number, tuple(words)) for number, words in numbered if words]


def split_lines(text: str) -> list[str]:
    """Return the lines of a text as codes see them: they end with LF or CR LF, and with no other character."""
    lines = text.removeprefix(BYTE_ORDER_MARK).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def require_text(files: Mapping[str, str], name: str, what: str) -> str:
    """Return the text of the file `name`; raise InvalidInput if it is missing, or not text."""
    if name in files:
        return files[name]
    if name + BASE64 in files:
        raise _explain(files, name)
    raise InvalidInput(f"{what} {quote_word(name)} is missing from the input files")


def explain_undecoded_files(files: Mapping[str, str]) -> None:
    """Raise InvalidInput for the first file that should be text, by the ending of its name, and is not."""
    for name in files:
        if name.lower().endswith(tuple(ending + BASE64 for ending in _TEXTS)):
            raise _explain(files, name.removesuffix(BASE64))


def _explain(files: Mapping[str, str], name: str) -> InvalidInput:
    return InvalidInput(explain_undecoded(name, decode_base64(name + BASE64, files[name + BASE64])))


def decode_base64(file: str, text: str) -> bytes:
    """Return the bytes of a binary file; raise InvalidInput if its text is not base64."""
    with suppress(ValueError):
        return base64.b64decode(text, validate=True)
    try:  # with line breaks: a copy of what may be a hundred megabytes
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise InvalidInput(f"{file}: not base64") from None

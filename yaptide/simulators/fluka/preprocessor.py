"""The preprocessor of FLUKA: ``#define``, ``#undef``, ``#if``, ``#elif``, ``#else``, ``#endif``, ``#include``.

Format: the FLUKA manual, chapter "The input preprocessor". A condition is true if its name is defined; ``$NAME`` stands
for the value of a name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from yaptide.simulators.base import InputFiles
from yaptide.simulators.text import Line, quote_word, split_lines

_DIRECTIVE = re.compile(r"#([A-Za-z]+)(?:\s+(.*))?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,39}")
_VARIABLE = re.compile(r"\$([A-Za-z0-9_]{1,40})")
_MOST_LEVELS = 10
#: Limits of what files can become that include others many times: numbers of includes, and of characters in them.
_MOST_INCLUDES, _MOST_INCLUDED = 1000, 10_000_000
#: Characters of a value, and of a word with variables. A line of FLUKA has 80 or 132.
_LONGEST = 132


@dataclass(frozen=True, slots=True)
class Content:
    """A line of the deck that counts: where it is, its text, and the names that are defined there."""

    line: Line
    text: str
    defined: dict[str, str]

    def replace_variables(self, text: str) -> str:
        """Replace ``$NAME`` in a part of the line; raise InvalidInput for a name without a value, or a long text."""
        if len(text) > _LONGEST and "$" in text:
            raise self.line.make_error(f"{quote_word(text)} has more than {_LONGEST} characters")
        return _VARIABLE.sub(self._value, text)

    def variables(self) -> Iterator[tuple[int, int]]:
        """Yield the columns, from 0, where variables begin and end."""
        return (match.span() for match in _VARIABLE.finditer(self.text))

    def _value(self, match: re.Match[str]) -> str:
        value = self.defined.get(match[1])
        if not value:
            raise self.line.make_error(f"{quote_word(match[0])} is not defined before: add #define {match[1]} value")
        return value


@dataclass(slots=True)
class _Condition:
    """A condition: where it began, whether its present part counts, and whether one of its parts has counted.

    Nothing counts if what is around the condition does not.
    """

    line: Line
    is_reached: bool
    counts: bool
    has_counted: bool
    has_else: bool = False


@dataclass(slots=True)
class _State:
    files: InputFiles
    defined: dict[str, str] = field(default_factory=dict)
    conditions: list[_Condition] = field(default_factory=list)
    includes: int = 0
    included: int = 0

    def counts(self) -> bool:
        return not self.conditions or (self.conditions[-1].is_reached and self.conditions[-1].counts)


def preprocess(files: InputFiles, name: str) -> Iterator[Content]:
    """Yield the lines of a deck that count, with those of included files; raise InvalidInput for wrong directives."""
    state = _State(files)
    yield from _lines(state, name, 0)
    if state.conditions:
        raise state.conditions[-1].line.make_error("#if without #endif")


def included_files(files: InputFiles, name: str) -> set[str]:
    """Return the names of files that a deck includes, whatever its conditions."""
    words = (line.split() for line in split_lines(files[name]) if line.startswith("#include"))
    return {parts[1].strip("\"'") for parts in words if len(parts) > 1}


def _lines(state: _State, name: str, level: int) -> Iterator[Content]:
    for number, text in enumerate(split_lines(state.files[name]), 1):
        line = Line(name, number, tuple(text.split()))
        match = _DIRECTIVE.match(text)
        if match is None:
            if state.counts() and not text.startswith("#"):
                yield Content(line, text, state.defined)
        elif not text.partition("!")[0].isascii():
            raise line.make_error("FLUKA reads ASCII characters, and the line has others")
        elif match[1] == "include":
            if state.counts():
                yield from _include(state, line, level)
        elif match[1] in {"if", "elif", "else", "endif"}:
            _decide(state, line, match[1])
        elif match[1] in {"define", "undef"}:
            if state.counts():
                _define(state, line, match[1])
        else:
            raise line.make_error(f"FLUKA has no directive {quote_word('#' + match[1])}")


def _include(state: _State, line: Line, level: int) -> Iterator[Content]:
    name = line.words[1].strip("\"'") if len(line.words) > 1 else ""
    if name not in state.files:
        raise line.make_error(f"the included file {quote_word(name)} is missing from the input files")
    if level >= _MOST_LEVELS:
        raise line.make_error(f"files are included over more than {_MOST_LEVELS} levels")
    state.includes += 1
    state.included += len(state.files[name])
    if state.includes > _MOST_INCLUDES or state.included > _MOST_INCLUDED:
        raise line.make_error("the included files are too many or too large: they may include each other repeatedly")
    yield from _lines(state, name, level + 1)


def _decide(state: _State, line: Line, directive: str) -> None:
    if directive == "if":
        truth = _truth(state, line)
        state.conditions.append(_Condition(line, state.counts(), truth, truth))
        return
    if not state.conditions:
        raise line.make_error(f"#{directive} without #if")
    condition = state.conditions[-1]
    if directive == "endif":
        state.conditions.pop()
        return
    if condition.has_else:
        raise line.make_error(f"#{directive} after #else")
    condition.has_else = directive == "else"
    truth = not condition.has_counted and (directive == "else" or _truth(state, line))
    condition.counts, condition.has_counted = truth, condition.has_counted or truth


def _truth(state: _State, line: Line) -> bool:
    if len(line.words) != 2 or not _NAME.fullmatch(line.words[1]):
        raise line.make_error(f"a condition must be one name, not {quote_word(' '.join(line.words[1:]))}")
    return line.words[1] in state.defined


def _define(state: _State, line: Line, directive: str) -> None:
    if len(line.words) < 2 or not _NAME.fullmatch(line.words[1]):
        raise line.make_error(f"#{directive} needs a name")
    if directive == "undef":
        state.defined.pop(line.words[1], None)
        return
    value = line.words[2] if len(line.words) > 2 else ""
    if len(value) > _LONGEST:
        raise line.make_error(f"the value of {line.words[1]} has more than {_LONGEST} characters")
    state.defined[line.words[1]] = value

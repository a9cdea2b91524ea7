"""Rules for input files, the same for every simulator."""

import re

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import InputFiles
from yaptide.simulators.text import BYTE_ORDER_MARK, Line, quote_word

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,127}")


def check_names(files: InputFiles) -> None:
    """Raise InvalidInput, with the first invalid name, for names that could refer to files outside a task's folder."""
    for name in files:
        if not _NAME.fullmatch(name) or name.endswith((".", " ")):
            raise InvalidInput(
                f"Input file name {name[:80]!r} is not allowed: use letters, digits and _ . + - only, no folders"
            )


def is_plain_name(name: str) -> bool:
    """Return whether a name is one of a file in the task's folder, which clusters send back."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def require_plain_name(line: Line, name: str, what: str) -> None:
    """Raise InvalidInput, with the line, for the name of an output file that could be outside the task's folder."""
    if not is_plain_name(name):
        raise line.make_error(
            f"{what} must be a file name without a folder, of letters, digits and _ . + - only, not {quote_word(name)}"
        )


def remove_marks(files: InputFiles) -> InputFiles:
    """Return the files without byte order marks, which codes would read as a part of the first word."""
    return {name: text.removeprefix(BYTE_ORDER_MARK) for name, text in files.items()}

"""FLUKA: an input file of cards, a keyword and six numbers in fixed columns, or with separators after ``FREE``.

Format: the FLUKA manual, chapter 6 (A8,2X,6E10.0,A8), and its options FREE, START and RANDOMIZe.
"""

import re
from collections.abc import Iterator, Sequence

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked, InputFiles
from yaptide.simulators.external import External
from yaptide.simulators.outputs import output_by_name
from yaptide.simulators.runs import MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import Line

_ENDING = ".inp"
_LARGEST_SEED = 9 * 10**8 - 1
_DEFAULT_PRIMARIES = "5000"
_GLOBAL_FREE = {"2.0", "2.", "2", "3.0", "3.", "3"}  # WHAT(4) of GLOBAL
_UNIT_FILE = re.compile(r"\d+_fort\.(\d+)")
_FIRST_UNIT = 21
_SEPARATOR = re.compile(r"\s*[,;/\\:]\s*|\s+")


class Fluka(External):
    """FLUKA, run by external workers."""

    name = "fluka"
    title = "FLUKA"

    def recognises(self, files: InputFiles) -> bool:
        """Return whether a file name ends in .inp."""
        return any(name.endswith(_ENDING) for name in files)

    def check(self, files: InputFiles) -> Checked:
        """Check the input file: primaries (WHAT(1) of START) and seed (WHAT(2) of RANDOMIZ); raise InvalidInput."""
        names = sorted(name for name in files if name.endswith(_ENDING))
        if len(names) != 1:
            raise InvalidInput(f"FLUKA needs one input file that ends in {_ENDING}, but there are {len(names)}")
        cards = {card.words[0].upper()[:8]: card for card in _cards(names[0], files[names[0]])}
        if "START" not in cards:
            raise InvalidInput(f"{names[0]}: the START card is missing, so nothing would be simulated")
        primaries = cards["START"].parse_integer(1, "WHAT(1) of START, the number of primaries,", 1, MOST_PRIMARIES)
        seed = 0
        if "RANDOMIZ" in cards and len(cards["RANDOMIZ"].words) > 2:
            seed = cards["RANDOMIZ"].parse_integer(2, "WHAT(2) of RANDOMIZ, the seed,", 0, _LARGEST_SEED)
        return Checked(primaries, quantum=1, seed=seed or draw_seed())

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Match by name, or by unit: the editor assigns the units 21, 22, ... to its outputs in order."""
        unit = _UNIT_FILE.fullmatch(file_name)
        if unit is None:
            return output_by_name(file_name, outputs)
        index = int(unit[1]) - _FIRST_UNIT
        return index if 0 <= index < len(outputs) and outputs[index] else None


def _cards(file: str, text: str) -> Iterator[Line]:
    """Yield the cards START and RANDOMIZ as keyword, WHAT(1), WHAT(2); skip the title and the geometry."""
    free = geometry = title = False
    for number, content in enumerate(text.splitlines(), 1):
        keyword = _SEPARATOR.split(content.strip() if free else content[:8].strip())[0].upper()
        if title or content.startswith(("*", "#")):
            title = False
        elif geometry:
            geometry = not keyword.startswith("GEOEND")
        elif keyword == "STOP":
            return
        elif keyword in {"START", "RANDOMIZ", "RANDOMIZE"}:
            yield Line(file, number, _values(content, keyword, free))
        else:
            free = free or keyword == "FREE" or (keyword == "GLOBAL" and content[40:50].strip() in _GLOBAL_FREE)
            geometry = keyword == "GEOBEGIN"
            title = keyword == "TITLE"


def _values(content: str, keyword: str, free: bool) -> tuple[str, ...]:
    defaults = (_DEFAULT_PRIMARIES if keyword == "START" else "1", "0")
    texts = _SEPARATOR.split(content.strip())[1:3] if free else [content[10:20].strip(), content[20:30].strip()]
    whats = [texts[index] if index < len(texts) and texts[index] else defaults[index] for index in range(2)]
    return keyword, *(what.upper().replace("D", "E") for what in whats)

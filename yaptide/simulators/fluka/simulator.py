"""FLUKA: an input file of cards, a keyword and six numbers in fixed columns, or with separators after ``FREE``.

Format: the FLUKA manual, chapter 6 (A8,2X,6E10.0,A8), "Input alignment", and its options FREE, GLOBAL, START
and RANDOMIZe. The manual wants seeds below 9e8, but FLUKA runs with larger ones.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import TaskOutput
from yaptide.editor.project import Project
from yaptide.simulators.base import (
    Checked,
    Command,
    Converted,
    InputFiles,
    Installation,
    Limits,
    ProgressRule,
    read_log,
)
from yaptide.simulators.files import require_plain_name
from yaptide.simulators.fluka.conversion import convert_project
from yaptide.simulators.fluka.preprocessor import Content, included_files, preprocess
from yaptide.simulators.fluka.sample import SAMPLE
from yaptide.simulators.licensed import LicensedProgram, Written, read_task, write_task
from yaptide.simulators.outputs import output_by_name
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import Line, explain_undecoded_files, split_lines

_ENDING = ".inp"
_DEFAULT_PRIMARIES = 5000
_GLOBAL_FREE = {2, 3}  # WHAT(4) of GLOBAL
_KEYWORDS = frozenset(["START", "RANDOMIZ", "STOP", "TITLE", "GEOBEGIN", "GEOEND", "GLOBAL", "FREE", "FIXED"])
_WITH_NUMBERS = frozenset({"START", "RANDOMIZ", "GLOBAL"})
_UNIT_FILE = re.compile(r"\w*\d_fort\.(\d+)")
_FIRST_UNIT = 21
_SEPARATOR = re.compile(r"\s*[,;/\\:]\s*|\s+")
_COLUMNS = 10
#: The deck's name in a task, what FLUKA calls its first cycle, and its last line in the output.
_TASK = "task.inp"
_RUN = "task001"
_END = r"^ ?\*+ =+ +End of FLUKA(?: +(\S+))? +run +=+ \*"
#: Scorers that pymchelper reads. Their first card has the unit in WHAT(3), negative if the file is binary.
_SCORERS = frozenset({"USRBIN", "USRBDX", "USRTRACK"})
#: Cards whose last field, the SDUM, names an output file.
_DUMPS, _SDUM = frozenset({"USERDUMP", "EVENTDAT"}), 7
#: WHATs of GEOBEGIN with units of files that the next lines name, and those that have none.
_GEOMETRY_UNITS = {3: {"", "5"}, 4: {"", "11"}}
_NO_RESULTS = "no results could be read: add a USRBIN, USRBDX or USRTRACK with a binary unit (WHAT(3) from -21 to -99)"
#: Limits of the columns of START, and of the manual for a seed.
_MOST_OF_TASK = 10**10 - 1
_LARGEST_FLUKA_SEED = 9 * 10**8 - 1
_WIDTH = 80
#: Numbers that mean the same wherever they are in their columns.
_WITH_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]*")


@dataclass(frozen=True, slots=True)
class Card:
    """A line with a keyword and numbers, in free format or in columns of 10 characters.

    Its numbers must be read before the next line is, which may define other values of variables.
    """

    content: Content
    free: bool

    @property
    def keyword(self) -> str:
        """The first 8 characters of the keyword."""
        text = self.content.text
        return _SEPARATOR.split(text.strip())[0][:8] if self.free else text[:8].strip()

    def what(self, number: int) -> str:
        """Return the text of WHAT(number), empty if there is none; raise InvalidInput if its columns are unclear."""
        text = self.content.text
        if self.free:
            words = _SEPARATOR.split(text.partition("!")[0].strip())
            return self.content.replace_variables(words[number]) if number < len(words) else ""
        begin, end = number * _COLUMNS, (number + 1) * _COLUMNS
        if "\t" in text[:end]:
            raise self.content.line.make_error("FLUKA reads columns, and the line has a tab: write spaces")
        if any(start < end < stop or start < begin < stop for start, stop in self.content.variables()):
            raise self.content.line.make_error(f"a variable reaches beyond the {_COLUMNS} columns of WHAT({number})")
        field = text[begin:end]
        if not ("$" in field or _is_aligned(field)):
            raise self.content.line.make_error(
                f"WHAT({number}) must end in column {end}, or have a point and no exponent: FLUKA reads blanks as zeros"
            )
        return self.content.replace_variables(field.strip())

    def number(self, number: int, what: str, low: float, high: float) -> float:
        """Return WHAT(number); raise InvalidInput unless it is a number between the limits."""
        word = self.what(number).upper().replace("D", "E") or "0"
        line = self.content.line
        return Line(line.file, line.number, (word,)).parse_real(0, what, low, high)

    def integer(self, number: int, what: str, default: int, low: int, high: int) -> int:
        """Return WHAT(number), the default if there is none; raise InvalidInput unless it is an integer."""
        word = self.what(number).upper().replace("D", "E") or str(default)
        line = self.content.line
        return Line(line.file, line.number, (word,)).parse_integer(0, what, low, high)


class Fluka(LicensedProgram):
    """FLUKA, installed by the site: the program is `rfluka`, which runs it in a folder of its own.

    `yaptide.simulators.base.Simulator` describes the methods.
    """

    name = "fluka"
    title = "FLUKA"
    progress_rule: ProgressRule | None = ProgressRule(
        f"**/{_RUN}.out", 8192, r"^ +(\d+) +\d+ +\d+ .*\n+ *NEXT SEEDS:", _END, counted=True
    )
    log_patterns = (f"{_RUN}.out", f"{_RUN}.log", f"{_RUN}.err", f"fluka_*/{_RUN}.out", f"fluka_*/{_RUN}.err")
    limits = Limits(task_primaries=_MOST_OF_TASK, seed=_LARGEST_FLUKA_SEED)
    expected_range = 157.7  # mm: CSDA range of 150 MeV protons in water (PSTAR)

    def recognises(self, files: InputFiles) -> bool:
        """Return whether a file name ends in .inp."""
        return any(map(_is_deck, files))

    def check(self, files: InputFiles) -> Checked:
        """Check the input file: primaries (WHAT(1) of START) and seed (WHAT(2) of RANDOMIZ); raise InvalidInput."""
        deck = _find_deck(files)
        primaries = seed = 0
        line: Line | None = None  # of START
        for card in _cards(preprocess(files, deck)):
            if card.keyword == "RANDOMIZ":
                seed = card.integer(2, "WHAT(2) of RANDOMIZ, the seed,", 0, 0, LARGEST_SEED)
            elif card.keyword == "START" and line is not None:
                raise card.content.line.make_error(
                    f"START is repeated, after line {line.number}: a run has one number of primaries"
                )
            elif card.keyword == "START":
                line, what = card.content.line, "WHAT(1) of START, the number of primaries,"
                primaries = card.integer(1, what, _DEFAULT_PRIMARIES, 1, MOST_PRIMARIES)
        if line is None:
            raise InvalidInput(f"{deck}: the START card is missing, so nothing would be simulated")
        if _TASK in files and deck != _TASK:
            raise InvalidInput(f"{_TASK} is the name of the deck in every task: give the included file another name")
        why = "" if _scored_units(_cards(preprocess(files, deck))) else f"{deck}: {_NO_RESULTS}"
        return Checked(primaries, quantum=1, seed=seed or draw_seed(), no_results=why)

    def convert(self, project: Project) -> Converted:
        """Convert a project of the web editor; raise InvalidInput for what cannot be simulated."""
        return convert_project(project)

    def sample(self) -> InputFiles:
        """Return 150 MeV protons in water."""
        return SAMPLE

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write the files with START and RANDOMIZ of the task; raise InvalidInput for too many primaries."""
        if primaries > _MOST_OF_TASK:
            raise InvalidInput(f"A task of FLUKA has at most {_MOST_OF_TASK} primaries: use more tasks")
        deck = _find_deck(files)
        written = _set_cards(files, _cards(preprocess(files, deck)), primaries, 1 + (seed - 1) % _LARGEST_FLUKA_SEED)
        renamed = {_TASK if name == deck else name: text for name, text in written.items()}
        write_task(renamed, primaries, _scored_units(_cards(preprocess(files, deck))), folder, (f"{_RUN}*",))

    def command(self, installation: Installation, folder: Path) -> Command:
        """Return the command for one cycle."""
        self.require_reader()
        return Command((str(installation.program), "-M", "1", _TASK), {})

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Return an estimator for each unit of USRBIN, USRBDX and USRTRACK, called like its number.

        Raises SimulationFailed.
        """
        self.require_end(folder, exit_code, (f"**/{_RUN}.err", f"**/{_RUN}.out"), _END)
        task = read_task(folder)
        written = [
            Written(unit, path.name, path) for unit in task.outputs if (path := folder / f"{_RUN}_fort.{unit}").exists()
        ]
        self.require_outputs(task.outputs, written)
        output = self.read_files(written, folder, task.primaries)
        version = {"code_version": _version_in(read_log(folder, self.log_patterns).get(f"{_RUN}.out", ""))}
        named = tuple(replace(each, metadata={**each.metadata, **version}) for each in output.estimators)
        return replace(output, estimators=named)

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Match by name, or by unit: the editor assigns the units 21, 22, ... to its outputs in order."""
        unit = _UNIT_FILE.fullmatch(file_name)
        if unit is None:
            return output_by_name(file_name, outputs)
        index = int(unit[1]) - _FIRST_UNIT
        return index if 0 <= index < len(outputs) and outputs[index] else None


def _is_aligned(field: str) -> bool:
    """Return whether blanks after a number do not change it if they are read as zeros."""
    return not field.strip() or len(field.rstrip()) == _COLUMNS or _WITH_POINT.fullmatch(field.strip()) is not None


def _is_deck(name: str) -> bool:
    return name.lower().endswith(_ENDING)


def _find_deck(files: InputFiles) -> str:
    """Return the name of the input file that no other one includes; raise InvalidInput unless there is one."""
    names = sorted(filter(_is_deck, files))
    included = {other for name in names for other in included_files(files, name) if other != name}
    decks = [name for name in names if name not in included]
    if not names:
        explain_undecoded_files(files)
    if len(decks) != 1:
        raise InvalidInput(f"FLUKA needs one input file that ends in {_ENDING}, but there are {len(decks)}")
    return decks[0]


def _cards(deck: Iterable[Content]) -> Iterator[Card]:
    """Yield the cards up to STOP; skip the title and the geometry."""
    free = geometry = title = False
    names = 0  # of files, in the next lines
    for content in deck:
        if title or content.text.startswith("*"):
            title = title and content.text.startswith("*")
            continue
        if not content.text[:_WIDTH].partition("!")[0].isascii():
            raise content.line.make_error("FLUKA reads columns of ASCII characters, and the line has others")
        card = Card(content, free)
        if names:
            _check_file_name(content)
            names -= 1
        if geometry:
            geometry = card.keyword != "GEOEND"
            continue
        _check_keyword(card)
        if card.keyword == "STOP":
            return
        yield card
        names = _count_names(card)
        free = _is_free(card)
        geometry, title = card.keyword == "GEOBEGIN", card.keyword == "TITLE"


def _count_names(card: Card) -> int:
    """Return how many of the next lines are names of files; raise InvalidInput for a wrong name in the card itself."""
    name = _field(card, _SDUM)
    if card.keyword in _DUMPS and name and not card.free:  # in free format, folders would be separators
        require_plain_name(card.content.line, name, f"The file of {card.keyword}")
    if card.keyword == "GEOBEGIN":
        return sum(_field(card, number).strip("+-0.") not in known for number, known in _GEOMETRY_UNITS.items())
    return int(card.keyword == "OPEN" and name != "SCRATCH")


def _field(card: Card, number: int) -> str:
    """Return what is in the columns of WHAT(`number`), whatever it is; after the sixth one is a name."""
    words = _SEPARATOR.split(card.content.text.partition("!")[0].strip())
    text = card.content.text[number * _COLUMNS : (number + 1) * _COLUMNS]
    if card.free:
        text = words[number] if number < len(words) else ""
    return card.content.replace_variables(text).strip()


def _check_file_name(content: Content) -> None:
    """Raise InvalidInput for a line that names a file outside the task's folder."""
    if name := content.replace_variables(content.text).strip():
        require_plain_name(content.line, name, "The file that FLUKA opens")


def _set_cards(files: InputFiles, cards: Iterable[Card], primaries: int, seed: int) -> dict[str, str]:
    """Return the files with other numbers in START and RANDOMIZ; a RANDOMIZ is added before START if there is none.

    Every other number and column is kept.
    """
    lines = {name: split_lines(text) for name, text in files.items()}
    has_seed = False
    for card in cards:
        if card.keyword not in {"START", "RANDOMIZ"}:
            continue
        line = card.content.line
        if card.keyword == "RANDOMIZ":
            has_seed, new = True, _with_what(card, 2, str(seed))
        else:
            added = [] if has_seed else [_with_what(_replace_text(card, "RANDOMIZ  "), 2, str(seed))]
            new = "\n".join([*added, _with_what(card, 1, str(primaries))])
        lines[line.file][line.number - 1] = new
    return {name: "\n".join(of_file) + "\n" for name, of_file in lines.items()}


def _replace_text(card: Card, text: str) -> Card:
    """Return a card with another text in the same format."""
    return replace(card, content=replace(card.content, text=text))


def _with_what(card: Card, number: int, value: str) -> str:
    """Return the text of a card with another WHAT(`number`), at the right of its columns, or between separators."""
    text, mark, comment = card.content.text.partition("!")
    if not card.free:
        begin, end = number * _COLUMNS, (number + 1) * _COLUMNS
        return f"{card.content.text[:begin]:<{begin}}{value:>{_COLUMNS}}{card.content.text[end:]}"
    words = _SEPARATOR.split(text.strip())
    words += [""] * (number + 1 - len(words))
    words[number] = value
    return ", ".join(words) + (f" {mark}{comment}" if mark else "")


def _scored_units(cards: Iterable[Card]) -> list[str]:
    """Return the units, in order, of binary files that `_SCORERS` write."""
    units: dict[str, None] = {}
    for card in cards:
        if card.keyword in _SCORERS and "&" not in card.content.text:
            with suppress(InvalidInput, ValueError):  # not clear: the file is not expected
                unit = float(card.what(3).upper().replace("D", "E") or 0)
                units |= {f"{-unit:.0f}": None} if unit < 0 else {}
    return list(units)


def _version_in(output: str) -> str:
    match = re.search(_END, output, re.MULTILINE)
    return match[1] if match and match[1] else "unknown"


def _is_free(card: Card) -> bool:
    """Return whether the cards after this one are in free format."""
    if card.keyword in {"FREE", "FIXED"}:
        return card.keyword == "FREE"
    if card.keyword == "GLOBAL" and card.what(4):
        number = card.number(4, "WHAT(4) of GLOBAL", -1e9, 1e9)
        return number in _GLOBAL_FREE if number else card.free
    return card.free


def _check_keyword(card: Card) -> None:
    """Raise InvalidInput for a keyword that FLUKA reads as another one."""
    words, text = card.content.line.words, card.content.text.partition("!")[0]
    first = words[0][:8] if words else ""
    if not card.free and first.upper() in _WITH_NUMBERS and text[:_COLUMNS].rstrip() != words[0]:
        raise card.content.line.make_error(
            f"{first} must be in columns 1 to 8, and WHAT(1) in columns 11 to 20, unless a FREE card comes before"
        )
    if card.keyword not in _KEYWORDS and card.keyword.upper() in _KEYWORDS:
        raise card.content.line.make_error(
            f"FLUKA distinguishes capital letters: write {card.keyword.upper()}, not {card.keyword}"
        )

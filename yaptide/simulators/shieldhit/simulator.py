"""SHIELD-HIT12A: ion transport, with four input files; lines of ``beam.dat`` are a keyword and its values.

Format: the SHIELD-HIT12A User's Guide, chapters on ``beam.dat``, ``geo.dat``, ``mat.dat`` and ``detect.dat``.
"""

import re
from collections.abc import Mapping, Sequence

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Project
from yaptide.simulators.base import Checked, Converted, InputFiles
from yaptide.simulators.external import External, require_files
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.shieldhit.conversion import convert_project
from yaptide.simulators.text import BASE64, Line, filled_lines, find_similar, quote_word

_BEAM, _MATERIALS, _GEOMETRY, _DETECTORS = "beam.dat", "mat.dat", "geo.dat", "detect.dat"
_FILES = (_BEAM, _MATERIALS, _GEOMETRY, _DETECTORS)
_COMMENT = "!#*"
_NAMES = (
    "APCORR BEAMDIR BEAMDIV BEAMPOS BEAMSAD BEAMSIGMA BMODMC BMODTRANS DELTAE DEMIN EMTRANS EXTSPEC HIPROJ JPART0 "
    "MAKELN MSCAT NEUTRFAST NEUTRLCUT NSTAT NUCRE RNDSEED STRAGG TCUT0 TMAX0 USEBMOD USECBEAM USEPARLEV"
)
_KEYWORDS = frozenset(_NAMES.split())
_OF_MATERIALS = {"MEDIUM"}
_OF_DETECTORS = {"GEOMETRY", "FILTER", "OUTPUT", "SETTINGS"}
#: Keywords that name another file, and which of their values the name is.
_NAMES_FILE = {"USECBEAM": 1, "USEBMOD": 2, "EXTSPEC": 1}
_LOADS = "LOADDEDX"
_DIGITS = re.compile(r"-?(?:0|[1-9][0-9]*)")


class ShieldHit(External):
    """SHIELD-HIT12A, run by external workers."""

    name = "shieldhit"
    title = "SHIELD-HIT12A"

    def recognises(self, files: InputFiles) -> bool:
        """Return whether there is a beam.dat."""
        return _BEAM in files

    def check(self, files: InputFiles) -> Checked:
        """Check the four files, and the primaries (NSTAT) and seed (RNDSEED) in beam.dat; raise InvalidInput."""
        require_files(files, _FILES, self.title)
        lines = {name: filled_lines(name, files[name], _COMMENT) for name in _FILES}
        for name in _FILES:
            _check_kind(name, files[name], lines[name])
        keywords = _by_keyword(lines[_BEAM])
        _check_named_files(files, keywords, lines[_MATERIALS])
        if "NSTAT" not in keywords:
            raise InvalidInput(f"{_BEAM}: the number of primaries, NSTAT, is missing")
        primaries = _integer(keywords["NSTAT"], 1, MOST_PRIMARIES)
        seed = _integer(keywords["RNDSEED"], 0, LARGEST_SEED) if "RNDSEED" in keywords else 0
        return Checked(primaries, quantum=1, seed=seed or draw_seed())

    def convert(self, project: Project) -> Converted:
        """Convert a project of the web editor; raise InvalidInput for what cannot be simulated."""
        return convert_project(project)


def _check_kind(name: str, text: str, lines: list[Line]) -> None:
    """Raise InvalidInput for an empty file, and for one that has the contents of another."""
    if not text.strip():
        raise InvalidInput(f"{name} is empty")
    kind = _kind(lines[0].words) if lines else None
    if kind not in {name, None}:
        raise lines[0].make_error(f"this is how {kind} begins, not {name}: are the files swapped?")


def _kind(words: Sequence[str]) -> str | None:
    """Return the file that begins with a line, None if it is not clear. A geometry begins with two integers."""
    first = words[0].upper()
    if first in _KEYWORDS:
        return _BEAM
    if first in _OF_MATERIALS:
        return _MATERIALS
    if first in _OF_DETECTORS:
        return _DETECTORS
    return _GEOMETRY if len(words) > 1 and all(_DIGITS.fullmatch(word) for word in words[:2]) else None


def _by_keyword(lines: list[Line]) -> Mapping[str, Line]:
    """Return the lines of beam.dat by keyword; the last of a keyword counts. Raise InvalidInput for unknown ones."""
    keywords: dict[str, Line] = {}
    for line in lines:
        keyword = line.words[0].upper()
        if keyword not in _KEYWORDS:
            hint = find_similar(keyword, _KEYWORDS)
            raise line.make_error(f"SHIELD-HIT12A has no keyword {quote_word(line.words[0])}{hint}")
        keywords[keyword] = line
    return keywords


def _check_named_files(files: InputFiles, keywords: Mapping[str, Line], materials: list[Line]) -> None:
    """Raise InvalidInput if beam.dat or mat.dat names a file that is missing."""
    named = [(keywords[keyword], index) for keyword, index in _NAMES_FILE.items() if keyword in keywords]
    named += [(line, 1) for line in materials if line.words[0].upper() == _LOADS and len(line.words) > 1]
    for line, index in named:
        name = line.words[index].strip("\"'") if index < len(line.words) else ""
        if name.removeprefix("./") not in files and name.removeprefix("./") + BASE64 not in files:
            raise line.make_error(f"{line.words[0]} names the file {quote_word(name)}, which is missing from the input")


def _integer(line: Line, low: int, high: int) -> int:
    """Return the first value of a keyword; SHIELD-HIT12A reads digits only: 1e5 as 1, and 010 as octal."""
    keyword = line.words[0].upper()
    value = line.parse_integer(1, keyword, low, high)
    if not _DIGITS.fullmatch(line.words[1].removeprefix("+")):
        raise line.make_error(f"{keyword} must be written in digits, not {quote_word(line.words[1])}")
    return value

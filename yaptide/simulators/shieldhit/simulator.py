"""SHIELD-HIT12A: ion transport, with four input files; lines of ``beam.dat`` are a keyword and its values.

Format: the SHIELD-HIT12A User's Guide, chapters on ``beam.dat``, ``geo.dat``, ``mat.dat`` and ``detect.dat``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import TaskOutput
from yaptide.editor.project import Project
from yaptide.simulators.base import OUTPUT_LOG, Checked, Command, Converted, InputFiles, Installation, ProgressRule
from yaptide.simulators.files import require_plain_name
from yaptide.simulators.licensed import LicensedProgram, Written, read_task, write_task
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.shieldhit.conversion import convert_project
from yaptide.simulators.shieldhit.sample import SAMPLE
from yaptide.simulators.text import (
    BASE64,
    Line,
    explain_undecoded_files,
    filled_lines,
    find_similar,
    quote_word,
    split_lines,
)

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
_RUN_NUMBER = re.compile(r"\d{4,}$")
_NO_RESULTS = f"{_DETECTORS}: no results could be read: add an Output with a Filename"
#: The last line of the log of a run that has succeeded.
_END = r"^[ \t]*Run time:"
_DIGITS = re.compile(r"-?(?:0|[1-9][0-9]*)")


class ShieldHit(LicensedProgram):
    """SHIELD-HIT12A, installed by the site: the program is `shieldhit`.

    `yaptide.simulators.base.Simulator` describes the methods.
    """

    name = "shieldhit"
    title = "SHIELD-HIT12A"
    progress_rule: ProgressRule | None = ProgressRule(
        "shieldhit*.log", 8192, r"Primary particle no\.[ \t]*(\d+)[ \t]+ETR:", _END, counted=True
    )
    log_patterns = ("shieldhit*.log",)
    expected_range = 157.1  # mm, of 150 MeV protons with a spread of 1.5 MeV: recorded with version 1.0.1

    def recognises(self, files: InputFiles) -> bool:
        """Return whether there is a beam.dat."""
        return _BEAM in files

    def check(self, files: InputFiles) -> Checked:
        """Check the four files, and the primaries (NSTAT) and seed (RNDSEED) in beam.dat; raise InvalidInput."""
        for name in _FILES:
            if name not in files:
                explain_undecoded_files(files)
                raise InvalidInput(f"{self.title} needs the input file {name!r}")
        lines = {name: filled_lines(name, files[name], _COMMENT) for name in _FILES}
        for name in _FILES:
            _check_kind(name, files[name], lines[name])
        for line in _name_lines(lines[_DETECTORS]):
            require_plain_name(line, line.words[1], "Filename")
        keywords = _by_keyword(lines[_BEAM])
        _check_named_files(files, keywords, lines[_MATERIALS])
        if "NSTAT" not in keywords:
            raise InvalidInput(f"{_BEAM}: the number of primaries, NSTAT, is missing")
        primaries = _integer(keywords["NSTAT"], 1, MOST_PRIMARIES)
        seed = _integer(keywords["RNDSEED"], 0, LARGEST_SEED) if "RNDSEED" in keywords else 0
        why = "" if any(_name_lines(lines[_DETECTORS])) else _NO_RESULTS
        return Checked(primaries, quantum=1, seed=seed or draw_seed(), no_results=why)

    def convert(self, project: Project) -> Converted:
        """Convert a project of the web editor; raise InvalidInput for what cannot be simulated."""
        return convert_project(project)

    def sample(self) -> InputFiles:
        """Return 150 MeV protons in water."""
        return SAMPLE

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write the files with NSTAT and RNDSEED of the task in beam.dat."""
        beam = _set_values(files[_BEAM], {"NSTAT": primaries, "RNDSEED": seed})
        outputs = _output_names(files[_DETECTORS])
        write_task({**files, _BEAM: beam}, primaries, outputs, folder, ("*.bdo", *self.log_patterns))

    def command(self, installation: Installation, folder: Path) -> Command:
        """Return the program and the folder of its input, which is the working directory."""
        self.require_reader()
        return Command((str(installation.program), "."), {})

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Return an estimator for each output of detect.dat, in its order and named like it; raise SimulationFailed."""
        self.require_end(folder, exit_code, ("shieldhit*.log", OUTPUT_LOG), _END)
        task = read_task(folder)
        written = [output for path in sorted(folder.glob("*.bdo")) if (output := _identify(path, task.outputs))]
        self.require_outputs(task.outputs, written)
        written.sort(key=lambda output: task.outputs.index(output.name))
        return self.read_files(written, folder, task.primaries, "mc_code_version")


def _set_values(text: str, values: Mapping[str, int]) -> str:
    """Return beam.dat with other first values of some keywords; the other values and comments of a line are kept."""
    lines = []
    missing = dict(values)
    for line in split_lines(text):
        keyword = (line.split() or [""])[0].upper()
        if keyword in values:
            missing.pop(keyword, None)
            lines.append(re.sub(r"^(\s*\S+\s+)\S+", rf"\g<1>{values[keyword]}", line, count=1))
        else:
            lines.append(line)
    return "\n".join([*lines, *(f"{keyword} {value}" for keyword, value in missing.items())]) + "\n"


def _output_names(text: str) -> list[str]:
    """Return the names of the outputs in detect.dat, without the ending of their files."""
    named = [line.words[1] for line in _name_lines(filled_lines(_DETECTORS, text, _COMMENT))]
    return list(dict.fromkeys(name.removesuffix(".bdo").rstrip("_") for name in named))


def _name_lines(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines of detect.dat that name an output file."""
    return (line for line in lines if len(line.words) > 1 and line.words[0].upper() == "FILENAME")


def _identify(path: Path, names: Sequence[str]) -> Written | None:
    """Return which output a file is: ``dose.bdo``, or ``dose_0001.bdo`` with a run number, is ``dose``."""
    for file_name in (path.stem, _RUN_NUMBER.sub("", path.stem)):
        if file_name.rstrip("_") in names:
            return Written(file_name.rstrip("_"), file_name, path)
    return None


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

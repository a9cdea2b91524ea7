"""TOPAS parameter files: ``type:Group/Name = value``, comments after ``#``, values that go on in the next lines.

The rules are those of the TOPAS user guide, "Parameter File Basics" and "Parameter File Chains": names ignore case; a
value in a file wins over those in the files that it includes; two included files must not both set a parameter unless
the file that includes them sets it, too. An integer is a number, the name of another parameter, or two of them with
``+``, ``-`` or ``*`` between them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import InputFiles
from yaptide.simulators.text import BASE64, Line, explain_undecoded_files, quote_word, split_lines

#: A line that sets a parameter, or includes a file.
_SETS = re.compile(r"\s*(?:(?:[a-z]{1,3}:)?[a-z][a-z0-9]*/\S+|includefile)\s*=", re.IGNORECASE)
_OPERATORS = {"+", "-", "*"}
_NUMBER = re.compile(r"[+-]?[0-9]+")
_INCLUDE = "includefile"
#: An included name that stands for the defaults of TOPAS.
_BUILT_IN = "TOPAS_Built_In_Defaults"
_MOST_FILES = 200
#: Parameters that are compared to find those that two included files set.
_MOST_COMPARED = 2_000_000
LONGEST_NAME = 80
_MOST_LEVELS = 50
_LARGEST = 10**18
#: Integers that TOPAS sets itself.
_DEFAULTS = {
    "ts/seed": 1,
    "ts/showhistorycountatinterval": 1,
    "ts/numberofthreads": 1,
    "tf/numberofsequentialtimes": 1,
    "so/demo/numberofhistoriesinrun": 0,
    "so/demo/numberofhistoriesinrandomjob": 0,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as one file sets it: its `name` as written (shortened), its `value`, and the line where it begins."""

    name: str
    value: str
    line: Line


@dataclass(frozen=True, slots=True)
class _File:
    """The parameters of a file by name in lower case, and the lines and names of the files that it includes."""

    name: str
    parameters: Mapping[str, Parameter]
    includes: tuple[tuple[Line, str], ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """The parameters of a job: its own file first, then those it includes, in the order in which they are looked up.

    `known` are the integers that were evaluated already, by name and number of settings skipped: sources may share
    many of them.
    """

    job: str
    files: tuple[_File, ...]
    known: dict[tuple[str, int], int | None] = field(default_factory=dict, repr=False, compare=False)

    def names(self) -> set[str]:
        """Return the names of all parameters, in lower case."""
        return {name for file in self.files for name in file.parameters}

    def find(self, name: str, skip: int = 0) -> Parameter | None:
        """Return the parameter that counts, or the one that counts after `skip` others of its name."""
        settings = self.find_all(name)
        return settings[skip] if skip < len(settings) else None

    def find_all(self, name: str) -> list[Parameter]:
        """Return all settings of a parameter, the one that counts first."""
        return [file.parameters[name] for file in self.files if name in file.parameters]

    def integer(self, name: str) -> int | None:
        """Return an integer parameter, None if there is none; raise InvalidInput if it cannot be evaluated."""
        return _Evaluation(self, self.known).integer(name, 0, ())


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Values of integers by name and number of settings skipped, so that each is evaluated once."""

    chain: Chain
    known: dict[tuple[str, int], int | None]

    def integer(self, name: str, skip: int, path: tuple[tuple[str, int], ...]) -> int | None:
        if (name, skip) not in self.known:
            self.known[name, skip] = self._evaluate(name, skip, path)
        return self.known[name, skip]

    def _evaluate(self, name: str, skip: int, path: tuple[tuple[str, int], ...]) -> int | None:
        parameter = self.chain.find(name, skip)
        if parameter is None:
            return _DEFAULTS.get(name)
        if (name, skip) in path or len(path) > _MOST_LEVELS:
            raise parameter.line.make_error(f"{parameter.name} refers to itself, or through too many parameters")
        words = parameter.value.split()
        if not words:
            raise parameter.line.make_error(f"{parameter.name} is missing")
        if (
            not parameter.value.isascii()
            or len(words) not in {1, 3}
            or (len(words) == 3 and words[1] not in _OPERATORS)
        ):
            raise _unclear(parameter, parameter.value)
        operands = [self._operand(parameter, word, name, skip, path) for word in words[::2]]
        value = _combine(operands, words[1] if len(words) == 3 else "+")
        if abs(value) > _LARGEST:
            raise _unclear(parameter, parameter.value)
        return value

    def _operand(self, parameter: Parameter, word: str, name: str, skip: int, path: tuple[tuple[str, int], ...]) -> int:
        if _NUMBER.fullmatch(word):
            if len(word) > len(str(_LARGEST)):
                raise _unclear(parameter, word)
            return int(word)
        other = word.lower()
        # A parameter that refers to itself changes the value of the files that are included.
        value = self.integer(other, skip + 1 if other == name else 0, (*path, (name, skip)))
        if value is None:
            if other.startswith("tf/") and other.endswith("/value"):
                raise parameter.line.make_error(
                    f"{parameter.name} changes with time ({quote_word(word)}): write it as a number"
                )
            raise _unclear(parameter, word)
        return value


def _unclear(parameter: Parameter, value: str) -> InvalidInput:
    return parameter.line.make_error(
        f"{parameter.name} must be a number, or a sum or product with another parameter of these files, not "
        f"{quote_word(value)}"
    )


def _combine(operands: list[int], operator: str) -> int:
    first, *rest = operands
    for other in rest:
        return first * other if operator == "*" else first - other if operator == "-" else first + other
    return first


def sets_parameters(text: str) -> bool:
    """Return whether a text has a line that sets a parameter, or includes a file."""
    return any(map(_SETS.match, split_lines(text)))


def read_chain(files: InputFiles) -> Chain:
    """Return the parameters of the job: of the file that no other one includes, and of those it includes.

    Raises InvalidInput if a file is missing, if it is unclear which file is the job, and for files that TOPAS refuses.
    """
    read = {name: _read(name, text) for name, text in files.items() if _is_parameter_file(name, text)}
    if not read:
        explain_undecoded_files(files)
        raise InvalidInput(
            "TOPAS needs a parameter file, with lines such as i:So/<source>/NumberOfHistoriesInRun = 1000"
        )
    included = {other for file in read.values() for _, other in file.includes if other != file.name}
    jobs = sorted(read.keys() - included)
    if not jobs:
        raise InvalidInput("The TOPAS files include each other, so none of them is the job")
    if len(jobs) > 1:
        raise InvalidInput(
            f"TOPAS runs one file, and {' and '.join(jobs[:3])} are not included by another: leave out those that are "
            "not part of the job"
        )
    everything = dict(read)
    order = _order(jobs[0], everything, files, ())
    last = {name: position for position, name in enumerate(order)}
    unique = [name for position, name in enumerate(order) if last[name] == position]
    chain = Chain(jobs[0], tuple(everything[name] for name in unique))
    compared = 0
    for name in unique:
        compared += _check_conflicts(everything[name], everything, files, _MOST_COMPARED - compared)
    return chain


def _is_parameter_file(name: str, text: str) -> bool:
    return not name.endswith(BASE64) and sets_parameters(text)


def _order(name: str, read: dict[str, _File], files: InputFiles, above: tuple[str, ...]) -> list[str]:
    """Return a file, then the chain of each file that it includes."""
    if name not in read:
        read[name] = _read(name, files[name])
    order = [name]
    for line, other in read[name].includes:
        if other in above or other == name or len(above) > _MOST_LEVELS:
            raise line.make_error(f"{quote_word(other)} includes itself, or files are included over too many levels")
        if other not in files:
            raise line.make_error(f"the included file {quote_word(other)} is missing from the input files")
        order += _order(other, read, files, (*above, name))
        if len(order) > _MOST_FILES:
            raise line.make_error(f"more than {_MOST_FILES} files are included")
    return order


def _check_conflicts(file: _File, read: dict[str, _File], files: InputFiles, most: int) -> int:
    """Raise InvalidInput if two included files set one parameter, and the file itself does not.

    Returns how many parameters were compared; raises InvalidInput for more than `most`.
    """
    included: dict[str, Line] = {}
    for line, other in file.includes:
        included.setdefault(other, line)
    compared = 0
    if len(included) < 2:
        return compared
    setters: dict[str, Parameter] = {}
    for other, line in included.items():
        own: dict[str, Parameter] = {}
        for name in dict.fromkeys(_order(other, read, files, ())):
            compared += len(read[name].parameters)
            if compared > most:
                raise line.make_error("too many parameters are included: include large files once")
            for key, parameter in read[name].parameters.items():
                own.setdefault(key, parameter)
        for key, parameter in own.items():
            first = setters.setdefault(key, parameter)
            if first is not parameter and key not in file.parameters:
                raise line.make_error(
                    f"{parameter.name} is set in {first.line.file} and in {parameter.line.file}: set it in "
                    f"{file.name}, too"
                )
    return compared


def _read(file: str, text: str) -> _File:
    parameters: dict[str, Parameter] = {}
    includes: list[tuple[Line, str]] = []
    for line, typed, value in _settings(file, text):
        if typed.lower() == _INCLUDE:
            includes += [(line, _included(line, word)) for word in value.split() if word != _BUILT_IN]
            continue
        name = typed.rpartition(":")[2]
        key, name = name.lower(), name[:LONGEST_NAME]
        if key in parameters:
            raise line.make_error(f"{name} is repeated, after line {parameters[key].line.number}")
        parameters[key] = Parameter(name, value, line)
    return _File(file, parameters, tuple(includes))


def _included(line: Line, word: str) -> str:
    name = word.removeprefix("./")
    if "/" in name or "\\" in name:
        raise line.make_error(
            f"includeFile names {quote_word(word)}, but input files are in one folder: write the name without a folder"
        )
    return name


def _settings(file: str, text: str) -> Iterator[tuple[Line, str, str]]:
    """Yield the line, name and value of each parameter. A value goes on to the next empty line or ``=``."""
    name, begin, parts = "", 0, list[str]()
    for number, content in enumerate([*split_lines(text), ""], 1):
        before, equals, after = content.partition("#")[0].partition("=")
        if parts and (equals or not content.strip()):
            yield Line(file, begin, (name,)), name, " ".join(parts).strip()
            parts = []
        if equals:
            name, begin, parts = before.strip(), number, [after]
        elif parts:
            parts.append(before)

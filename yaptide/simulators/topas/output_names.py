"""Names of the output files of TOPAS: it writes where its parameters say, which must be in the task's folder."""

import re
from collections.abc import Iterator

from yaptide.simulators.files import require_plain_name
from yaptide.simulators.topas.parameters import Chain, Parameter

#: Parameters of scorers and of graphics that name files, such as Sc/<scorer>/OutputFile and Sc/XmlFileName.
_NAMES_OUTPUT = re.compile(r"(?:sc|gr)/.*file(?:name)?|.*/output_?file(?:name)?")
_SCORER = re.compile(r"sc/([^/]+)/quantity")
_WORD = re.compile(r'"([^"]*)"|([^\s"+]+)')
_TIME_FEATURE = re.compile(r"tf/([^/]+)/value")


def check_output_names(chain: Chain) -> None:
    """Raise InvalidInput, with the line, for the name of an output file that is not a plain one.

    Every setting of a parameter is checked, and every parameter that it refers to.
    """
    open_names = [name for name in chain.names() if _NAMES_OUTPUT.fullmatch(name)]
    checked = set[str]()
    while open_names:
        name = open_names.pop()
        if name in checked:
            continue
        checked.add(name)
        for parameter in chain.find_all(name):
            open_names += _check_value(parameter, may_be_empty=not _NAMES_OUTPUT.fullmatch(name))
    for name in chain.names():  # without another name, a scorer's own one is that of its file
        scorer = _SCORER.fullmatch(name)
        if scorer and not chain.find(f"sc/{scorer[1]}/outputfile"):
            for parameter in chain.find_all(name):
                require_plain_name(parameter.line, scorer[1], "The name of a scorer")


def _check_value(parameter: Parameter, *, may_be_empty: bool) -> Iterator[str]:
    """Check the texts in a value, and yield the names of other parameters in it, in lower case."""
    words = [match.groups() for match in _WORD.finditer(parameter.value)]
    for text, other in words:
        if other is None:
            # The parts of a name have the same letters as the whole.
            part = text if len(words) == 1 and not may_be_empty else f"x{text}".rstrip(" .")
            require_plain_name(parameter.line, part, parameter.name)
            continue
        yield other.lower()
        if feature := _TIME_FEATURE.fullmatch(other.lower()):
            yield f"tf/{feature[1]}/values"

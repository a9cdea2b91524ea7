"""Projects of the web editor as input files of a simulator."""

from collections.abc import Mapping
from typing import Any

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.editor.reading import read_project
from yaptide.simulators import names, simulator
from yaptide.simulators.base import Converted, Converter


def convert_project(document: Mapping[str, Any], name: str) -> Converted:
    """The input files of the simulator called `name` for a project's JSON document.

    Raises InvalidInput if the simulator is unknown, if yaptide writes no input for it, or for what is wrong with the
    project.
    """
    code = simulator(name)
    if not isinstance(code, Converter):
        raise InvalidInput(
            f"yaptide makes no input files of {code.title} from a project, but of {', '.join(converters())}"
        )
    return code.convert(read_project(document))


def converters() -> list[str]:
    """The names of the simulators whose input files yaptide makes from projects."""
    return [name for name in names() if _is_converter(name)]


def _is_converter(name: str) -> bool:
    try:
        return isinstance(simulator(name), Converter)
    except NotConfigured:  # its package is broken
        return False

"""Projects of the web editor as input files of a simulator, and which simulator runs a project that is submitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput
from yaptide.editor.reading import read_project
from yaptide.persistence.queries import clusters
from yaptide.services.backend import Backend
from yaptide.simulators import (
    COMMON as COMMON,
    get_simulator,
    is_converter,
    is_known,
    known_simulators,
    list_converters,
)
from yaptide.simulators.base import Converted, Converter, Simulator

#: Values of YAPTIDE_EDITOR_SIMULATOR beside names: the first that projects are converted for (if there are no
#: clusters), and none.
AUTOMATIC, OFF = "auto", "off"
_LONGEST_NOTE = 4000


@dataclass(frozen=True, slots=True)
class Choice:
    """Which simulator runs a project, and what it was submitted for, if that is another one.

    `is_converted`: its input files are written here; otherwise workers of others take the project as it is.
    """

    code: Simulator
    asked: str
    is_converted: bool

    @property
    def is_other(self) -> bool:
        """Whether another simulator was asked for."""
        return self.asked not in (self.code.name, COMMON)

    def describe(self, made: Converted) -> str:
        """What became of the project, for the history of its simulation."""
        asked = f"It was submitted for {_title(self.asked)}, which cannot run projects here. " if self.is_other else ""
        left_out = f" Left out: {' '.join(f'{each}.' for each in made.left_out)}" if made.left_out else ""
        return f"{asked}The project was converted for {self.code.title}: {made.resolution}.{left_out}"[:_LONGEST_NOTE]


def list_titles() -> list[tuple[str, str]]:
    """Name and title of every simulator that there is."""
    return [(code.name, code.title) for code in known_simulators()]


def convert_project(document: Mapping[str, Any], name: str) -> Converted:
    """The input files of the simulator called `name` for a project's JSON document.

    Raises InvalidInput if the simulator is unknown, if yaptide writes no input for it, or for what is wrong with the
    project.
    """
    code = get_simulator(name)
    if not isinstance(code, Converter):
        raise InvalidInput(
            f"yaptide makes no input files of {code.title} from a project, but of {', '.join(list_converters())}"
        )
    return code.convert(read_project(document))


def choose_simulator(
    backend: Backend, connection: Connection, document: Mapping[str, Any], asked: str, *, on_cluster: bool
) -> Choice:
    """Which simulator runs a project: the one asked for if it can, otherwise the one that stands in for others.

    `common` asks for the one that the project names, if it names one. Raises InvalidInput if none can.
    """
    name = _named_in(document) if asked == COMMON else asked
    code = None if name is None else get_simulator(name)
    if code is not None and is_converter(code.name):
        return Choice(code, asked, is_converted=True)
    if code is not None and code.name in backend.foreign_workers:
        return Choice(code, asked, is_converted=False)
    stand_in = None if on_cluster else find_stand_in(backend, connection)
    if stand_in is not None:
        return Choice(stand_in, asked if name is None else name, is_converted=True)
    if code is None:
        raise InvalidInput("A project is submitted with the name of the simulator that it is for, not as common")
    if not code.takes_projects:
        raise InvalidInput(f"{code.title} simulations are submitted as input files, not as a project of the editor")
    return Choice(code, asked, is_converted=False)


def find_stand_in(backend: Backend, connection: Connection) -> Simulator | None:
    """The simulator that runs projects for others here, by YAPTIDE_EDITOR_SIMULATOR; None: there is none."""
    name = backend.editor_simulator
    if name == AUTOMATIC:
        known = list_converters()
        name = known[0] if known and not clusters.list_names(connection) else OFF
    return None if name == OFF else get_simulator(name)


def _named_in(document: Mapping[str, Any]) -> str | None:
    """The simulator that a project was drawn for, if it is one that there is here."""
    project = document.get("project")
    name = project.get("simulator") if isinstance(project, Mapping) else None
    return name if isinstance(name, str) and is_known(name) else None


def _title(name: str) -> str:
    return get_simulator(name).title if is_known(name) else name

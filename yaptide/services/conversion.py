"""Conversion of web editor projects to input files, and the choice of the simulator that runs a project."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput
from yaptide.editor.reading import read_project
from yaptide.persistence.queries import clusters
from yaptide.services import runners
from yaptide.services.backend import Backend
from yaptide.simulators import (
    COMMON as COMMON,
    get_converter,
    get_simulator,
    is_converter,
    is_known,
    known_simulators,
    list_stand_ins,
)
from yaptide.simulators.base import Converted, Simulator

#: Values of YAPTIDE_EDITOR_SIMULATOR besides names: the first converter (if there are no clusters), and none.
AUTOMATIC, OFF = "auto", "off"
_LONGEST_NOTE = 4000


@dataclass(frozen=True, slots=True)
class Choice:
    """The simulator chosen for a project, and the one it was submitted for.

    `is_converted`: yaptide writes the input files. `for_external`: only external workers run them; they also take a
    project that yaptide cannot convert, as it is.
    """

    code: Simulator
    requested: str
    is_converted: bool
    for_external: bool = False

    @property
    def is_other(self) -> bool:
        """Whether another simulator was requested."""
        return self.requested not in (self.code.name, COMMON)

    def describe(self, conversion: Converted) -> str:
        """Return how the project was converted, for the history of its simulation."""
        submitted_for = (
            f"It was submitted for {_title(self.requested)}, which cannot run projects here. " if self.is_other else ""
        )
        left_out = f" Left out: {' '.join(f'{item}.' for item in conversion.left_out)}" if conversion.left_out else ""
        return f"{submitted_for}The project was converted for {self.code.title}: {conversion.resolution}.{left_out}"[
            :_LONGEST_NOTE
        ]


def list_titles() -> list[tuple[str, str]]:
    """Name and title of every simulator that there is."""
    return [(code.name, code.title) for code in known_simulators()]


def convert_project(document: Mapping[str, Any], name: str) -> Converted:
    """Return the input files of the simulator `name` for a project's JSON document.

    Raises InvalidInput if the simulator is unknown, if yaptide cannot convert projects for it, or if the project is
    invalid.
    """
    return get_converter(name).convert(read_project(document))


def choose_simulator(
    backend: Backend, connection: Connection, document: Mapping[str, Any], requested: str, *, on_cluster: bool
) -> Choice:
    """Choose the simulator for a project: the requested one if it can run it, otherwise the configured one.

    `common` requests the simulator that the project names, if it names one. Raises InvalidInput if none can run it.
    """
    name = _named_in(document) if requested == COMMON else requested
    code = None if name is None else get_simulator(name)
    if code is not None:
        is_ours = runners.has_runner(backend, connection, code.name) and not on_cluster
        for_external = code.name in backend.foreign_workers and not is_ours
        is_able = for_external or code.takes_projects or is_converter(code.name)
        if is_able and (is_ours or for_external or on_cluster):
            return Choice(code, requested, is_converter(code.name), for_external)
    stand_in = None if on_cluster else find_stand_in(backend, connection)
    if stand_in is not None:
        return Choice(stand_in, requested if name is None else name, is_converted=True)
    if code is None:
        raise InvalidInput("Submit the project with the name of its simulator instead of common")
    if not code.takes_projects:
        raise InvalidInput(f"Submit {code.title} simulations as input files, not as a project of the editor")
    return Choice(code, requested, is_converted=False)


def find_stand_in(backend: Backend, connection: Connection) -> Simulator | None:
    """Return the simulator that runs converted projects (YAPTIDE_EDITOR_SIMULATOR), or None."""
    name = backend.editor_simulator
    if name == AUTOMATIC:
        known = list_stand_ins()
        name = known[0] if known and not clusters.list_names(connection) else OFF
    return None if name == OFF else get_simulator(name)


def _named_in(document: Mapping[str, Any]) -> str | None:
    """Return the simulator that a project was made for, if it is known."""
    project = document.get("project")
    name = project.get("simulator") if isinstance(project, Mapping) else None
    return name if isinstance(name, str) and is_known(name) else None


def _title(name: str) -> str:
    return get_simulator(name).title if is_known(name) else name

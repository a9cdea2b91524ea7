"""The Monte Carlo codes that there are, by name: entry points of the group `yaptide.simulators`.

Any installed package may bring one; docs/new-code.md says how. A code is loaded when it is first asked for something.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from yaptide.domain.errors import InvalidInput, NotConfigured, YaptideError
from yaptide.simulators.base import MEMBERS, Converter, Image, Imaged, InputFiles, Installation, Simulator

log = logging.getLogger(__name__)

GROUP = "yaptide.simulators"

#: `sim_type` of input files whose simulator the sender does not know.
COMMON = "common"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_broken: set[str] = set()


def list_names() -> list[str]:
    """The names of all simulators: ours, then those of other packages."""
    return list(_entries())


def is_known(name: str) -> bool:
    """Whether there is a simulator of this name."""
    return name in _entries()


def known_simulators() -> Iterator[Simulator]:
    """All simulators that can be loaded, in the order of `list_names`."""
    for name in _entries():
        with suppress(NotConfigured):
            yield get_simulator(name)


def get_simulator(name: str) -> Simulator:
    """The simulator called `name`.

    Raises InvalidInput, with the names there are, for an unknown one, NotConfigured if its package is broken.
    """
    if name not in _entries():
        raise InvalidInput(f"There is no simulator {name[:40]!r}: choose one of {', '.join(_entries())}")
    found = _loaded(name)
    if isinstance(found, str):
        raise NotConfigured(found)
    return found


def checked_names(setting: str, asked: Iterable[str]) -> frozenset[str]:
    """The names in a setting; raises InvalidInput if one of them is none of a simulator's."""
    unknown = sorted(set(asked) - _entries().keys()) if asked else []
    if unknown:
        known = ", ".join(_entries())
        raise InvalidInput(f"The setting {setting} names no simulator with {unknown[0][:40]!r}: there are {known}")
    return frozenset(asked)


def list_converters() -> list[str]:
    """The names of the simulators whose input files are written here for projects of the web editor."""
    return [name for name in list_names() if is_converter(name)]


def is_converter(name: str) -> bool:
    """Whether input files of this simulator are written here for projects of the web editor."""
    try:
        return isinstance(get_simulator(name), Converter)
    except (InvalidInput, NotConfigured):  # its package is broken, or gone
        return False


def find_image(name: str, files: InputFiles) -> Image | None:
    """The CT in the input of a simulator, or None if it has none; raises InvalidInput for an input that is wrong."""
    try:
        code = get_simulator(name)
    except (InvalidInput, NotConfigured):  # its package is broken, or gone
        return None
    return code.read_image(files) if isinstance(code, Imaged) else None


def resolve_simulator(name: str, files: InputFiles) -> Simulator:
    """As `get_simulator`, but ``common`` means the one that recognises `files`; raises InvalidInput if none does."""
    if name != COMMON:
        return get_simulator(name)
    for known in known_simulators():
        with _tolerated(known):
            if known.recognises(files):
                return known
    titles = ", ".join(known.title for known in known_simulators())
    raise InvalidInput(f"These files look like the input of none of {titles}")


def list_installed(folder: Path) -> dict[str, Installation]:
    """What is installed under `folder`, by name of simulator."""
    found = {}
    for known in known_simulators():
        with _tolerated(known):
            found[known.name] = known.installation(folder)
    return found


def find_output(name: str, file_name: str, outputs: Sequence[str]) -> int | None:
    """Which of the outputs of a project the results in a file are of, None if of none.

    By the rule of the simulator called `name`; workers of others may report in the manner of another.
    """
    for known in sorted(known_simulators(), key=lambda known: known.name != name):
        with _tolerated(known):
            found = known.output_of(file_name, outputs)
            if found is not None:
                return found
    return None


@contextmanager
def _tolerated(code: Simulator) -> Iterator[None]:
    """Have what is wrong with one simulator not take the others with it; it is logged once."""
    try:
        yield
    except YaptideError:
        pass  # the usual way of saying that it is not there
    except Exception:
        if code.name not in _broken:
            log.exception("the simulator %s does what it may not", code.name)
        _broken.add(code.name)


@cache
def _entries() -> dict[str, EntryPoint]:
    """Entry points by name. Of two of one name ours counts, or that of the package whose module comes first."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: (not _is_ours(entry), entry.name, entry.value))
    entries: dict[str, EntryPoint] = {}
    for entry in found:
        if not _NAME.fullmatch(entry.name) or entry.name == COMMON:
            log.warning("%s cannot be the name of a simulator: %s is left out", entry.name, entry.value)
        elif entries.setdefault(entry.name, entry).value != entry.value:
            log.warning("there are two simulators %s: %s is left out", entry.name, entry.value)
    return entries


def _is_ours(entry: EntryPoint) -> bool:
    return entry.module.startswith(f"{__name__}.")


@cache
def _loaded(name: str) -> Simulator | str:
    """The simulator, or why it cannot be used."""
    entry = _entries()[name]
    try:
        code = entry.load()()
        missing = [member for member in MEMBERS if not hasattr(code, member)]
        called = code.name
    except Exception as error:
        log.warning("the simulator %s cannot be loaded", name, exc_info=True)
        return f"The simulator {name} cannot be loaded from {entry.module}: {error}"
    if missing or called != name:
        wrong = f"{', '.join(missing)} is missing" if missing else f"it calls itself {called!r}"
        return f"The simulator {name} of {entry.module} does not fit this version of yaptide: {wrong}"
    return cast("Simulator", code)

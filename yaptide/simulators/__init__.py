"""The available Monte Carlo codes by name: entry points of the group `yaptide.simulators`.

Any installed package can provide a code; docs/new-code.md describes how. A code is loaded on first use.
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
from yaptide.simulators.text import explain_undecoded_files

log = logging.getLogger(__name__)

GROUP = "yaptide.simulators"

#: Converters of projects to input of codes that yaptide does not run.
WRITERS = "yaptide.writers"

#: `sim_type` of input files whose simulator is to be detected.
COMMON = "common"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_broken: set[str] = set()


def list_names() -> list[str]:
    """Return the names of all simulators: built-in ones first, then those of other packages."""
    return list(_entries())


def is_known(name: str) -> bool:
    """Return whether a simulator has this name."""
    return name in _entries()


def known_simulators() -> Iterator[Simulator]:
    """Yield all simulators that can be loaded, in the order of `list_names`."""
    for name in _entries():
        with suppress(NotConfigured):
            yield get_simulator(name)


def get_simulator(name: str) -> Simulator:
    """Return the simulator with this name.

    Raises InvalidInput, with the known names, for an unknown name, NotConfigured if its package is broken.
    """
    if name not in _entries():
        raise InvalidInput(f"Unknown simulator {name[:40]!r}: choose one of {', '.join(_entries())}")
    loaded = _loaded(name)
    if isinstance(loaded, str):
        raise NotConfigured(loaded)
    return loaded


def check_simulator_names(setting: str, names: Iterable[str]) -> frozenset[str]:
    """Return the names in a setting; raise InvalidInput if one of them is not a simulator."""
    unknown = sorted(set(names) - _entries().keys()) if names else []
    if unknown:
        known = ", ".join(_entries())
        raise InvalidInput(f"The setting {setting} contains the unknown simulator {unknown[0][:40]!r}: use {known}")
    return frozenset(names)


def list_converters() -> list[str]:
    """Return the names of the codes that projects of the web editor can be converted for."""
    return [*filter(is_converter, list_names()), *_writers()]


def list_stand_ins() -> list[str]:
    """Return the names of the simulators that run projects made for others, where nothing else is chosen."""
    return [name for name in list_names() if is_converter(name) and getattr(get_simulator(name), "stands_in", False)]


def get_converter(name: str) -> Converter:
    """Return what converts projects to input of a code, which need not be a simulator that runs here.

    Raises InvalidInput for an unknown name, and for a code that projects cannot be converted for, NotConfigured if its
    package is broken.
    """
    if name in _writers():
        return _load_writer(_writers()[name])
    code = get_simulator(name)
    if not isinstance(code, Converter):
        raise InvalidInput(f"Cannot convert projects to input of {code.title}: use {', '.join(list_converters())}")
    return code


def is_converter(name: str) -> bool:
    """Return whether this simulator can convert projects of the web editor."""
    try:
        return isinstance(get_simulator(name), Converter)
    except (InvalidInput, NotConfigured):  # its package is broken, or was removed
        return False


def find_image(name: str, files: InputFiles) -> Image | None:
    """The CT in the input of a simulator, or None if it has none; raises InvalidInput for an input that is wrong."""
    try:
        code = get_simulator(name)
    except (InvalidInput, NotConfigured):  # its package is broken, or gone
        return None
    return code.read_image(files) if isinstance(code, Imaged) else None


def resolve_simulator(name: str, files: InputFiles) -> Simulator:
    """Return the simulator with this name, or for ``common`` the one that recognises `files`."""
    if name != COMMON:
        return get_simulator(name)
    for candidate in known_simulators():
        with _tolerated(candidate):
            if candidate.recognises(files):
                return candidate
    explain_undecoded_files(files)
    titles = ", ".join(candidate.title for candidate in known_simulators())
    raise InvalidInput(f"Unrecognised input: none of {titles} matches these files")


def list_installed(folder: Path) -> dict[str, Installation]:
    """Return the installations under `folder` by name of simulator."""
    installations = {}
    for candidate in known_simulators():
        with _tolerated(candidate):
            installations[candidate.name] = candidate.installation(folder)
    return installations


def find_output(name: str, file_name: str, outputs: Sequence[str]) -> int | None:
    """Return the index of the project output that a file of results belongs to; None if there is none.

    Tries the rule of the simulator called `name` first, then those of the others: external workers may use any of them.
    """
    for candidate in sorted(known_simulators(), key=lambda candidate: candidate.name != name):
        with _tolerated(candidate):
            index = candidate.output_of(file_name, outputs)
            if index is not None:
                return index
    return None


@contextmanager
def _tolerated(code: Simulator) -> Iterator[None]:
    """Keep errors of one simulator from affecting the others; log an unexpected one once."""
    try:
        yield
    except YaptideError:
        pass  # the regular way to report that it is not available
    except Exception:
        if code.name not in _broken:
            log.exception("the simulator %s raised an unexpected error", code.name)
        _broken.add(code.name)


@cache
def _writers() -> dict[str, EntryPoint]:
    """Return the entry points of converters for other codes, by name."""
    return {entry.name: entry for entry in entry_points(group=WRITERS) if entry.name not in _entries()}


def _load_writer(entry: EntryPoint) -> Converter:
    try:
        writer = entry.load()()
    except Exception as error:
        log.warning("the converter %s cannot be loaded", entry.name, exc_info=True)
        raise NotConfigured(f"The converter {entry.name} cannot be loaded from {entry.module}: {error}") from None
    if not isinstance(writer, Converter):
        raise NotConfigured(f"The converter {entry.name} of {entry.module} does not fit this version of yaptide")
    return writer


@cache
def _entries() -> dict[str, EntryPoint]:
    """Return entry points by name. Built-in ones win over others, otherwise the first module name wins."""
    candidates = sorted(entry_points(group=GROUP), key=lambda entry: (not _is_builtin(entry), entry.name, entry.value))
    entries: dict[str, EntryPoint] = {}
    for entry in candidates:
        if not _NAME.fullmatch(entry.name) or entry.name == COMMON:
            log.warning("%s is not a valid name of a simulator: skipped %s", entry.name, entry.value)
        elif entries.setdefault(entry.name, entry).value != entry.value:
            log.warning("duplicate simulator %s: skipped %s", entry.name, entry.value)
    return entries


def _is_builtin(entry: EntryPoint) -> bool:
    return entry.module.startswith(f"{__name__}.")


@cache
def _loaded(name: str) -> Simulator | str:
    """Return the simulator, or the reason why it cannot be used."""
    entry = _entries()[name]
    try:
        code = entry.load()()
        missing = [member for member in MEMBERS if not hasattr(code, member)]
        actual_name = code.name
    except Exception as error:
        log.warning("the simulator %s cannot be loaded", name, exc_info=True)
        return f"The simulator {name} cannot be loaded from {entry.module}: {error}"
    if missing or actual_name != name:
        problem = f"{', '.join(missing)} is missing" if missing else f"its name is {actual_name!r}"
        return f"The simulator {name} of {entry.module} does not fit this version of yaptide: {problem}"
    return cast("Simulator", code)

"""The interface of a Monte Carlo code, independent of where it runs: `Simulator`.

Input that is accepted will run: `check` reads the whole input when it is submitted, before anything is stored. It
rejects everything that `prepare` or the code would reject later, as far as the files show it: a task must not fail
because of its input, hours later on a cluster.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.estimators import TaskOutput
from yaptide.domain.slices import Slice
from yaptide.domain.splitting import LARGEST_TASK_SEED
from yaptide.editor.project import Project

#: Input files, name to text. `yaptide.simulators.files` defines valid names.
InputFiles = Mapping[str, str]

#: File in a task's folder with the output of the simulator, including standard error.
OUTPUT_LOG = "output.log"

Say = Callable[[str], None]

_LOG_TAIL = 256 * 1024
_MOST_LOGS = 5
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


def read_log(folder: Path, patterns: Sequence[str] = ()) -> dict[str, str]:
    """Return the ends of log files in `folder`, name to text: the simulator's output, and files that match `patterns`.

    A file that is missing or cannot be read is left out.
    """
    logs: dict[str, str] = {}
    for path in (folder / OUTPUT_LOG, *find_logs(folder, patterns)):
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            logs[path.name] = file.read().decode("utf-8", "replace").replace("\0", "")
    return logs


def find_logs(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files in `folder` that match patterns, the first few by name of each."""
    return [path for pattern in patterns for path in nsmallest(_MOST_LOGS, folder.glob(pattern))]


def read_logs(code: "Simulator", folder: Path) -> dict[str, str]:
    """Return the log files of a run: its output, and those that the simulator names in `log_patterns`, if it does."""
    return read_log(folder, getattr(code, "log_patterns", ()))


def logs_of_task(task_id: int, logs: Mapping[str, str]) -> dict[str, str]:
    """Return the log files of a task under their names in the simulation."""
    return {f"task-{task_id}-{name}": text for name, text in logs.items()}


@dataclass(frozen=True, slots=True)
class ProgressRule:
    """How to determine the progress of a run from a file. Plain data, because clusters have no yaptide installed.

    `file` is a pattern of a path in the task's folder (`glob`, with ``**``); of several files that match, the last one
    by name counts. Its last `tail` bytes are read. If they match the regular expression `done`, the run is complete;
    otherwise the last match of `percent`, whose first group is a number, is the progress: in percent, or in primaries
    if the numbers are `counted`. On clusters, `count_primaries` in yaptide/platforms/batch/agent.py is the same rule.

    The file may contain anything: both expressions must take a time that grows no faster than the file.
    """

    file: str
    tail: int
    percent: str
    done: str
    counted: bool = False

    def primaries(self, folder: Path, primaries: int) -> int:
        """Return the primaries simulated so far, of `primaries`; 0 while there is nothing to read."""
        try:
            with max(folder.glob(self.file), key=str).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - self.tail))
                tail = log.read().decode(errors="replace")
        except (OSError, ValueError):  # not started yet
            return 0
        if re.search(self.done, tail, re.MULTILINE):
            return primaries
        numbers = re.findall(self.percent, tail, re.MULTILINE)
        if not numbers:
            return 0
        last = float(numbers[-1])  # infinite for too many digits
        return int(min(primaries, last if self.counted else primaries * last / 100))


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of checking an input: total `primaries`, simulated in batches of `quantum`, and the `seed`.

    `voxels` is the size of a CT that needs memory where tasks run; 0 without one. `no_results` is why yaptide could not
    read any results, in a sentence; external workers may still run it.
    """

    primaries: int
    quantum: int
    seed: int
    voxels: int = 0
    no_results: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Installation:
    """An installed simulator: the `program`, its `version`, and the SHA-256 `digest` of the program, hexadecimal."""

    program: Path
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Command:
    """The argument list of a task, and variables to add to its environment.

    `links` (name to target) are created in the task's folder first, for programs that do not support long paths.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_environment(self) -> dict[str, str]:
        """Return the environment of the run, without secrets of yaptide."""
        return {name: os.environ[name] for name in _KEPT if name in os.environ} | dict(self.environment)

    def make_links(self, folder: Path) -> None:
        """Create the links in the task's folder; raises OSError."""
        for name, target in self.links.items():
            (folder / name).symlink_to(target)


@dataclass(frozen=True, slots=True)
class Limits:
    """Particles that a code has beams of, and quantities that it scores (empty: unknown); limits of a task.

    A task of the code has at most `task_primaries`, and a seed up to `seed`.
    """

    particles: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()
    task_primaries: int | None = None
    seed: int = LARGEST_TASK_SEED


class Simulator(Protocol):
    """A Monte Carlo code: everything that differs between codes.

    One object is created, without arguments, and used by many threads concurrently. docs/new-code.md has an example.
    `yaptide.simulators.programs.PointedProgram` implements what programs installed by a site have in common.
    """

    name: str
    """`sim_type` in the API, e.g. ``mcsquare``: the name of its entry point."""

    title: str
    """The official name of the code, e.g. ``MCsquare``."""

    takes_projects: bool
    """Whether it accepts projects of the web editor, in addition to input files."""

    progress_rule: ProgressRule | None
    """How to determine the progress of a run; None for a code that cannot run on clusters."""

    limits: Limits
    """Supported particles and quantities."""

    remedy: str
    """What an administrator can do if it is not installed, as the end of a sentence: "an administrator can ..."."""

    def recognises(self, files: InputFiles) -> bool:
        """Return whether these files look like input of this code."""

    def check(self, files: InputFiles) -> Checked:
        """Check the whole input before it is stored; raise InvalidInput with what to fix.

        Input that passes will run, with any seed and any share of the primaries.
        """

    def install(self, folder: Path, say: Say) -> Installation:
        """Download the code into `folder`, test it, and report steps to `say`; raise NotConfigured."""

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """Test a program of the site, and store its path in `folder`; raise NotConfigured."""

    def installation(self, folder: Path) -> Installation:
        """Return the code installed in `folder`; raise NotConfigured with the command that installs it."""

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write the input of a task into the empty `folder`; must not fail for input that `check` accepted."""

    def command(self, installation: Installation, folder: Path) -> Command:
        """Return the command for the task prepared in `folder`, which is also the working directory."""

    def progress(self, folder: Path, primaries: int) -> int:
        """Return the primaries simulated so far, 0 .. `primaries`, from the files in `folder`."""

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Return the results of a run; raise SimulationFailed if they are not valid, whatever the exit code."""

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Return the index of the project output that a file of results belongs to, never by its position."""


#: Members that an object must have to be a `Simulator`.
MEMBERS = tuple(member for member in (*Simulator.__annotations__, *vars(Simulator)) if not member.startswith("_"))


@dataclass(frozen=True, slots=True)
class Converted:
    """Input files converted from a project of the web editor.

    `left_out` contains sentences about parts of the project that are not in them, `resolution` describes their
    resolution.
    """

    files: InputFiles
    left_out: tuple[str, ...]
    resolution: str


@runtime_checkable
class Converter(Protocol):
    """An additional member of simulators for which yaptide converts projects to input files.

    A simulator with the attribute `stands_in`, true, also runs projects that were made for others, unless an
    administrator chooses otherwise (YAPTIDE_EDITOR_SIMULATOR).
    """

    def convert(self, project: Project) -> Converted:
        """Return the input files for a project; raise InvalidInput if none of its outputs can be simulated.

        The estimators that `read` returns for them have the names of the project's outputs, and contain their
        quantities up to the first one that is left out. Each later quantity is an estimator of its own, called
        ``output: quantity``.
        """


@runtime_checkable
class Slicer(Protocol):
    """The additional method of a simulator whose geometry can be drawn before it runs."""

    def slice_geometry(self, files: InputFiles) -> Slice:
        """Return a plane through the geometry that contains the beam; raise InvalidInput if `check` would."""


@dataclass(frozen=True, slots=True)
class Image:
    """What particles are sent through, in voxels: a CT (`quantity` "HU"), or the numbers of zones ("zone").

    `voxels` has the shape (nz, ny, nx); `spacing` is their size and `origin` the centre of the first one, in mm along
    (x, y, z), in the coordinates of the results.
    """

    voxels: NDArray[np.float32]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    quantity: str


@runtime_checkable
class Imaged(Protocol):
    """The additional method of a simulator whose input contains a CT."""

    def read_image(self, files: InputFiles) -> Image:
        """Return the CT in the input; raise InvalidInput."""

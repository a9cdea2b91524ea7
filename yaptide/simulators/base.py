"""The protocol of a Monte Carlo code: `Simulator`. Nothing here depends on where the code runs.

Input that is accepted will run: `check` reads the whole input when it is submitted, before anything is stored. It
rejects everything that `prepare` or the code would reject later, as far as the files show it: a task must not fail
because of its input, hours later on a cluster.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.estimators import TaskOutput
from yaptide.editor.project import Project

#: Input files: name to text. See `yaptide.simulators.files` for what a name may be.
InputFiles = Mapping[str, str]

#: The log in the folder of a task: standard output and standard error of the simulator.
OUTPUT_LOG = "output.log"

Say = Callable[[str], None]

_LOG_TAIL = 256 * 1024
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


def read_log(folder: Path) -> dict[str, str]:
    """The end of the log in the `folder` of a task, by file name; empty if there is no log."""
    try:
        with (folder / OUTPUT_LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            return {OUTPUT_LOG: file.read().decode("utf-8", "replace").replace("\0", "")}
    except OSError:
        return {}


def logs_of_task(task_id: int, logs: Mapping[str, str]) -> dict[str, str]:
    """The log files of a task, under their names among the log files of the simulation."""
    return {f"task-{task_id}-{name}": text for name, text in logs.items()}


@dataclass(frozen=True, slots=True)
class ProgressRule:
    """How to determine the progress of a run from a file: plain data, which the agent on a cluster uses too.

    The rule reads the last `tail` bytes of `file` in the folder of the task. If the regular expression `done` matches
    there, all primaries are simulated; otherwise the first group of the last match of `percent` is the percentage.
    """

    file: str
    tail: int
    percent: str
    done: str

    def primaries(self, folder: Path, primaries: int) -> int:
        """Primaries simulated so far, out of `primaries`; 0 if the file does not exist yet."""
        try:
            with (folder / self.file).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - self.tail))
                tail = log.read().decode(errors="replace")
        except OSError:  # not started yet
            return 0
        if re.search(self.done, tail, re.MULTILINE):
            return primaries
        percents = re.findall(self.percent, tail, re.MULTILINE)
        return min(primaries, int(primaries * float(percents[-1]) / 100)) if percents else 0


@dataclass(frozen=True, slots=True)
class Checked:
    """Input that will run: total `primaries`, to be split in multiples of `quantum`, and the `seed`."""

    primaries: int
    quantum: int
    seed: int


@dataclass(frozen=True, slots=True)
class Installation:
    """An installed simulator: the `program`, its `version`, and the SHA-256 `digest` of the program, hexadecimal."""

    program: Path
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a task: the argument list, and variables to add to the environment.

    `links` (name to target) are created in the folder of the task first, for programs that do not support long paths.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_environment(self) -> dict[str, str]:
        """The environment of the run, without secrets of the server."""
        return {name: os.environ[name] for name in _KEPT if name in os.environ} | dict(self.environment)

    def make_links(self, folder: Path) -> None:
        """Create the links in the folder of the task; raises OSError."""
        for name, target in self.links.items():
            (folder / name).symlink_to(target)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a code can do: particles of its beams, and quantities that it scores. Empty: unknown."""

    particles: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()


class Simulator(Protocol):
    """One Monte Carlo code: everything that differs between codes.

    The class is instantiated once, without arguments, and the object is used by several threads at a time.
    docs/new-code.md has an example. `yaptide.simulators.programs.PointedProgram` implements everything that is common
    to programs that a site has installed itself.
    """

    name: str
    """`sim_type` in the API, such as ``mcsquare``; also the name of its entry point."""

    title: str
    """The name as its authors write it, such as ``MCsquare``."""

    takes_projects: bool
    """Whether it can run projects of the web editor, and not only input files."""

    progress_rule: ProgressRule | None
    """How to determine the progress of a run; None for a code that cannot run on clusters."""

    limits: Limits
    """What it can do."""

    remedy: str
    """What an administrator can do where it is not installed; shown after a colon: "an administrator can ..."."""

    def recognises(self, files: InputFiles) -> bool:
        """Whether these files look like input of this code. A guess: `check` decides."""

    def check(self, files: InputFiles) -> Checked:
        """Check the whole input at submission. Input that passes will run, with any seed and any share of primaries.

        Raises InvalidInput with one line that says what to fix. Nothing is stored then.
        """

    def install(self, folder: Path, say: Say) -> Installation:
        """Download the code into `folder` and test it by a run; `say` gets the steps. Raises NotConfigured."""

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """Test an existing `program` by a run, and store its path in `folder`; raises NotConfigured."""

    def installation(self, folder: Path) -> Installation:
        """The code that `folder` holds or points to; raises NotConfigured with the command that installs it."""

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write the input of one task into the empty `folder`. Must not fail for input that `check` has accepted."""

    def command(self, installation: Installation, folder: Path) -> Command:
        """The command that runs the task prepared in `folder`, which is also the working directory."""

    def progress(self, folder: Path, primaries: int) -> int:
        """Primaries simulated so far, 0 to `primaries`, from the files that the run has written to `folder`."""

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """The results of a finished run; raises SimulationFailed if they are not valid, whatever the exit code is."""

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Index of the project's output whose results are in a file, matched by name; None if there is none."""


#: The attributes that every `Simulator` must have.
MEMBERS = tuple(member for member in (*Simulator.__annotations__, *vars(Simulator)) if not member.startswith("_"))


@dataclass(frozen=True, slots=True)
class Converted:
    """Input files made from a project of the web editor.

    `left_out` has a sentence for each part of the project that the files lack; `resolution` describes the grid.
    """

    files: InputFiles
    left_out: tuple[str, ...]
    resolution: str


@runtime_checkable
class Converter(Protocol):
    """Also implemented by a simulator if yaptide converts projects of the web editor to its input files."""

    def convert(self, project: Project) -> Converted:
        """The input files for a project; raises InvalidInput if nothing in the project can be simulated.

        The estimators that `read` returns have the names of the outputs of the project, and contain the quantities
        before the first one that is left out. Each later quantity is a separate estimator, ``output: quantity``.
        """


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
    """What a simulator has beside the calls of `Simulator` if there is a CT in its input."""

    def read_image(self, files: InputFiles) -> Image:
        """The CT in the input; raises InvalidInput."""

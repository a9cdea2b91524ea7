"""What yaptide needs to know of a Monte Carlo code, and nothing about where it runs."""

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

#: Input files as they travel: name to text. See `yaptide.simulators.files` for what a name may be.
InputFiles = Mapping[str, str]

#: In a task's folder: what the simulator printed, standard error included.
OUTPUT_LOG = "output.log"

Say = Callable[[str], None]

_LOG_TAIL = 256 * 1024
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


def read_log(folder: Path) -> dict[str, str]:
    """The end of what a simulator printed in its `folder`, as a log file; empty if there is none."""
    try:
        with (folder / OUTPUT_LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            return {OUTPUT_LOG: file.read().decode("utf-8", "replace").replace("\0", "")}
    except OSError:
        return {}


def logs_of_task(task_id: int, logs: Mapping[str, str]) -> dict[str, str]:
    """Log files of a task under the names they have among those of its simulation."""
    return {f"task-{task_id}-{name}": text for name, text in logs.items()}


@dataclass(frozen=True, slots=True)
class ProgressRule:
    """How to see from a file how far a run is: plain data, which can be sent to where nothing of yaptide is installed.

    Read are the last `tail` bytes of `file` in the task's folder. If the regular expression `done` is found there, the
    run is at its end; otherwise the last match of `percent` says how far it is. Its first group is a number.
    """

    file: str
    tail: int
    percent: str
    done: str

    def primaries(self, folder: Path, primaries: int) -> int:
        """Primaries simulated so far of `primaries`; 0 as long as there is nothing to read."""
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
    """What the check of an input found: `primaries` in all, simulated in batches of `quantum`, from `seed`."""

    primaries: int
    quantum: int
    seed: int


@dataclass(frozen=True, slots=True)
class Installation:
    """A simulator on this machine: the `program`, its `version`, and the SHA-256 hex `digest` of the program."""

    program: Path
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a task: the argument list and what to add to the environment.

    `links` are made in the task's folder first, name to target, for programs that cannot bear long paths.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_environment(self) -> dict[str, str]:
        """The environment of the run: no secret of ours is in it."""
        return {name: os.environ[name] for name in _KEPT if name in os.environ} | dict(self.environment)

    def make_links(self, folder: Path) -> None:
        """Make the links in the task's folder; raises OSError."""
        for name, target in self.links.items():
            (folder / name).symlink_to(target)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a code can do: particles that it has beams of, quantities that it scores. Empty: not told."""

    particles: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()


class Simulator(Protocol):
    """One Monte Carlo code: everything that differs between codes.

    An object of it is made once, without arguments, and used by many threads at a time. docs/new-code.md shows one.
    `yaptide.simulators.programs.PointedProgram` has all that is the same for programs on a site's machine.
    """

    name: str
    """`sim_type` in the API, such as ``mcsquare``: the name of its entry point."""

    title: str
    """The code's name as its authors write it, such as ``MCsquare``."""

    takes_projects: bool
    """Whether projects of the web editor are made for it, and not only input files."""

    progress_rule: ProgressRule | None
    """How to see how far a run is; None for a code that cannot be run on clusters."""

    limits: Limits
    """What it can do."""

    remedy: str
    """What an administrator can do where it is not installed, to stand after a colon: "an administrator can ..."."""

    def recognises(self, files: InputFiles) -> bool:
        """Whether these files look like input of this code."""

    def check(self, files: InputFiles) -> Checked:
        """Check the whole input before anything is stored; raises InvalidInput with what to mend."""

    def install(self, folder: Path, say: Say) -> Installation:
        """Fetch the code into `folder`, prove it by a run, tell the steps to `say`; raises NotConfigured."""

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """Prove a site's own `program` by a run, and keep in `folder` where it is; raises NotConfigured."""

    def installation(self, folder: Path) -> Installation:
        """The code that `folder` knows of; raises NotConfigured with the command that installs it."""

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write one task's input into the empty `folder`."""

    def command(self, installation: Installation, folder: Path) -> Command:
        """How to run the task prepared in `folder` (which is also the working directory)."""

    def progress(self, folder: Path, primaries: int) -> int:
        """Primaries simulated so far, 0 .. `primaries`, from what the run has written to `folder`."""

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """The scores of a finished run; raises SimulationFailed if it cannot be believed, whatever its exit code."""

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Which of the outputs of a project, by name, the results in a file are of; never by its place in a list."""


#: What an object has to have to be a `Simulator`.
MEMBERS = tuple(member for member in (*Simulator.__annotations__, *vars(Simulator)) if not member.startswith("_"))


@dataclass(frozen=True, slots=True)
class Converted:
    """A project of the web editor as input files.

    `left_out` says in sentences what of the project is not in them, `resolution` how fine they are.
    """

    files: InputFiles
    left_out: tuple[str, ...]
    resolution: str


@runtime_checkable
class Converter(Protocol):
    """What a simulator has beside the calls of `Simulator` if yaptide writes its input files from projects."""

    def convert(self, project: Project) -> Converted:
        """The input files for a project; raises InvalidInput if nothing that it asks for can be simulated.

        The estimators that `read` makes of them have the names of the project's outputs, and hold those of its
        quantities that come before the first that is left out. Each later one is an estimator of its own, called
        ``output: quantity``.
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

"""What yaptide needs to know of a Monte Carlo code, and nothing about where it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from yaptide.domain.estimators import TaskOutput

#: Input files as they travel: name to text. See `yaptide.simulators.files` for what a name may be.
InputFiles = Mapping[str, str]

#: In a task's folder: what the simulator printed, standard error included.
OUTPUT_LOG = "output.log"

Say = Callable[[str], None]


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
    """How to start a task: the argument list and what to add to the environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class Simulator(Protocol):
    """One Monte Carlo code. Everything that differs between codes is behind these seven calls."""

    name: str
    """`sim_type` in the API, such as ``mcsquare``."""

    title: str
    """The code's name as its authors write it, such as ``MCsquare``."""

    takes_projects: bool
    """Whether projects of the web editor can be submitted for it, and not only input files."""

    def recognises(self, files: InputFiles) -> bool:
        """Whether these files look like input of this code."""

    def check(self, files: InputFiles) -> Checked:
        """Check the whole input before anything is stored; raises InvalidInput with what to mend."""

    def install(self, folder: Path, say: Say) -> Installation:
        """Fetch the code into `folder`, prove it by a run, tell the steps to `say`; raises NotConfigured."""

    def installation(self, folder: Path) -> Installation:
        """The code installed under `folder`; raises NotConfigured with the command that installs it."""

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write one task's input into the empty `folder`."""

    def command(self, installation: Installation, folder: Path) -> Command:
        """How to run the task prepared in `folder` (which is also the working directory)."""

    def progress(self, folder: Path, primaries: int) -> int:
        """Primaries simulated so far, 0 .. `primaries`, from what the run has written to `folder`."""

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """The scores of a finished run; raises SimulationFailed if it cannot be believed, whatever its exit code."""

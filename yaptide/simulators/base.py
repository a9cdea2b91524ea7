"""What yaptide needs to know of a Monte Carlo code, and nothing about where it runs."""

import os
import re
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

_LOG_TAIL = 256 * 1024


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

    progress_rule: ProgressRule | None
    """How to see how far a run is; None for a code that cannot be run by yaptide itself."""

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

"""What all programs installed by a site have in common: storing the path, testing the program, finding it again.

The path, version and digest are stored in the simulators' folder as ``<name>.json``.
"""

import functools
import hashlib
import json
import os
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from yaptide.disk import write_atomically
from yaptide.domain.depth_dose import read_range
from yaptide.domain.errors import InvalidInput, NotConfigured, NotFound, SimulationFailed
from yaptide.domain.estimators import TaskOutput
from yaptide.simulators.base import (
    OUTPUT_LOG,
    Checked,
    Command,
    InputFiles,
    Installation,
    Limits,
    ProgressRule,
    Say,
    read_log,
)
from yaptide.simulators.outputs import output_by_name

_TIMEOUT = 600  # s, for a sample that runs for seconds
_MAX_OUTPUT = 300


class PointedProgram(ABC):
    """A simulator (see `yaptide.simulators.base.Simulator`) that is installed by the site.

    A subclass defines `name`, `title`, the abstract methods, and other attributes whose defaults do not fit.
    """

    name: str
    title: str
    takes_projects = False
    progress_rule: ProgressRule | None = None
    limits = Limits()
    log_patterns: tuple[str, ...] = ()
    """Patterns of log files in a task's folder that are kept besides its output."""

    @property
    def remedy(self) -> str:
        """What an administrator can do."""
        return f"an administrator can point to the program with `yaptide simulators add {self.name} --program PATH`"

    @abstractmethod
    def recognises(self, files: InputFiles) -> bool:
        """See `Simulator`."""

    @abstractmethod
    def check(self, files: InputFiles) -> Checked:
        """See `Simulator`."""

    @abstractmethod
    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """See `Simulator`."""

    @abstractmethod
    def command(self, installation: Installation, folder: Path) -> Command:
        """See `Simulator`."""

    @abstractmethod
    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """See `Simulator`."""

    @abstractmethod
    def version(self, program: Path) -> str:
        """Return the version of a program; raise NotConfigured if it is not this code.

        Empty if a program does not print it: then it is the `code_version` in the metadata of the sample's results.
        """

    @abstractmethod
    def sample(self) -> InputFiles:
        """Return a small input that runs for seconds, with a known result."""

    @abstractmethod
    def judge(self, output: TaskOutput) -> None:
        """Compare the result of the sample with the known result; raise NotConfigured if they differ."""

    def progress(self, folder: Path, primaries: int) -> int:
        """See `Simulator`."""
        return 0 if self.progress_rule is None else self.progress_rule.primaries(folder, primaries)

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Match by name."""
        return output_by_name(file_name, outputs)

    def install(self, folder: Path, say: Say) -> Installation:
        """Raise NotConfigured; subclasses that can download the code override this."""
        raise NotConfigured(
            f"{self.title} cannot be downloaded; add your own: yaptide simulators add {self.name} --program PATH"
        )

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """See `Simulator`."""
        program = program.absolute()
        if not program.is_file() or not os.access(program, os.X_OK):
            raise InvalidInput(f"{program} is not an executable file")
        try:
            installation = Installation(program, self.version(program), sha256_of(program))
            say(f"{self.title} {installation.version}".rstrip() + ": running a sample")
            output = self.test_program(installation)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotConfigured(f"{program} does not run: {error}") from None
        installation = replace(installation, version=installation.version or _code_version(output))
        write_pointer(folder, self.name, installation)
        return installation

    def installation(self, folder: Path) -> Installation:
        """See `Simulator`."""
        installation = read_pointer(folder, self.name)
        if installation is None:
            raise NotConfigured(
                f"{self.title} is not installed on this machine; add it with: "
                f"yaptide simulators add {self.name} --program PATH"
            )
        return installation

    def test_program(self, installation: Installation) -> TaskOutput:
        """Run the sample, check its result and return it; raise NotConfigured."""
        output = self.run_sample(installation)
        self.judge(output)
        return output

    def run_sample(self, installation: Installation) -> TaskOutput:
        """Run the sample and return its result; raise NotConfigured if there is none."""
        files = self.sample()
        checked = self.check(files)
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-sample-") as name:
            folder = Path(name)
            self.prepare(files, checked.primaries, checked.seed, folder)
            exit_code = _run(self.command(installation, folder), folder)
            try:
                return self.read(folder, exit_code)
            except SimulationFailed as error:
                printed = read_log(folder).get(OUTPUT_LOG, "").strip()[-_MAX_OUTPUT:]
                detail = f"; its output: {printed}" if printed else ""
                raise NotConfigured(f"the sample failed: {error}{detail}") from None


class RangedProgram(PointedProgram):
    """A program whose sample is a beam of 150 MeV protons in water: their known range is the proof.

    The first page of the sample's results is dose over depth.
    """

    expected_range: float
    """R80 in mm: the depth beyond the peak where the dose is 80 % of its maximum."""

    tolerance = 2.0
    """mm: between tables of stopping power (ICRU 49 and 90 differ by 1 mm), and statistical."""

    def measure_range(self, output: TaskOutput) -> float:
        """Return R80 of the sample in mm; raise NotConfigured if the results are not a depth-dose curve."""
        try:
            return read_range(output.estimators[0].pages[0]).r80_mm
        except (NotFound, ValueError) as error:
            raise NotConfigured(f"the sample has no depth-dose curve: {error}") from None

    def judge(self, output: TaskOutput) -> None:
        """Compare R80 with the known range; raise NotConfigured if it differs."""
        r80 = self.measure_range(output)
        if not abs(r80 - self.expected_range) <= self.tolerance:
            raise NotConfigured(
                f"the range of 150 MeV protons in water is {r80:.1f} mm instead of {self.expected_range} mm"
            )


def _code_version(output: TaskOutput) -> str:
    return output.estimators[0].metadata.get("code_version", "unknown")


def write_pointer(folder: Path, name: str, installation: Installation) -> None:
    """Store the path of a program."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "program": str(installation.program),
        "version": installation.version,
        "digest": installation.digest,
    }
    with write_atomically(folder / f"{name}.json") as file:
        file.write(json.dumps(document, indent=1).encode() + b"\n")
        Path(file.name).chmod(0o644)


def remove_pointer(folder: Path, name: str) -> None:
    """Remove the stored path of a program."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def read_pointer(folder: Path, name: str) -> Installation | None:
    """Return the stored program; None if there is none. Raise NotConfigured if the program has changed since."""
    path = folder / f"{name}.json"
    try:
        document = json.loads(path.read_text())
        installation = Installation(Path(document["program"]), str(document["version"]), str(document["digest"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise NotConfigured(f"{path} cannot be read; add the program again: {_add_command(name)}") from None
    try:
        digest = digest_of(installation.program)
    except OSError:
        raise NotConfigured(f"{installation.program} is missing; add the program again: {_add_command(name)}") from None
    if digest != installation.digest:
        raise NotConfigured(
            f"{installation.program} has changed since it was added; add it again: {_add_command(name)}"
        )
    return installation


def digest_of(program: Path) -> str:
    """Return the SHA-256 of a program, computed again only when its time or size changes; raises OSError."""
    stat = program.stat()
    return _digest(program, (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=64)
def _digest(program: Path, state: tuple[int, int]) -> str:  # noqa: ARG001 - part of the cache key
    return sha256_of(program)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_command(name: str) -> str:
    return f"yaptide simulators add {name} --program PATH"


def _run(command: Command, folder: Path) -> int:
    """Run a sample in its own process group, which is killed at the end; returns the exit code.

    Raises NotConfigured if it takes too long.
    """
    command.make_links(folder)
    with (folder / OUTPUT_LOG).open("wb") as log:
        process = subprocess.Popen(
            command.arguments,
            cwd=folder,
            env=command.whole_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise NotConfigured(f"the sample ran for more than {_TIMEOUT:g} s and was stopped") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

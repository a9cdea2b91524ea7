"""What is the same for all codes whose program a site has somewhere: pointing to it, proving it, finding it again.

Where it is, is kept in the simulators' folder as ``<name>.json``: program, version, digest.
"""

import functools
import hashlib
import json
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from yaptide.disk import write_atomically
from yaptide.domain.errors import InvalidInput, NotConfigured, SimulationFailed
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

_TIMEOUT = 600  # s, for a sample that takes seconds
_SAID = 300


class PointedProgram(ABC):
    """A simulator (see `yaptide.simulators.base.Simulator`) that is a program of the site's own.

    A subclass has `name`, `title` and, where they differ, the other attributes, and what is abstract here.
    """

    name: str
    title: str
    takes_projects = False
    progress_rule: ProgressRule | None = None
    limits = Limits()

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
        """The version of a program; raises NotConfigured if it is not this code."""

    @abstractmethod
    def sample(self) -> InputFiles:
        """A small input that takes seconds, whose result is known."""

    @abstractmethod
    def judge(self, output: TaskOutput) -> None:
        """Compare the result of the sample with what is known; raises NotConfigured if it is another one."""

    def progress(self, folder: Path, primaries: int) -> int:
        """See `Simulator`."""
        return 0 if self.progress_rule is None else self.progress_rule.primaries(folder, primaries)

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """By name."""
        return output_by_name(file_name, outputs)

    def install(self, folder: Path, say: Say) -> Installation:
        """Not possible, unless a subclass knows where to get the code; raises NotConfigured."""
        raise NotConfigured(
            f"{self.title} cannot be fetched; point to your own: yaptide simulators add {self.name} --program PATH"
        )

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """See `Simulator`."""
        program = program.absolute()
        if not program.is_file() or not os.access(program, os.X_OK):
            raise InvalidInput(f"{program} is no program")
        try:
            installation = Installation(program, self.version(program), sha256_of(program))
            say(f"{self.title} {installation.version}: running a sample")
            self.prove(installation)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotConfigured(f"{program} does not run: {error}") from None
        keep_pointer(folder, self.name, installation)
        return installation

    def installation(self, folder: Path) -> Installation:
        """See `Simulator`."""
        found = read_pointer(folder, self.name)
        if found is None:
            raise NotConfigured(
                f"{self.title} is not installed on this machine, point to it with: "
                f"yaptide simulators add {self.name} --program PATH"
            )
        return found

    def prove(self, installation: Installation) -> None:
        """Run the sample and look at what comes out; raises NotConfigured."""
        files = self.sample()
        checked = self.check(files)
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-sample-") as name:
            folder = Path(name)
            self.prepare(files, checked.primaries, checked.seed, folder)
            exit_code = _run(self.command(installation, folder), folder)
            try:
                output = self.read(folder, exit_code)
            except SimulationFailed as error:
                said = read_log(folder).get(OUTPUT_LOG, "").strip()[-_SAID:]
                raise NotConfigured(f"the sample failed: {error}" + (f"; it said: {said}" if said else "")) from None
        self.judge(output)


def keep_pointer(folder: Path, name: str, installation: Installation) -> None:
    """Keep where a program is."""
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
    """Forget where a program is."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def read_pointer(folder: Path, name: str) -> Installation | None:
    """Where a program is; None if nobody has pointed to one. Raises NotConfigured if it is another one since."""
    path = folder / f"{name}.json"
    try:
        document = json.loads(path.read_text())
        kept = Installation(Path(document["program"]), str(document["version"]), str(document["digest"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise NotConfigured(f"{path} cannot be read; point to the program again: {_again(name)}") from None
    try:
        digest = digest_of(kept.program)
    except OSError:
        raise NotConfigured(f"{kept.program} is gone; point to the program again: {_again(name)}") from None
    if digest != kept.digest:
        raise NotConfigured(f"{kept.program} is another program than the one that was tried; try it: {_again(name)}")
    return kept


def digest_of(program: Path) -> str:
    """SHA-256 of a program, reckoned again only when its time or size has changed; raises OSError."""
    stat = program.stat()
    return _digest(program, (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=64)
def _digest(program: Path, state: tuple[int, int]) -> str:  # noqa: ARG001 - the state is the key of the cache
    return sha256_of(program)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _again(name: str) -> str:
    return f"yaptide simulators add {name} --program PATH"


def _run(command: Command, folder: Path) -> int:
    command.make_links(folder)
    with (folder / OUTPUT_LOG).open("wb") as log:
        done = subprocess.run(
            command.arguments,
            cwd=folder,
            env=command.whole_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=_TIMEOUT,
        )
    return done.returncode

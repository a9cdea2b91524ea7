"""Both packages as users get them: built from git, and installed into environments of their own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LIBRARIES = Path(sysconfig.get_path("purelib"))


def files_of_git(folder: Path = ROOT) -> list[Path]:
    """Return the files of the checkout, including uncommitted ones, relative to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = map(Path, filter(None, done.stdout.split("\0")))
    return [path for path in paths if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]


def build(folder: Path) -> list[Path]:
    """Build sdist and wheel of both packages in `folder`, the wheels from the sdists."""
    checkout, made = folder / "checkout", folder / "dist"
    for path in files_of_git():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, checkout / path)
    for project in (checkout / "client", checkout):
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", made, project]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return sorted(made.iterdir())


def needed(*names: str) -> Iterator[Distribution]:
    """Yield the installed distributions that `names` require, without `names` themselves and unrequested extras."""
    waiting, visited = [Requirement(name) for name in names], set()
    while waiting:
        wanted = waiting.pop()
        key = (wanted.name.lower(), *sorted(wanted.extras))
        if key in visited:
            continue
        visited.add(key)
        try:
            installed = distribution(wanted.name)
        except PackageNotFoundError:  # for another operating system
            continue
        if wanted.name not in names:
            yield installed
        extras = {"", *wanted.extras}
        waiting += [
            requirement
            for requirement in map(Requirement, installed.requires or [])
            if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        ]


@dataclass
class Environment:
    """A virtual environment without pip, with only the named libraries from the environment of the tests."""

    folder: Path
    libraries: Iterable[Distribution] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        venv.create(self.folder / "venv", with_pip=False, symlinks=True)
        linked = self.folder / "libraries"
        linked.mkdir()
        for library in self.libraries:
            for top in {path.parts[0] for path in library.files or [] if path.parts[0] not in ("..", "__pycache__")}:
                if not (linked / top).exists():
                    (linked / top).symlink_to(LIBRARIES / top)
        (packages,) = (self.folder / "venv/lib").glob("python3.*/site-packages")
        (packages / "libraries.pth").write_text(f"{linked}\n")
        for name in ("home", "empty"):
            (self.folder / name).mkdir()

    @property
    def empty(self) -> Path:
        """Working folder of commands."""
        return self.folder / "empty"

    def pip(self, *words: object) -> None:
        """Run pip of the tests on this environment, without an index."""
        python = self.folder / "venv/bin/python"
        command = [sys.executable, "-m", "pip", "--python", python, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, *wheels: Path) -> None:
        """Install wheels without dependencies."""
        self.pip("install", "--quiet", "--no-index", "--no-deps", *wheels)

    def run(self, program: str, *words: object, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run a program of this environment in an empty folder, with a new home folder."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}
        return subprocess.run(
            [self.folder / "venv/bin" / program, *map(str, words)],
            cwd=self.empty,
            env=environment | self.variables,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

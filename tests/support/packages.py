"""Our two packages as somebody gets them: built from what is in git, and installed into environments of their own."""

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
    """Files of the checkout, with those that are not committed yet, relative to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = map(Path, filter(None, done.stdout.split("\0")))
    return [path for path in found if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]


def build(folder: Path) -> list[Path]:
    """Sdist and wheel of both packages, the wheels made from the sdists, in `folder`."""
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
    """Distributions that those named need, installed here, without themselves and without extras not asked for."""
    waiting, seen = [Requirement(name) for name in names], set()
    while waiting:
        wanted = waiting.pop()
        key = (wanted.name.lower(), *sorted(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(wanted.name)
        except PackageNotFoundError:  # for another system
            continue
        if wanted.name not in names:
            yield found
        extras = {"", *wanted.extras}
        waiting += [
            requirement
            for requirement in map(Requirement, found.requires or [])
            if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        ]


@dataclass
class Environment:
    """A virtual environment without pip, whose libraries are those of the tests that are named, and no others."""

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
        """The folder that commands are run in."""
        return self.folder / "empty"

    def pip(self, *words: object) -> None:
        """Run the pip of the tests on this environment, without an index."""
        python = self.folder / "venv/bin/python"
        command = [sys.executable, "-m", "pip", "--python", python, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, *wheels: Path) -> None:
        """Install wheels, and nothing with them."""
        self.pip("install", "--quiet", "--no-index", "--no-deps", *wheels)

    def run(self, program: str, *words: object, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run a program of this environment in an empty folder, for somebody with a fresh home folder."""
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

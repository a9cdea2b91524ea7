"""Codes that yaptide cannot run by itself yet: it checks their input, and keeps what workers of others report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.simulators.base import Command, InputFiles, Installation, Limits, ProgressRule, Say
from yaptide.simulators.outputs import output_by_name


class External:
    """A simulator that cannot run here; a subclass adds `recognises` and `check`.

    See `yaptide.simulators.base.Simulator` for what each call means; those that need the code raise NotConfigured.
    """

    name: str
    title: str
    takes_projects = True
    progress_rule: ProgressRule | None = None
    limits = Limits()

    @property
    def remedy(self) -> str:
        """What an administrator can do."""
        return (
            f"yaptide checks its input, and cannot run it by itself yet. Where workers of others have {self.title}, an "
            f"administrator can let them take it: YAPTIDE_FOREIGN_WORKERS={self.name}"
        )

    def install(self, folder: Path, say: Say) -> Installation:
        """Not possible: a licence has to be asked for."""
        self._refuse()

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """Not possible yet."""
        self._refuse()

    def installation(self, folder: Path) -> Installation:
        """Not possible."""
        self._refuse()

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Not possible."""
        self._refuse()

    def command(self, installation: Installation, folder: Path) -> Command:
        """Not possible."""
        self._refuse()

    def progress(self, folder: Path, primaries: int) -> int:
        """Not possible."""
        self._refuse()

    def read(self, folder: Path, exit_code: int) -> NoReturn:
        """Not possible."""
        self._refuse()

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """By name."""
        return output_by_name(file_name, outputs)

    def _refuse(self) -> NoReturn:
        raise NotConfigured(
            f"{self.title} cannot be run by yaptide itself yet; its input is checked here, and workers of others that "
            "have it report their results (docs/workers.md)"
        )


def require_files(files: InputFiles, names: Iterable[str], title: str) -> None:
    """Refuse input in which one of the files `names` is missing; raises InvalidInput."""
    for name in names:
        if name not in files:
            raise InvalidInput(f"{title} needs the input file {name!r}")

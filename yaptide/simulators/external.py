"""Codes that yaptide cannot run itself yet: it checks their input and stores the reports of external workers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.simulators.base import Command, InputFiles, Installation, Limits, ProgressRule, Say
from yaptide.simulators.outputs import output_by_name
from yaptide.simulators.text import explain_undecoded_files


class External:
    """A simulator that cannot run here; subclasses add `recognises` and `check`.

    Methods that need the code raise NotConfigured; `yaptide.simulators.base.Simulator` describes all methods.
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
            f"yaptide can check its input, but not run it yet. If external workers have {self.title}, an administrator "
            f"can allow them to run it: YAPTIDE_FOREIGN_WORKERS={self.name}"
        )

    def install(self, folder: Path, say: Say) -> Installation:
        """Raise NotConfigured: the code needs a licence."""
        self._refuse()

    def add(self, folder: Path, program: Path, say: Say) -> Installation:
        """Raise NotConfigured."""
        self._refuse()

    def installation(self, folder: Path) -> Installation:
        """Raise NotConfigured."""
        self._refuse()

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Raise NotConfigured."""
        self._refuse()

    def command(self, installation: Installation, folder: Path) -> Command:
        """Raise NotConfigured."""
        self._refuse()

    def progress(self, folder: Path, primaries: int) -> int:
        """Raise NotConfigured."""
        self._refuse()

    def read(self, folder: Path, exit_code: int) -> NoReturn:
        """Raise NotConfigured."""
        self._refuse()

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Match by name."""
        return output_by_name(file_name, outputs)

    def _refuse(self) -> NoReturn:
        raise NotConfigured(
            f"yaptide cannot run {self.title} itself yet; it checks the input, and external workers report the results "
            "(docs/workers.md)"
        )


def require_files(files: InputFiles, names: Iterable[str], title: str) -> None:
    """Raise InvalidInput if one of the files `names` is missing."""
    for name in names:
        if name not in files:
            explain_undecoded_files(files)
            raise InvalidInput(f"{title} needs the input file {name!r}")

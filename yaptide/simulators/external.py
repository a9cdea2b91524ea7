"""Codes that are not free to be passed on: yaptide checks their input, and keeps what workers elsewhere report."""

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.simulators.base import Command, InputFiles, Installation, ProgressRule, Say


class External:
    """A simulator that cannot run here; a subclass adds `recognises` and `check`.

    See `yaptide.simulators.base.Simulator` for what each call means; those that need the code raise NotConfigured.
    """

    name: str
    title: str
    takes_projects = True
    progress_rule: ProgressRule | None = None

    def install(self, folder: Path, say: Say) -> Installation:
        """Not possible: a licence has to be asked for."""
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

    def _refuse(self) -> NoReturn:
        raise NotConfigured(
            f"{self.title} needs a licence of its own and cannot be run by yaptide itself; "
            "its input is checked here, and workers that have it report their results"
        )


def need(files: InputFiles, names: Iterable[str], title: str) -> None:
    """Refuse input in which one of the files `names` is missing; raises InvalidInput."""
    for name in names:
        if name not in files:
            raise InvalidInput(f"{title} needs the input file {name!r}")

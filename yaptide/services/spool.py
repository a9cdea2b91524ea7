"""The spool: where tasks leave their scores until they are merged.

    <spool>/<job_id>/<task_id>.npz     scores of a task (`yaptide.persistence.task_outputs`)
    <spool>/.place                     name of this spool, drawn once

A file is written aside and renamed: if it is there, it is whole. It is on the disk before the database says that the
task has ended.
"""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from yaptide.disk import create_once, explain_full_disk, sync_folder, write_atomically

NO_ROOM = "No room is left for the scores of tasks"
_FORGOTTEN = 30 * 24 * 3600.0


class Spool(Protocol):
    """Where the scores of tasks are kept; whoever shares it can go on with each other's simulations."""

    @property
    def place(self) -> str:
        """Name of the spool, with a slash at its end: the names of all who use it begin with it."""

    def receive(self, job_id: str, task_id: int) -> AbstractContextManager[IO[bytes]]:
        """A file to write the scores of a task into; at the end of the `with` block they are kept, whole or not at all.

        If there are some already, they are the same and stay. Raises StorageFull.
        """

    def fetch(self, job_id: str, task_id: int, aside: Path) -> Path:
        """The scores of a task as a file, copied into the folder `aside` if need be; it is missing if they are lost."""

    def remove(self, job_id: str) -> None:
        """Remove everything of a simulation; nothing there is no error."""

    def jobs(self) -> set[str]:
        """Public names of the simulations that have left something."""

    def is_forgotten(self, job_id: str) -> bool:
        """Whether nothing was left for a simulation for so long that nobody will ask for it any more."""


class Folder:
    """A spool in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        """The name kept in the folder: it goes where the scores go, also to another machine or into a container."""
        name = self.path / ".place"
        create_once(name, secrets.token_hex(6).encode())
        return f"{name.read_text()}/"

    @contextmanager
    def receive(self, job_id: str, task_id: int) -> Iterator[IO[bytes]]:
        """See `Spool`."""
        target = self.path / job_id / f"{task_id}.npz"
        with explain_full_disk(NO_ROOM):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with write_atomically(target, replace=False) as file:
                yield file
            sync_folder(self.path)

    def fetch(self, job_id: str, task_id: int, aside: Path) -> Path:
        """See `Spool`."""
        return self.path / job_id / f"{task_id}.npz"

    def remove(self, job_id: str) -> None:
        """See `Spool`."""
        shutil.rmtree(self.path / job_id, ignore_errors=True)

    def jobs(self) -> set[str]:
        """See `Spool`."""
        if not self.path.is_dir():
            return set()
        return {folder.name for folder in self.path.iterdir() if not folder.name.startswith(".")}

    def is_forgotten(self, job_id: str) -> bool:
        """See `Spool`."""
        try:
            return time.time() - (self.path / job_id).stat().st_mtime > _FORGOTTEN
        except FileNotFoundError:
            return False

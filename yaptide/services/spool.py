"""The staging area, where the output of tasks waits for the merge.

    <spool>/<job_id>/<task_id>.npz     output of a task (`yaptide.persistence.task_outputs`)
    <spool>/.place                     random name of this staging area

A file is written under a temporary name and renamed: if it exists, it is complete. It is on disk before the task ends
in the database.
"""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from yaptide.disk import create_once, explain_full_disk, sync_folder, write_atomically

NO_ROOM = "No disk space left for the output of tasks"
_FORGOTTEN = 30 * 24 * 3600.0


class Spool(Protocol):
    """A place for the output of tasks; executors that share it can continue each other's simulations."""

    @property
    def place(self) -> str:
        """Name of the staging area with a trailing slash: the names of all its users begin with it."""

    def receive(self, job_id: str, task_id: int) -> AbstractContextManager[IO[bytes]]:
        """Open a file for the output of a task; at the end of the `with` block it is stored completely, or not at all.

        Existing output is the same and is kept. Raises StorageFull.
        """

    def fetch(self, job_id: str, task_id: int, folder: Path) -> Path:
        """Return the output of a task as a file, copied into `folder` if necessary; it is missing if it was lost."""

    def remove(self, job_id: str) -> None:
        """Remove everything of a simulation, if there is anything."""

    def jobs(self) -> set[str]:
        """Return the job_ids of simulations with output."""

    def is_forgotten(self, job_id: str) -> bool:
        """Return whether a simulation's last output is so old that it is no longer needed."""


class Folder:
    """A staging area in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        """The name stored in the folder: it moves with the output, for example to another machine or a container."""
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

    def fetch(self, job_id: str, task_id: int, folder: Path) -> Path:
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

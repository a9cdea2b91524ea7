"""The staging area, where the output of tasks waits for the merge.

    <spool>/<job_id>/<task_id>.npz     output of a task (`yaptide.persistence.task_outputs`)
    <spool>/.place                     random name of this staging area

A file is written under a temporary name and renamed: if it exists, it is complete. It is on disk before the task ends
in the database.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from yaptide.domain.errors import explain_full_disk

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
        if not name.exists():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=".place-") as file:
                file.write(secrets.token_hex(6).encode())
                file.flush()
                with suppress(FileExistsError):  # another process was faster
                    os.link(file.name, name)
        return f"{name.read_text()}/"

    @contextmanager
    def receive(self, job_id: str, task_id: int) -> Iterator[IO[bytes]]:
        """See `Spool`."""
        target = self.path / job_id / f"{task_id}.npz"
        with explain_full_disk(NO_ROOM):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{task_id}-", delete=False) as file:
                try:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                    if not target.exists():
                        Path(file.name).rename(target)
                        _sync_names(target.parent)
                        _sync_names(self.path)
                finally:
                    Path(file.name).unlink(missing_ok=True)

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


def _sync_names(folder: Path) -> None:
    """Sync a folder: a new file name is on disk only after that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

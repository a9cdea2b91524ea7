"""Files on a disk: written whole or not at all, created once, and what to do when the disk is full."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from yaptide.domain.errors import StorageFull

#: Bytes that must be free in the data folder and where tasks run: with less, nothing is accepted or begun.
MIN_FREE = 256 * 2**20
#: The reason to give for it.
TOO_LITTLE_FREE = f"less than {MIN_FREE // 2**20} MiB are free"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Whether an error of the system says that a disk, a quota or the limit of a file leaves no room."""
    return error.errno in _FULL


@contextmanager
def explain_full_disk(message: str) -> Iterator[None]:
    """Raise StorageFull with `message` where the system says that there is no room."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StorageFull(message) from error
        raise


def has_free_space(folder: Path) -> bool:
    """Whether `MIN_FREE` bytes are free in a folder, or where it will be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free >= MIN_FREE


def require_free_space(folder: Path, purpose: str) -> None:
    """Raise StorageFull, which says what the space is needed for, if too little is free."""
    if not has_free_space(folder):
        raise StorageFull(f"No room is left {purpose}: {TOO_LITTLE_FREE}")


@contextmanager
def write_atomically(path: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """A new file that gets the name `path` at the end of the block, whole and on the disk, or not at all.

    Only its owner may read it. Without `replace`, a file that has the name already is kept.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".yaptide-", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if replace or not path.exists():
                Path(file.name).replace(path)
                sync_folder(path.parent)
        finally:
            Path(file.name).unlink(missing_ok=True)


def create_once(path: Path, content: bytes) -> None:
    """Create a file that only its owner may read, and its folder; one that is there, or appears meanwhile, is kept."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".yaptide-") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk: a new name is kept only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

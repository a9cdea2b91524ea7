"""Files: atomic writes, files created once, free space, and full disks."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from yaptide.domain.errors import StorageFull

#: Bytes that must be free in the data folder and where tasks run; otherwise nothing is accepted or started.
MIN_FREE = 256 * 2**20
#: The message for that case.
TOO_LITTLE_FREE = f"less than {MIN_FREE // 2**20} MiB are free"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Return whether an OSError means that a disk, a quota or the file size limit is full."""
    return error.errno in _FULL


@contextmanager
def explain_full_disk(message: str) -> Iterator[None]:
    """Raise StorageFull with `message` if an OSError in this block means that there is no space."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StorageFull(message) from error
        raise


def has_free_space(folder: Path) -> bool:
    """Return whether a folder, or the folder where it will be created, has `MIN_FREE` free bytes."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free >= MIN_FREE


def require_free_space(folder: Path, purpose: str) -> None:
    """Raise StorageFull with the `purpose` if there is not enough free space."""
    if not has_free_space(folder):
        raise StorageFull(f"No disk space left {purpose}: {TOO_LITTLE_FREE}")


@contextmanager
def write_atomically(path: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a new file that gets the name `path` at the end of the block, complete and synced, or not at all.

    Only its owner may read it. Without `replace`, an existing file is kept.
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
    """Create a file and its folder, accessible only to the owner; keep a file that exists or appears meanwhile."""
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
    """Sync a folder: a new file name is on disk only after that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

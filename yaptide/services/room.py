"""Free disk space: without it nothing is accepted or started, and a failed run may not be the simulator's fault."""

import shutil
from pathlib import Path

from yaptide.domain.errors import StorageFull

#: Free bytes required in the data folder, with the staging area and the working folders of tasks.
ROOM = 256 * 2**20

MESSAGE = f"less than {ROOM // 2**20} MiB are free"


def is_left(folder: Path) -> bool:
    """Return whether a folder, or the folder where it will be created, has enough free space."""
    existing = next(candidate for candidate in (folder, *folder.absolute().parents) if candidate.is_dir())
    return shutil.disk_usage(existing).free >= ROOM


def require_room(folder: Path, what: str) -> None:
    """Raise StorageFull if there is not enough free space; `what` tells what it is needed for."""
    if not is_left(folder):
        raise StorageFull(f"No disk space left {what}: {MESSAGE}")

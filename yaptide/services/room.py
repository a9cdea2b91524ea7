"""Room on a disk: without it nothing is accepted or begun, and a run that fails has not failed by itself."""

import shutil
from pathlib import Path

from yaptide.domain.errors import StorageFull

#: Bytes that have to be free in the data folder, where scores of tasks wait to be merged, and where tasks run.
ROOM = 256 * 2**20

TOLD = f"less than {ROOM // 2**20} MiB are free"


def is_left(folder: Path) -> bool:
    """Whether there is room in a folder, or where it will be made."""
    there = next(found for found in (folder, *folder.absolute().parents) if found.is_dir())
    return shutil.disk_usage(there).free >= ROOM


def require_room(folder: Path, what: str) -> None:
    """Raise StorageFull, which says `what` the room is needed for, if there is none."""
    if not is_left(folder):
        raise StorageFull(f"No room is left {what}: {TOLD}")

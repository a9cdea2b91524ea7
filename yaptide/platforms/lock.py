"""Only one process at a time has the simulations of a data folder run; it holds a lock while it lives."""

import fcntl
from pathlib import Path
from typing import IO

from yaptide.domain.errors import Conflict

_NAME = "executor.lock"


def acquire(data: Path, database: str) -> IO[bytes] | None:
    """The lock of a data folder, which is ours until it is closed or we die; None if another process has it.

    Raises Conflict if that process works on another `database`: nobody would run what is submitted to ours.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (data / _NAME).open("a+b")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            theirs = lock.read().decode()
        if theirs not in ("", database):
            raise Conflict(
                f"The data folder {data} is in use for the database {theirs}: set YAPTIDE_DATA_DIR to another one"
            ) from None
        return None
    lock.truncate(0)
    lock.write(database.encode())
    lock.flush()
    return lock


def is_held(data: Path) -> bool:
    """Whether any process has the lock."""
    try:
        with (data / _NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False

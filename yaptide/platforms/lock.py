"""Only one process at a time has the simulations of a data folder run; it holds a lock while it lives."""

import fcntl
from pathlib import Path
from typing import IO

_NAME = "executor.lock"


def acquire(data: Path) -> IO[bytes] | None:
    """The lock of a data folder, which is ours until it is closed or we die; None if another process has it."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (data / _NAME).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
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

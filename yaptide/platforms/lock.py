"""Only one process at a time has the simulations of a data folder run; it holds a lock while it lives."""

import fcntl
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from yaptide.domain.errors import Conflict

_NAME = "executor.lock"


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of a data folder, as long as it is not closed; `name` is the folder's, drawn once."""

    name: str
    _file: IO[bytes]

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire_lock(data: Path, database: str) -> Lock | None:
    """The lock of a data folder, which is ours until it is closed or we die; None if another process has it.

    Raises Conflict if that process works on another `database`: nobody would run what is submitted to ours.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (data / _NAME).open("a+b")
    file.seek(0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            _, _, theirs = file.read().decode().partition("\n")
        if theirs not in ("", database):
            raise Conflict(
                f"The data folder {data} is in use for the database {theirs}: set YAPTIDE_DATA_DIR to another one"
            ) from None
        return None
    name = file.read().decode().partition("\n")[0] or secrets.token_hex(4)
    file.truncate(0)
    file.write(f"{name}\n{database}".encode())
    file.flush()
    return Lock(name, file)


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

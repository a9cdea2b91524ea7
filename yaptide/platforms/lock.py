"""The lock of a data folder: only one process at a time runs the simulations of a data folder."""

import fcntl
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from yaptide.domain.errors import Conflict

_NAME = "executor.lock"


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of a data folder, held until it is closed; `name` is a random name of the folder that never changes."""

    name: str
    _file: IO[bytes]

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire_lock(data: Path, database: str) -> Lock | None:
    """Take the lock of a data folder, until it is closed or this process ends; None if another process holds it.

    Raises Conflict if that process uses another `database`: simulations in this database would never run.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (data / _NAME).open("a+b")
    file.seek(0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            _, _, used = file.read().decode().partition("\n")
        if used not in ("", database):
            raise Conflict(
                f"The data folder {data} is in use for the database {used}: set YAPTIDE_DATA_DIR to another one"
            ) from None
        return None
    name = file.read().decode().partition("\n")[0] or secrets.token_hex(4)
    file.truncate(0)
    file.write(f"{name}\n{database}".encode())
    file.flush()
    return Lock(name, file)


def is_held(data: Path) -> bool:
    """Whether any process holds the lock."""
    try:
        with (data / _NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False

"""Untrusted zip archives: opened and read without trusting what they declare, for all callers."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

import msgspec

from yaptide.domain.errors import InvalidInput, YaptideError

#: Exceptions of zipfile and zlib for a file that only looks like an archive, and of msgspec for its JSON.
_BROKEN: tuple[type[Exception], ...] = (
    *(BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error, KeyError),
    msgspec.MsgspecError,
)
_ENTRY = b"PK\x01\x02"  # APPNOTE.TXT of PKWARE, 4.3.12: signature of an entry in the central directory
#: Maximum entries of an archive of results: one per page, and a few more.
MOST_PAGES = 100_000
#: Bytes of a directory entry with a long name; one with an empty name has 46.
_LONG_ENTRY = 700
#: The records at the end, with the longest comment.
_END = 1 << 17


def open_archive(file: IO[bytes], most: int) -> ZipFile:
    """Open an archive of at most `most` entries; raise InvalidInput for more.

    Use it in `explain_damage`: the file may contain anything.

    zipfile creates an object for every directory entry before they can be counted: an archive of 50 MiB becomes 500 MiB
    of memory. Therefore the entries are counted in the bytes that zipfile reads, before it parses them; which records
    at the end of the file it uses does not matter then.
    """
    opening = _Opening(file, most)
    archive = ZipFile(cast("IO[bytes]", opening))
    opening.is_open = True
    return archive


@contextmanager
def explain_damage(message: str, error: type[YaptideError] = InvalidInput, *others: type[Exception]) -> Iterator[None]:
    """Raise `error` with `message` and the reason for a damaged archive, or for one of `others`.

    OSErrors, such as a full disk, say nothing about the archive and are passed on.
    """
    try:
        yield
    except (*_BROKEN, *others) as broken:
        raise error(f"{message}: {broken}") from broken


def read_entry(archive: ZipFile, name: str, most: int) -> bytes:
    """Return a whole entry; raise InvalidInput if it has more than `most` bytes, KeyError if it is missing."""
    if archive.getinfo(name).file_size > most:
        raise InvalidInput(f"{name} has more than {most} bytes")
    return archive.read(name)  # zipfile returns no more than the declared size


class _Opening:
    """A file for zipfile; until the archive `is_open`, it returns at most a directory of `most` entries."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.is_open = False
        self._file = file
        self._most = most
        self._room = _END + min(most * _LONG_ENTRY, file.seek(0, io.SEEK_END))
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read from the file; raise InvalidInput for too much while the archive is being opened."""
        if self.is_open:
            return self._file.read(size)
        data = self._file.read(self._room + 1 if size < 0 else min(size, self._room + 1))
        self._room -= len(data)
        if self._room < 0 or data.count(_ENTRY) > self._most:
            raise InvalidInput(f"The archive has more than {self._most} entries")
        return data

    def seekable(self) -> bool:
        """Return True, because archives are read from their end."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

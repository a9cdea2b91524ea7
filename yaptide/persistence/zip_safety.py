"""Zip archives of others: opened and read without trusting what they say of themselves, in all places that take one."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

import msgspec

from yaptide.domain.errors import InvalidInput, YaptideError

#: What zipfile and zlib raise for a file that only looks like an archive, and msgspec for JSON in it.
_BROKEN: tuple[type[Exception], ...] = (
    *(BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error, KeyError),
    msgspec.MsgspecError,
)
_ENTRY = b"PK\x01\x02"  # APPNOTE.TXT of PKWARE, 4.3.12: what each entry of the directory begins with
#: Entries of an archive of results: one for each page, and a few more.
MOST_PAGES = 100_000
#: Bytes of an entry of the directory with a long name; those of one with an empty name are 46.
_LONG_ENTRY = 700
#: The records at the end, with the longest comment.
_END = 1 << 17


def open_archive(file: IO[bytes], most: int) -> ZipFile:
    """Open an archive of `most` entries or fewer; raises InvalidInput for more.

    Use it in `explain_damage`: the file may be anything.

    zipfile makes an object for every entry of the directory before anybody can count them: 50 MiB of archive become
    500 MiB of memory. So the entries are counted in the bytes that it reads, before it looks at them. Which records at
    the end of the file it believes does not matter then.
    """
    opening = _Opening(file, most)
    archive = ZipFile(cast("IO[bytes]", opening))
    opening.is_open = True
    return archive


@contextmanager
def explain_damage(message: str, error: type[YaptideError] = InvalidInput, *others: type[Exception]) -> Iterator[None]:
    """Raise `error` with `message` and the reason for anything that is wrong with an archive, or for one of `others`.

    An error of the system, such as a full disk, says nothing of the archive and is passed on.
    """
    try:
        yield
    except (*_BROKEN, *others) as broken:
        raise error(f"{message}: {broken}") from broken


def read_entry(archive: ZipFile, name: str, most: int) -> bytes:
    """An entry as a whole; raises InvalidInput if it has more than `most` bytes, KeyError if it is missing."""
    if archive.getinfo(name).file_size > most:
        raise InvalidInput(f"{name} has more than {most} bytes")
    return archive.read(name)  # zipfile gives no more than the size that was compared


class _Opening:
    """A file as zipfile reads it; until the archive `is_open`, no more than a directory of `most` entries."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.is_open = False
        self._file = file
        self._most = most
        self._room = _END + min(most * _LONG_ENTRY, file.seek(0, io.SEEK_END))
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read as the file does; raises InvalidInput for more than there may be while the archive is opened."""
        if self.is_open:
            return self._file.read(size)
        data = self._file.read(self._room + 1 if size < 0 else min(size, self._room + 1))
        self._room -= len(data)
        if self._room < 0 or data.count(_ENTRY) > self._most:
            raise InvalidInput(f"The archive has more than {self._most} entries")
        return data

    def seekable(self) -> bool:
        """An archive is read from its end."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

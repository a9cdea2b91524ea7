"""Zip archives of others: what is looked at before one is read, and what reading it may raise."""

import struct
import zlib
from typing import IO
from zipfile import BadZipFile

from yaptide.domain.errors import InvalidInput

#: What zipfile and zlib raise for a file that only looks like an archive.
BROKEN = (BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
_END = struct.Struct("<4s4H2LH")  # APPNOTE.TXT of PKWARE, 4.3.16
_MAGIC = b"PK\x05\x06"
_MOST_COMMENT = 1 << 16
#: Bytes of a directory: some hundred thousand entries.
_MOST = 16 << 20


def check_directory(file: IO[bytes]) -> None:
    """Raise InvalidInput for an archive whose directory would take too much memory, or that has none.

    The directory's size in the end record is what zipfile goes by; where it is all ones another record has the true
    one, which only an archive of very many entries would need.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _MOST_COMMENT))
    tail = file.read()
    start = tail.rfind(_MAGIC)
    if start < 0 or len(tail) - start < _END.size:
        raise InvalidInput("This is no zip archive, or it was cut short")
    *_, directory, _, _ = _END.unpack_from(tail, start)
    if directory > _MOST:
        raise InvalidInput("The archive has too many entries")
    file.seek(0)

"""The container of backups and archives: a zip archive with a manifest and a checksum.

    <entries>        JSON is deflated; payloads, which are already compressed, are stored as they are
    manifest.json    the last entry: format, origin and time of the file, size and SHA-256 of every other entry
    <comment>        the comment of the archive, at the very end of the file: "yaptide sha256 " and the SHA-256 in
                     hexadecimal of all bytes of the file before these 64 digits

Standard tools can read everything (zip: APPNOTE.TXT of PKWARE, with ZIP64 where needed), and check it with ``head -c
-64 FILE | sha256sum``. The checksum detects any damage, also where a zip archive has no checksum of its own, and a
truncated file has none. It does not authenticate the file: its contents are still untrusted.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import msgspec
from msgspec import Meta, Struct

from yaptide import __version__
from yaptide.disk import explain_full_disk, write_atomically
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.persistence.zip_safety import explain_damage, open_archive

T = TypeVar("T")

_MANIFEST = "manifest.json"
_DAMAGED = "its contents are damaged"
_CHECKSUM = b"yaptide sha256 "
_DIGITS = 64
_CHUNK = 1 << 20
#: Limit for deflated entries, which can be small in the file and huge in memory.
_MOST_DEFLATED = 1 << 30
_MOST_MANIFEST = 1 << 28
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Entry(Struct):
    """An entry in the manifest: `size` in bytes, `sha256` of its contents in hexadecimal."""

    size: Annotated[int, Meta(ge=0)]
    sha256: Digest


class Manifest(Struct):
    """The last entry; `about` has the data of the specific format."""

    format: str
    version: int
    yaptide: Annotated[str, Meta(max_length=100)]
    time: Annotated[datetime, Meta(tz=True)]
    about: msgspec.Raw
    entries: dict[str, Entry]


class Format(Struct, frozen=True):
    """A format based on the container: name and version in the manifest, title for messages, maximum of entries."""

    name: str
    version: int
    title: str
    most_entries: int = 1_000_000


class Writer:
    """Writes a container; set `about` before the end."""

    def __init__(self, archive: ZipFile, form: Format) -> None:
        self.about: object = None
        self.time = datetime.now(UTC)
        self._archive = archive
        self._form = form
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, data: bytes, *, deflated: bool) -> None:
        """Write an entry; raise Conflict if there are too many for one file."""
        if len(self._entries) >= self._form.most_entries - 1:  # one is the manifest
            raise Conflict(f"Too many entries for {self._form.title}: it may have {self._form.most_entries}")
        if not _NAME.fullmatch(name) or name in self._entries or (deflated and len(data) > _MOST_DEFLATED):
            raise InvalidInput(f"Cannot write an entry {name[:80]!r} of {len(data)} bytes")
        self._write(name, data, deflated)
        self._entries[name] = Entry(len(data), hashlib.sha256(data).hexdigest())

    def finish(self) -> None:
        """Write the manifest, and reserve space for the checksum."""
        about = msgspec.Raw(msgspec.json.encode(self.about))
        manifest = Manifest(self._form.name, self._form.version, __version__, self.time, about, self._entries)
        self._write(_MANIFEST, msgspec.json.encode(manifest), deflated=True)
        self._archive.comment = _CHECKSUM + b"0" * _DIGITS

    def _write(self, name: str, data: bytes, deflated: bool) -> None:
        info = ZipInfo(name, self.time.timetuple()[:6])
        info.compress_type = ZIP_DEFLATED if deflated else ZIP_STORED
        info.external_attr = 0o600 << 16  # otherwise unzip creates files without any permissions
        self._archive.writestr(info, data)


@contextmanager
def write_container(path: Path, form: Format) -> Iterator[Writer]:
    """Write a file of this format: it appears under its name complete and synced, or not at all.

    It replaces an existing file, and only its owner may read it. Raises StorageFull if the disk is full, InvalidInput
    if `path` cannot be a file.
    """
    with _new_file(path) as file:
        with ZipFile(file, "w") as archive:
            writer = Writer(archive, form)
            yield writer
            writer.finish()
        length = file.tell() - _DIGITS
        digest = _digest(file, length)
        file.seek(length)
        file.write(digest.encode())


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that gets the name `path` at the end of the block, and is removed if the block raises."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidInput(f"No such folder: {folder}")
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path} exists and is not a file")
    with explain_full_disk(f"No disk space left for {path}; nothing was written"), write_atomically(path) as file:
        yield file


class Reader:
    """Reads a container with a valid checksum and manifest; every entry is checked when it is read."""

    def __init__(self, archive: ZipFile, length: int, form: Format) -> None:
        self.length = length
        self._archive = archive
        infos = archive.infolist()
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos) or _MANIFEST not in self._infos:
            raise InvalidInput("it has no manifest, or duplicate entries")
        info = self._infos.pop(_MANIFEST)
        self.manifest = parse_json(self._contents(info, info.file_size, _MOST_MANIFEST), Manifest)
        _check_format(self.manifest, form)
        _check_entries(self.manifest.entries, self._infos)
        if sum(info.file_size for info in self._infos.values() if info.compress_type == ZIP_STORED) > length:
            raise InvalidInput("its entries overlap")

    @property
    def total(self) -> int:
        """Size of all uncompressed entries in bytes."""
        return sum(entry.size for entry in self.manifest.entries.values())

    def size(self, name: str) -> int:
        """Return the size of an entry in bytes; raise InvalidInput if it does not exist."""
        return self._entry(name).size

    def read(self, name: str, most: int = _MOST_DEFLATED) -> bytes:
        """Return the contents of an entry, verified with the manifest.

        Raises InvalidInput if the entry does not exist or does not match the manifest, or if it is deflated and has
        more than `most` bytes.
        """
        entry = self._entry(name)
        data = self._contents(self._infos[name], entry.size, most)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise InvalidInput(f"its entry {name} does not match the manifest")
        return data

    def _entry(self, name: str) -> Entry:
        if name not in self.manifest.entries:
            raise InvalidInput(f"its entry {name[:200]!r} is missing")
        return self.manifest.entries[name]

    def _contents(self, info: ZipInfo, size: int, most: int) -> bytes:
        # Stored entries take no more memory than they take space in the file.
        if size > (self.length if info.compress_type == ZIP_STORED else most):
            raise InvalidInput(f"its entry {info.filename} is too large")
        with explain_damage(_DAMAGED), self._archive.open(info) as file:
            data = file.read(size + 1)
        if len(data) != size:
            raise InvalidInput(f"its entry {info.filename} is truncated")
        return data


@contextmanager
def open_container(path: Path, form: Format) -> Iterator[Reader]:
    """Open a file of this format for reading, after verifying its checksum.

    Raises InvalidInput, also in the block where contents are read, if the file is damaged or has another format.
    """
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        _verify_checksum(file, length, path)
        try:
            with explain_damage(_DAMAGED):
                archive = open_archive(file, form.most_entries)
            with archive:
                yield Reader(archive, length, form)
        except InvalidInput as error:
            raise InvalidInput(f"Cannot read {path}: {error}") from error


def parse_json(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """Decode JSON as `kind`; raise InvalidInput if it does not match."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"its contents are invalid: {error}") from error


def _verify_checksum(file: IO[bytes], length: int, path: Path) -> None:
    if file.read(4) != b"PK\x03\x04":
        raise InvalidInput(f"{path} was not written by yaptide")
    file.seek(max(0, length - len(_CHECKSUM) - _DIGITS))
    if file.read(len(_CHECKSUM)) != _CHECKSUM:
        raise InvalidInput(f"{path} is truncated, or was not written by yaptide")
    digest = file.read(_DIGITS)
    if digest != _digest(file, length - _DIGITS).encode():
        raise InvalidInput(f"{path} is damaged: its checksum is wrong")


def _check_format(manifest: Manifest, form: Format) -> None:
    if manifest.format != form.name:
        raise InvalidInput(f"it is not {form.title}: its format is {manifest.format[:80]!r}")
    if manifest.version > form.version:
        raise Conflict(f"The file was written by a newer version of yaptide ({manifest.yaptide}): upgrade yaptide")


def _check_entries(entries: dict[str, Entry], infos: dict[str, ZipInfo]) -> None:
    if entries.keys() != infos.keys():
        raise InvalidInput("its entries do not match the manifest")
    for name, info in infos.items():
        # Safe names, for users who unpack it with another tool.
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name[:80]!r} is not a valid entry name")
        if info.file_size != entries[name].size or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise InvalidInput(f"its entry {name} does not match the manifest")


def _digest(file: IO[bytes], length: int) -> str:
    """Return the SHA-256 in hexadecimal of the first `length` bytes of a file."""
    file.seek(0)
    hashed = hashlib.sha256()
    while length > 0 and (piece := file.read(min(_CHUNK, length))):
        hashed.update(piece)
        length -= len(piece)
    return hashed.hexdigest()

"""The file that backups and archives are: a zip archive with a manifest and a checksum.

    <entries>        JSON is deflated; payloads, which are compressed already, are stored as they are
    manifest.json    the last entry: what the file is, who wrote it and when, size and SHA-256 of every entry before it
    <comment>        the archive's comment, at the very end of the file: "yaptide sha256 " and the SHA-256 in
                     hexadecimal of all the bytes of the file before these 64 digits

Everything can be read with standard tools (zip: APPNOTE.TXT of PKWARE, with ZIP64 where it is needed), and checked with
``head -c -64 FILE | sha256sum``. The checksum finds every damage, also where a zip archive has no checksum of its own,
and a file that was cut short has none. It does not tell who wrote the file: whatever reads one still mistrusts its
contents.
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
#: No deflated entry is larger: what is deflated can be small in the file and endless in memory.
_MOST_DEFLATED = 1 << 30
_MOST_MANIFEST = 1 << 28
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Entry(Struct):
    """What the manifest says of an entry: `size` in bytes, `sha256` of its contents in hexadecimal."""

    size: Annotated[int, Meta(ge=0)]
    sha256: Digest


class Manifest(Struct):
    """The last entry; `about` is what the format itself has to say."""

    format: str
    version: int
    yaptide: Annotated[str, Meta(max_length=100)]
    time: Annotated[datetime, Meta(tz=True)]
    about: msgspec.Raw
    entries: dict[str, Entry]


class Format(Struct, frozen=True):
    """One use of the container: its name and version in the manifest, what to call it, and how many entries it has."""

    name: str
    version: int
    title: str
    most_entries: int = 1_000_000


class Writer:
    """A file that is being written; set `about` before the end."""

    def __init__(self, archive: ZipFile, form: Format) -> None:
        self.about: object = None
        self.time = datetime.now(UTC)
        self._archive = archive
        self._form = form
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, data: bytes, *, deflated: bool) -> None:
        """Add an entry, which is written at once; raises Conflict if there are too many for one file."""
        if len(self._entries) >= self._form.most_entries - 1:  # the manifest is one, too
            raise Conflict(
                f"This is too much for {self._form.title}, which has {self._form.most_entries} entries at most"
            )
        if not _NAME.fullmatch(name) or name in self._entries or (deflated and len(data) > _MOST_DEFLATED):
            raise InvalidInput(f"An entry {name[:80]!r} of {len(data)} bytes cannot be written")
        self._write(name, data, deflated)
        self._entries[name] = Entry(len(data), hashlib.sha256(data).hexdigest())

    def finish(self) -> None:
        """Write the manifest, and make room for the checksum."""
        about = msgspec.Raw(msgspec.json.encode(self.about))
        manifest = Manifest(self._form.name, self._form.version, __version__, self.time, about, self._entries)
        self._write(_MANIFEST, msgspec.json.encode(manifest), deflated=True)
        self._archive.comment = _CHECKSUM + b"0" * _DIGITS

    def _write(self, name: str, data: bytes, deflated: bool) -> None:
        info = ZipInfo(name, self.time.timetuple()[:6])
        info.compress_type = ZIP_DEFLATED if deflated else ZIP_STORED
        info.external_attr = 0o600 << 16  # without it, unzip makes files that nobody may read
        self._archive.writestr(info, data)


@contextmanager
def write_container(path: Path, form: Format) -> Iterator[Writer]:
    """Write a file of this format: it appears under its name when it is whole and on the disk, or not at all.

    It replaces a file of that name, and only its owner may read it. Raises StorageFull if there is no room for it,
    InvalidInput if `path` cannot be the name of a file.
    """
    with _aside(path) as file:
        with ZipFile(file, "w") as archive:
            writer = Writer(archive, form)
            yield writer
            writer.finish()
        length = file.tell() - _DIGITS
        digest = _digest(file, length)
        file.seek(length)
        file.write(digest.encode())


@contextmanager
def _aside(path: Path) -> Iterator[IO[bytes]]:
    """A new file that gets the name `path` at the end of the block, and is removed if the block raises."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}")
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path} is there, and is no file that could be replaced")
    with explain_full_disk(f"There is no room for {path}; nothing was written"), write_atomically(path) as file:
        yield file


class Reader:
    """A file whose checksum and manifest have been checked; every entry is checked when it is read."""

    def __init__(self, archive: ZipFile, length: int, form: Format) -> None:
        self.length = length
        self._archive = archive
        infos = archive.infolist()
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos) or _MANIFEST not in self._infos:
            raise InvalidInput("it has no manifest, or two entries of one name")
        info = self._infos.pop(_MANIFEST)
        self.manifest = parse_json(self._contents(info, info.file_size, _MOST_MANIFEST), Manifest)
        _check_format(self.manifest, form)
        _check_entries(self.manifest.entries, self._infos)
        if sum(info.file_size for info in self._infos.values() if info.compress_type == ZIP_STORED) > length:
            raise InvalidInput("two of its entries are the same bytes")

    @property
    def total(self) -> int:
        """Bytes of all entries when they are inflated."""
        return sum(entry.size for entry in self.manifest.entries.values())

    def size(self, name: str) -> int:
        """Bytes of an entry; raises InvalidInput if there is none of this name."""
        return self._entry(name).size

    def read(self, name: str, most: int = _MOST_DEFLATED) -> bytes:
        """The contents of an entry, just those that the manifest tells of.

        Raises InvalidInput if there is no such entry, if it is another one, or if it is deflated and has more than
        `most` bytes.
        """
        entry = self._entry(name)
        data = self._contents(self._infos[name], entry.size, most)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise InvalidInput(f"its entry {name} is not what the manifest tells of")
        return data

    def _entry(self, name: str) -> Entry:
        if name not in self.manifest.entries:
            raise InvalidInput(f"its entry {name[:200]!r} is missing")
        return self.manifest.entries[name]

    def _contents(self, info: ZipInfo, size: int, most: int) -> bytes:
        # What is stored takes no more memory than it takes room in the file.
        if size > (self.length if info.compress_type == ZIP_STORED else most):
            raise InvalidInput(f"its entry {info.filename} is too large, or packed twice")
        with explain_damage(_DAMAGED), self._archive.open(info) as file:
            data = file.read(size + 1)
        if len(data) != size:
            raise InvalidInput(f"its entry {info.filename} is cut short")
        return data


@contextmanager
def open_container(path: Path, form: Format) -> Iterator[Reader]:
    """Read a file of this format, after its checksum was checked.

    Raises InvalidInput, also in the block where contents are read, for a file that is damaged or of another kind.
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
            raise InvalidInput(f"{path} cannot be used: {error}") from error


def parse_json(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """JSON as a `kind` of value; raises InvalidInput if it is none."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"what it holds is not as expected: {error}") from error


def _verify_checksum(file: IO[bytes], length: int, path: Path) -> None:
    if file.read(4) != b"PK\x03\x04":
        raise InvalidInput(f"{path} is not a file that yaptide wrote")
    file.seek(max(0, length - len(_CHECKSUM) - _DIGITS))
    if file.read(len(_CHECKSUM)) != _CHECKSUM:
        raise InvalidInput(f"{path} was cut short, or is not a file that yaptide wrote")
    digest = file.read(_DIGITS)
    if digest != _digest(file, length - _DIGITS).encode():
        raise InvalidInput(f"{path} is damaged: it is not what was once written")


def _check_format(manifest: Manifest, form: Format) -> None:
    if manifest.format != form.name:
        raise InvalidInput(f"it is not {form.title}, but of the format {manifest.format[:80]!r}")
    if manifest.version > form.version:
        raise Conflict(f"The file was written by a newer version of yaptide ({manifest.yaptide}): upgrade yaptide")


def _check_entries(entries: dict[str, Entry], infos: dict[str, ZipInfo]) -> None:
    if entries.keys() != infos.keys():
        raise InvalidInput("its manifest tells of other entries than there are")
    for name, info in infos.items():
        # Who unpacks it with another tool relies on the names.
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name[:80]!r} is no name for an entry")
        if info.file_size != entries[name].size or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise InvalidInput(f"its entry {name} is not what the manifest tells of")


def _digest(file: IO[bytes], length: int) -> str:
    """SHA-256 in hexadecimal of the first `length` bytes of a file."""
    file.seek(0)
    hashed = hashlib.sha256()
    while length > 0 and (piece := file.read(min(_CHUNK, length))):
        hashed.update(piece)
        length -= len(piece)
    return hashed.hexdigest()

"""Input as people hand it over in a browser: files, a folder, a zip archive, or a project of the web editor.

What comes out is what `POST /jobs/direct` takes. Whatever is left out on the way is said in `Received.remarks`.
"""

import io
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from zipfile import ZipFile, ZipInfo

from yaptide.domain.errors import InvalidInput
from yaptide.persistence.zip_safety import explain_damage, open_archive
from yaptide_client.files import describe_litter, encode_file, is_litter, list_names, parse_project

MOST_FILES = 500
_ZIP = b"PK\x03\x04"
_LONGEST_NAME = 60


class Upload(NamedTuple):
    """A file as it came: its name, perhaps with folders, and its content."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """An input: `files` (name to text) or a `project`; a `title` that suits it, and what was left out, in sentences."""

    title: str = ""
    files: Mapping[str, str] | None = None
    project: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()


def read_uploads(uploads: Sequence[Upload], most: int) -> Received:
    """Return the input in what was uploaded, of `most` bytes at most.

    One archive is unpacked, and one JSON file is a project. Raises InvalidInput for nothing at all, and for an archive
    that cannot be one of input files.
    """
    title = ""
    if len(uploads) == 1 and _is_archive(uploads[0]):
        title = PurePosixPath(_path(uploads[0].name)).stem
        uploads = _unpack(uploads[0], most)
    elif any(map(_is_archive, uploads)):
        raise InvalidInput("Choose either one zip archive or the files themselves, not both")
    kept, remarks = _leave_out(uploads)
    folder, files = _without_folder(kept)
    files, nested = _without_subfolders(files)
    remarks += nested
    title = folder or title
    if not files:
        raise InvalidInput(" ".join(("There are no input files: choose files, a folder or a zip archive.", *remarks)))
    if len(files) == 1 and files[0].name.lower().endswith(".json"):
        return _read_project(files[0], tuple(remarks))
    return Received(title, _encode(files), None, tuple(remarks))


def _is_archive(upload: Upload) -> bool:
    return upload.data.startswith(_ZIP)


def _path(name: str) -> str:
    return name.replace("\\", "/").lstrip("/")


def _unpack(upload: Upload, most: int) -> list[Upload]:
    """Read the files in an archive into memory, where they are never more than `most` bytes."""
    with (
        explain_damage("This zip archive cannot be unpacked", InvalidInput, NotImplementedError),
        open_archive(io.BytesIO(upload.data), MOST_FILES) as archive,
    ):
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        kept = [entry for entry in entries if not _is_litter(entry.filename)]
        if sum(entry.file_size for entry in kept) > most:
            raise InvalidInput(f"The files in the archive have more than {most} bytes in total")
        litter = [Upload(entry.filename, b"") for entry in entries if _is_litter(entry.filename)]
        return [*(_unpack_entry(archive, entry) for entry in kept), *litter]


def _unpack_entry(archive: ZipFile, entry: ZipInfo) -> Upload:
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise InvalidInput(f"{_shown(entry.filename)} in the archive is not a file: links cannot be taken")
    with archive.open(entry) as file:
        return Upload(entry.filename, file.read(entry.file_size))  # zipfile ends there, whatever follows


def _is_litter(name: str) -> bool:
    return any(map(is_litter, _path(name).split("/")))


def _leave_out(uploads: Iterable[Upload]) -> tuple[list[Upload], list[str]]:
    """Leave out hidden files and what editors leave behind."""
    kept: list[Upload] = []
    dropped: list[str] = []
    for name, data in uploads:
        if _is_litter(name):
            dropped.append(name)
        else:
            kept.append(Upload(_path(name), data))
    if len(kept) > MOST_FILES:
        raise InvalidInput(f"More than {MOST_FILES} files were given")
    return kept, [describe_litter(dropped)] if dropped else []


def _without_folder(uploads: list[Upload]) -> tuple[str, list[Upload]]:
    """Take away the folder that all files are in: its name, and the files with their paths below it."""
    folder = ""
    while uploads and all("/" in name for name, _ in uploads):
        first = {name.partition("/")[0] for name, _ in uploads}
        if len(first) > 1:
            break
        folder = first.pop()
        uploads = [Upload(name.partition("/")[2], data) for name, data in uploads]
    return folder, uploads


def _without_subfolders(uploads: list[Upload]) -> tuple[list[Upload], list[str]]:
    """Leave out what is in subfolders: input files are in one folder."""
    nested = [name for name, _ in uploads if "/" in name]
    remarks = [f"Left out, files in subfolders: {list_names(nested)}."] if nested else []
    return [upload for upload in uploads if "/" not in upload.name], remarks


def _encode(uploads: list[Upload]) -> dict[str, str]:
    files: dict[str, str] = {}
    for upload in uploads:
        name, text = encode_file(*upload)
        if name in files:
            raise InvalidInput(f"There are two files {_shown(name)}: choose one of them")
        files[name] = text
    return files


def _read_project(upload: Upload, remarks: tuple[str, ...]) -> Received:
    document = parse_project(upload.data, _shown(upload.name))
    project = document.get("project")
    title = project.get("title") if isinstance(project, Mapping) else None
    return Received(title if isinstance(title, str) else PurePosixPath(upload.name).stem, None, document, remarks)


def _shown(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}...")

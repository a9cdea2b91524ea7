"""Input in the form that the API expects: a folder as name to text (binary files in base64), a project as JSON."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yaptide_client.errors import InvalidInput

_LARGEST = 512 * 2**20


def read_folder(folder: Path | str) -> dict[str, str]:
    """Return the files of `folder` as name to text, without hidden files and subfolders.

    A binary file is returned as base64, and `.base64` is appended to its name. Raises InvalidInput if `folder` does not
    exist, is empty, or holds more than 512 MiB.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"No such input directory: {folder}")
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise InvalidInput(f"No input files in {folder}")
    if sum(path.stat().st_size for path in paths) > _LARGEST:
        raise InvalidInput(f"The files in {folder} are larger than {_LARGEST // 2**20} MiB in total")
    return dict(encode_file(path.name, path.read_bytes()) for path in paths)


def read_project(path: Path | str) -> dict[str, Any]:
    """Return the project of the web editor in a JSON file; raise InvalidInput if there is none."""
    try:
        return parse_project(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise InvalidInput(f"Cannot read {path}: {error.strerror}") from None


def read_input(source: Path | str | Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the name of an input, and its part of a submission.

    `source` is a folder of input files, the JSON file of a project, or name to text. Raises InvalidInput.
    """
    if isinstance(source, Mapping):
        return "Untitled", {"input_type": "files", "input_files": dict(source)}
    if Path(source).is_file():
        return Path(source).stem, {"input_type": "editor", "input_json": read_project(source)}
    return Path(source).resolve().name, {"input_type": "files", "input_files": read_folder(source)}


def parse_project(text: bytes, name: str) -> dict[str, Any]:
    """Return the project in a JSON text; raise InvalidInput, with `name` for the text, if it is not a JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{name} is not a project of the web editor: its JSON must be an object")
    return document


def encode_file(name: str, data: bytes) -> tuple[str, str]:
    """Name and text of an input file as they travel: what is no text is base64, under its name with `.base64` added."""
    if b"\0" not in data:
        try:
            return name, data.decode()
        except UnicodeDecodeError:
            pass
    return f"{name}.base64", base64.b64encode(data).decode()

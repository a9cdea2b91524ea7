"""Input as the API carries it: a folder of files as name to text (binary ones in base64), a project as its document."""

import base64
import json
from pathlib import Path
from typing import Any

from yaptide_client.errors import InvalidInput

_LARGEST = 512 * 2**20


def read_folder(folder: Path | str) -> dict[str, str]:
    """The files of `folder` (hidden ones and subfolders left out) as name to text.

    A file that is no text is given as base64 under its name with `.base64` added. Raises InvalidInput if `folder` is no
    folder, holds nothing, or more than 512 MiB.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder of input files")
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise InvalidInput(f"There are no input files in {folder}")
    if sum(path.stat().st_size for path in paths) > _LARGEST:
        raise InvalidInput(f"The files in {folder} are larger than {_LARGEST // 2**20} MiB in all")
    return dict(encode_file(path.name, path.read_bytes()) for path in paths)


def read_project(path: Path | str) -> dict[str, Any]:
    """The project of the web editor in a JSON file; raises InvalidInput if it holds none."""
    try:
        return parse_project(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise InvalidInput(f"Cannot read {path}: {error.strerror}") from None


def parse_project(text: bytes, name: str) -> dict[str, Any]:
    """The project in a JSON text, called `name` in errors; raises InvalidInput if it holds none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{name} is no project of the web editor: its JSON has to be an object")
    return document


def encode_file(name: str, data: bytes) -> tuple[str, str]:
    """Name and text of an input file as they travel: what is no text is base64, under its name with `.base64` added."""
    if b"\0" not in data:
        try:
            return name, data.decode()
        except UnicodeDecodeError:
            pass
    return f"{name}.base64", base64.b64encode(data).decode()

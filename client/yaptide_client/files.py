"""Input in the form that the API expects: a folder as name to text (binary files in base64), a project as JSON."""

import base64
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yaptide_client.errors import InvalidInput
from yaptide_client.texts import decode_text

_LARGEST = 512 * 2**20
#: What systems and editors leave beside files: metadata of macOS and Windows, backups, files that are being edited.
_LITTER = re.compile(
    r"__MACOSX|Thumbs\.db|desktop\.ini|.*~|#.*#|~\$.*|.*\.(bak|swp|swo|orig|tmp)", re.IGNORECASE | re.DOTALL
)
_MOST_NAMED = 5
_LONGEST_NAME = 60


def _warn(remark: str) -> None:
    warnings.warn(remark, stacklevel=5)


def read_folder(folder: Path | str, say: Callable[[str], object] = _warn) -> dict[str, str]:
    """Return the files of `folder` as name to text, without hidden files, backups of editors and subfolders.

    A binary file is returned as base64, and `.base64` is appended to its name. Names of backups are reported to `say`,
    by default as a warning. Raises InvalidInput if `folder` does not exist, is empty, or holds more than 512 MiB.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"No such input directory: {folder}")
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    backups = [path.name for path in paths if is_litter(path.name)]
    paths = [path for path in paths if not is_litter(path.name)]
    if not paths:
        raise InvalidInput(f"No input files in {folder}")
    if backups:
        say(describe_litter(backups))
    if sum(path.stat().st_size for path in paths) > _LARGEST:
        raise InvalidInput(f"The files in {folder} are larger than {_LARGEST // 2**20} MiB in total")
    return dict(encode_file(path.name, path.read_bytes()) for path in paths)


def read_project(path: Path | str) -> dict[str, Any]:
    """Return the project of the web editor in a JSON file; raise InvalidInput if there is none."""
    try:
        return parse_project(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise InvalidInput(f"Cannot read {path}: {error.strerror}") from None


def read_input(
    source: Path | str | Mapping[str, str], say: Callable[[str], object] = _warn
) -> tuple[str, dict[str, Any]]:
    """Return the name of an input, and its part of a submission.

    `source` is a folder of input files (see `read_folder`), the JSON file of a project, or name to text. Raises
    InvalidInput.
    """
    if isinstance(source, Mapping):
        return "Untitled", {"input_type": "files", "input_files": dict(source)}
    if Path(source).is_file():
        return Path(source).stem, {"input_type": "editor", "input_json": read_project(source)}
    return Path(source).resolve().name, {"input_type": "files", "input_files": read_folder(source, say)}


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
    text = decode_text(name, data)
    return (name, text) if text is not None else (f"{name}.base64", base64.b64encode(data).decode())


def is_litter(name: str) -> bool:
    """Return whether a file is hidden, or was left by a system or an editor."""
    return name.startswith(".") or _LITTER.fullmatch(name) is not None


def describe_litter(names: Sequence[str]) -> str:
    """Return the remark about files that were left out."""
    return f"Left out, hidden files and backups: {list_names(names)}."


def list_names(names: Sequence[str]) -> str:
    """Return the first names, shortened, and how many more there are."""
    shown = ", ".join(name[:_LONGEST_NAME] for name in names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"

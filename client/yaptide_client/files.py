"""A folder of input files as the API carries it: name to text, binary files in base64."""

import base64
from pathlib import Path

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
    return dict(map(_read, paths))


def _read(path: Path) -> tuple[str, str]:
    data = path.read_bytes()
    if b"\0" not in data:
        try:
            return path.name, data.decode()
        except UnicodeDecodeError:
            pass
    return f"{path.name}.base64", base64.b64encode(data).decode()

"""Uploads of simulator output from machines without yaptide, such as cluster nodes.

The files are unpacked beside the task's input, which is prepared again, and read as if the simulator had run here.
"""

import re
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from yaptide.disk import explain_full_disk
from yaptide.domain.errors import InvalidInput, SimulationFailed
from yaptide.domain.states import EntityState
from yaptide.persistence.zip_safety import explain_damage, open_archive
from yaptide.services import tasks
from yaptide.services.backend import Backend
from yaptide.services.tasks import Claim
from yaptide.simulators import get_simulator
from yaptide.simulators.base import logs_of_task, read_logs

_MOST_FILES = 1000
_MOST_FOLDERS = 4
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,127}", re.ASCII)
_CHUNK = 1 << 20


def hand_in(backend: Backend, claimed: Claim, exit_code: int, archive: Path) -> EntityState | None:
    """End a claimed task from the files of its run: COMPLETED, or FAILED with the reason in them.

    Returns None if the lease was lost. Raises InvalidInput for an invalid archive, for results that cannot be merged
    and for a project without input files, StorageFull, Unavailable.
    """
    code = get_simulator(claimed.sim_type)
    files = tasks.input_files(backend, claimed)
    if not files:
        raise InvalidInput("The simulation has no input files: report its results instead (docs/workers.md)")
    with tempfile.TemporaryDirectory(dir=backend.data_dir) as aside:
        folder = Path(aside)
        try:
            with explain_full_disk("No room is left for what a simulator has written"):
                code.prepare(files, claimed.primaries, claimed.seed, folder)
                unpack_archive(archive, folder, backend.limits.output)
                output = code.read(folder, exit_code)
        except SimulationFailed as failed:
            logs = logs_of_task(claimed.task_id, read_logs(code, folder))
            return EntityState.FAILED if tasks.fail_task(backend, claimed, str(failed), logs) else None
        output = replace(output, logs=read_logs(code, folder))
    return EntityState.COMPLETED if tasks.complete_task(backend, claimed, output, is_foreign=True) else None


def unpack_archive(archive: Path, folder: Path, most: int) -> None:
    """Unpack an archive into `folder`: new files of at most `most` bytes in total.

    Files with names that no simulator needs are left out. Raises InvalidInput for any entry that is not a file in this
    folder.
    """
    readable = explain_damage("The files cannot be unpacked")
    with readable, archive.open("rb") as file, open_archive(file, _MOST_FILES) as opened:
        entries = opened.infolist()
        if sum(entry.file_size for entry in entries) > most:
            raise InvalidInput(f"The files have more than {most} bytes")
        for entry in entries:
            target = _target(entry, folder)
            if target is not None:
                _write(opened, entry, target)


def _target(entry: ZipInfo, folder: Path) -> Path | None:
    """Return where to write an entry, None if it is left out; raise InvalidInput if it is not a file in `folder`."""
    parts = entry.filename.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if {"", ".", ".."} & set(parts) or "\\" in entry.orig_filename or kind not in (0, stat.S_IFREG):
        raise InvalidInput(f"{entry.filename[:80]!r} is not an output file of a simulator")
    if len(parts) > _MOST_FOLDERS or not all(map(_PART.fullmatch, parts)):
        return None
    return folder.joinpath(*parts)


def _write(opened: ZipFile, entry: ZipInfo, target: Path) -> None:
    """Write one file of at most its declared size, unless it exists."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):  # zipfile returns no more than the declared size
                file.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InvalidInput(f"{entry.filename[:80]!r} exists already") from None

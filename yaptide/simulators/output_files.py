"""Output files of SHIELD-HIT12A, FLUKA and TOPAS as pages; pymchelper reads them in a process of its own.

A file may come from anywhere: `yaptide.simulators.output_reader` reads it within limits of memory and time that grow
with its size up to fixed ones, so the worst that a file can do is to fail its task.
"""

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from yaptide.domain.errors import SimulationFailed, Unavailable
from yaptide.domain.estimators import Aggregation, Axis, Page
from yaptide.simulators.output_reader import DISK_FULL

#: It is run as a file: importing yaptide would take longer than reading.
_READER = str(Path(__file__).with_name("output_reader.py"))
_MIB = 1 << 20
#: Memory that the reader may use: numpy and pymchelper alone, and bytes for each byte of a file (numbers of FLUKA and
#: TOPAS become Python objects first).
_OWN_MEMORY, _MEMORY_PER_BYTE, _MOST_MEMORY = 512 * _MIB, 40, 4096 * _MIB
#: Seconds of a processor that it may take: to start, and for each MiB; the wall-clock limits are longer.
_OWN_SECONDS, _SECONDS_PER_MIB, _MOST_SECONDS = 60, 2, 1200
_WALL = 4  # times as long, on a busy machine
#: Size of the reader's index, which has all axes, that the server reads.
_MOST_INDEX = 64 * _MIB
#: Readers of a process at the same time, and how long (s) another one waits for its turn.
_TURNS, _LONGEST_WAIT = threading.BoundedSemaphore(2), 1800.0
_FOLDED = 4000


@dataclass(frozen=True, slots=True)
class OutputFile:
    """What one output file contains; `primaries` are those that the code counted, 0 if the file does not say it.

    Without `pages`, the file is sound, but nothing in it can be kept: `left_out` in the metadata says why.
    """

    primaries: int
    pages: tuple[Page, ...]
    metadata: dict[str, str]


def read_output_files(code: str, paths: Sequence[Path], folder: Path) -> list[OutputFile]:
    """Return the contents of output files of the simulator `code`; `folder` is for temporary files.

    Raises SimulationFailed if one of the files is incomplete, or is not what the code writes, OSError for a full disk,
    Unavailable if others are being read for too long.
    """
    size = sum(path.stat().st_size for path in paths)
    seconds = min(_OWN_SECONDS + _SECONDS_PER_MIB * size // _MIB, _MOST_SECONDS)
    memory = min(_OWN_MEMORY + _MEMORY_PER_BYTE * size, _MOST_MEMORY)
    with _turn(), tempfile.TemporaryDirectory(dir=folder, prefix="reading-") as name:
        answer = Path(name)
        limits = (str(memory), str(seconds))
        command = [sys.executable, "-I", _READER, name, *limits, code, *(str(path.absolute()) for path in paths)]
        _run_reader(command, answer, min(_WALL * seconds, _MOST_SECONDS))
        return _read_answer(_read_index(answer / "index.json"), answer / "values.f8")


@contextmanager
def _turn() -> Iterator[None]:
    if not _TURNS.acquire(timeout=_LONGEST_WAIT):
        raise Unavailable("Output of other tasks is being read: try again later")
    try:
        yield
    finally:
        _TURNS.release()


def _run_reader(command: list[str], answer: Path, timeout: float) -> None:
    few_threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each reserves memory
    try:
        with (answer / "stderr").open("wb") as stderr:
            done = subprocess.run(
                command,
                cwd=answer,
                env=few_threads,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                check=False,
                timeout=timeout,
            )
    except subprocess.TimeoutExpired:
        raise SimulationFailed(f"its output cannot be read: reading took more than {timeout:g} s") from None
    if done.returncode == DISK_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(answer))
    if done.returncode:
        raise SimulationFailed(f"its output cannot be read: the reader was stopped (code {done.returncode})")


def _read_index(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > _MOST_INDEX:
            raise SimulationFailed("its output cannot be read: it has too many pages")
        entries = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        raise SimulationFailed("its output cannot be read: the reader has left no index") from None
    if isinstance(entries, dict):
        raise SimulationFailed(f"its output cannot be read: {entries['error']}")
    return list(entries)


def _read_answer(index: list[dict[str, Any]], values: Path) -> list[OutputFile]:
    outputs = []
    with values.open("rb") as file:
        for entry in index:
            pages = tuple(_make_page(page, file) for page in sorted(entry["pages"], key=lambda page: page["number"]))
            metadata = dict(entry["metadata"])
            if entry["left_out"]:
                metadata["left_out"] = "; ".join(entry["left_out"])[:_FOLDED]
            outputs.append(OutputFile(entry["primaries"], pages, metadata))
    return outputs


def _make_page(page: dict[str, Any], file: BinaryIO) -> Page:
    file.seek(page["start"])
    return Page(
        number=page["number"],
        name=page["name"],
        unit=page["unit"],
        axes=tuple(Axis(axis["name"], axis["unit"], np.asarray(axis["values"], np.float64)) for axis in page["axes"]),
        values=np.fromfile(file, np.float64, page["size"]),
        aggregation=Aggregation(page["aggregation"]),
        metadata=page["metadata"],
    )

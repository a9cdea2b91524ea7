"""Output files of SHIELD-HIT12A, FLUKA and TOPAS as pages; pymchelper reads them in a process of its own.

A file may come from anywhere: `yaptide.simulators.output_reader` reads it within limits of memory and time that grow
with its size, so the worst that a file can do is to fail its task.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from yaptide.domain.errors import SimulationFailed
from yaptide.domain.estimators import Aggregation, Axis, Page

#: It is run as a file: importing yaptide would take longer than reading.
_READER = str(Path(__file__).with_name("output_reader.py"))
_MIB = 1 << 20
#: Memory that the reader may use: numpy and pymchelper alone, and bytes for each byte of a file (numbers of FLUKA and
#: TOPAS become Python objects first).
_OWN_MEMORY, _MEMORY_PER_BYTE = 512 * _MIB, 40
#: Seconds that it may take: to start, on a busy machine, and for each MiB.
_OWN_SECONDS, _SECONDS_PER_MIB = 60, 2
#: Size of the reader's index, which has all axes, that the server reads.
_MOST_INDEX, _INDEX_PER_BYTE = 16 * _MIB, 16


@dataclass(frozen=True, slots=True)
class OutputFile:
    """What one output file contains; `primaries` are those that the code counted, 0 if the file does not say it."""

    primaries: int
    pages: tuple[Page, ...]
    metadata: dict[str, str]


def read_output_files(code: str, paths: Sequence[Path], folder: Path) -> list[OutputFile]:
    """Return the contents of output files of the simulator `code`; `folder` is for temporary files.

    Raises SimulationFailed if one of the files is incomplete, or is not what the code writes.
    """
    size = sum(path.stat().st_size for path in paths)
    seconds = _OWN_SECONDS + _SECONDS_PER_MIB * size // _MIB
    with tempfile.TemporaryDirectory(dir=folder, prefix="reading-") as name:
        answer = Path(name)
        limits = (str(_OWN_MEMORY + _MEMORY_PER_BYTE * size), str(seconds))
        command = [sys.executable, "-I", _READER, name, *limits, code, *(str(path.absolute()) for path in paths)]
        index = _run_reader(command, answer, size, 4 * seconds)
        return _read_answer(index, answer / "values.f8")


def _run_reader(command: list[str], answer: Path, size: int, timeout: float) -> list[dict[str, Any]]:
    few_threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each reserves memory
    index = answer / "index.json"
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
    if not index.exists():
        raise SimulationFailed(f"its output cannot be read: the reader was stopped (code {done.returncode})")
    if index.stat().st_size > _MOST_INDEX + _INDEX_PER_BYTE * size:
        raise SimulationFailed("its output cannot be read: it has too many pages")
    entries = json.loads(index.read_bytes())
    if isinstance(entries, dict):
        raise SimulationFailed(f"its output cannot be read: {entries['error']}")
    return list(entries)


def _read_answer(index: list[dict[str, Any]], values: Path) -> list[OutputFile]:
    outputs = []
    with values.open("rb") as file:
        for entry in index:
            pages = tuple(_make_page(page, file) for page in sorted(entry["pages"], key=lambda page: page["number"]))
            metadata = entry["metadata"] | ({"left_out": "; ".join(entry["left_out"])} if entry["left_out"] else {})
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

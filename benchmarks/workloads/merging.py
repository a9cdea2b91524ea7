"""Merging results of tasks, compared with numpy reading the same files once."""

import tempfile
from collections.abc import Iterator
from inspect import signature
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from yaptide.domain.estimators import Axis, Estimator, Page, TaskOutput
from yaptide.persistence import task_outputs

_PROCESSES = get_context("spawn")
_BESIDE = "numpy reads all numbers of the same files once"
#: Older revisions, which bench-compare also measures, have no such parameter.
_TAKES_FILE = "aside" in signature(task_outputs.merge_outputs).parameters


def rows(context: Context) -> Iterator[Row]:
    """Measure it for increasing numbers of tasks, each with one page."""
    side = context.size(100, 27)
    size = side**3
    most = context.size(256, 8)
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        paths = [_task(Path(folder), number, side) for number in range(8)]
        for number in range(8, most):  # each task needs its own file, but eight different contents are enough
            path = Path(folder) / f"{number}.npz"
            path.write_bytes(paths[number % 8].read_bytes())
            paths.append(path)
        memory = []
        for count in (count for count in (4, 16, 64, 256) if count <= most):
            chosen = paths[:count]
            samples = in_turns(
                context.rounds(max(3, 32 // count)),
                lambda: merge_files(chosen),  # noqa: B023
                lambda: read_files(chosen),  # noqa: B023
            )
            yield Row(f"merging {count} tasks, 1 page of {size:,} values", "-", *samples, Goal("factor", 1.5), _BESIDE)
            memory.append(float(_peak(chosen)))
        name = f"memory of merging, {min(most, 256)} tasks beside 4"
        yield Row(name, "-", memory[-1:], memory[:1], Goal("factor", 1.1), "ours, of 4 tasks")


def _task(folder: Path, number: int, side: int) -> Path:
    """Write results of a task: a page in single precision, like MCsquare's results, half of it zero."""
    draw = np.random.default_rng(number)
    values = draw.random(side**3, dtype=np.float32)
    values[: side**3 // 2] = 0
    page = Page(0, "dose", "Gy", (Axis("x", "mm", np.arange(side) + 0.5),) * 3, values)
    path = folder / f"{number}.npz"
    with path.open("wb") as file:
        task_outputs.write_output(file, TaskOutput(1000, (Estimator("dose", "dose", (page,)),)))
    return path


def merge_files(paths: list[Path]) -> None:
    """Merge files as the merge of a simulation does."""
    with tempfile.TemporaryFile() as staging:
        arguments = [staging] if _TAKES_FILE else []
        for _ in task_outputs.merge_outputs(paths, [1000] * len(paths), *arguments):
            pass


def read_files(paths: list[Path]) -> None:
    """Read all values once."""
    for path in paths:
        with np.load(path) as archive:
            archive["0-0.npy" if "0-0.npy" in archive.files else "0-0"].sum()


def _peak(paths: list[Path]) -> int:
    """Return the peak memory of a process that merges the files, in bytes."""
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=_merge_and_report, args=(theirs, paths), daemon=True)
    process = _PROCESSES.Process(target=_merge_and_report, args=(theirs, paths), daemon=True)
    if not ours.poll(600):
        process.kill()
        raise TimeoutError("merging took more than ten minutes")
    peak = int(ours.recv())
    process.join(10)
    return peak


def _merge_and_report(end: Connection, paths: list[Path]) -> None:
    merge_files(paths)
    end.send(machine.peak_memory())  # ru_maxrss would include the parent process

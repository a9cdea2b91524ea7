"""The spool: a folder where tasks leave their scores until they are merged.

    <spool>/<job_id>/<task_id>/estimators.json       names, units, axes, how to merge
                               <e>-<p>.npy           values of page p of estimator e (both counted from 0)
                               <e>-<p>.weights.npy   their weights, where a page has some

A task's folder is written aside and renamed: if it is there, it is whole. It is on the disk before the database says
that the task has ended.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from yaptide.domain.errors import SimulationFailed
from yaptide.domain.estimators import Aggregation, Axis, Estimator, Floats, Page, TaskOutput

_INDEX = "estimators.json"
_FORGOTTEN = 30 * 24 * 3600.0


def leave(spool: Path, job_id: str, task_id: int, output: TaskOutput) -> None:
    """Write the scores of one task, whole or not at all; if they are there already, they are the same and are kept."""
    job = spool / job_id
    target = job / str(task_id)
    if target.exists():
        return
    job.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{task_id}-", dir=job))
    try:
        index = [_write(aside, number, estimator) for number, estimator in enumerate(output.estimators)]
        _write_bytes(aside / _INDEX, json.dumps(index).encode())
        _sync_names(aside)
        aside.rename(target)
        _sync_names(job)
        _sync_names(spool)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if not target.exists():  # otherwise another attempt was quicker
            raise


def estimators(spool: Path, job_id: str, task_id: int) -> tuple[Estimator, ...]:
    """The estimators of one task, their values mapped from the files and read only when they are used.

    Raises SimulationFailed if the outputs are not there.
    """
    folder = spool / job_id / str(task_id)
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        return tuple(_read(folder, number, entry) for number, entry in enumerate(index))
    except (OSError, ValueError) as error:
        raise SimulationFailed(f"the outputs of task {task_id} are lost: {error}") from error


def remove(spool: Path, job_id: str) -> None:
    """Remove everything of a simulation; nothing there is no error."""
    shutil.rmtree(spool / job_id, ignore_errors=True)


def is_forgotten(spool: Path, job_id: str) -> bool:
    """Whether nothing was left for a simulation for so long that nobody will ask for it any more."""
    try:
        return time.time() - (spool / job_id).stat().st_mtime > _FORGOTTEN
    except FileNotFoundError:
        return False


def jobs(spool: Path) -> set[str]:
    """Public names of the simulations that have left something."""
    return {folder.name for folder in spool.iterdir()} if spool.is_dir() else set()


def _write(folder: Path, number: int, estimator: Estimator) -> dict[str, Any]:
    pages = []
    for position, page in enumerate(estimator.pages):
        _write_array(folder / f"{number}-{position}.npy", page.values)
        if page.weights is not None:
            _write_array(folder / f"{number}-{position}.weights.npy", page.weights)
        axes = [{"name": axis.name, "unit": axis.unit, "values": axis.values.tolist()} for axis in page.axes]
        pages.append(
            {
                "number": page.number,
                "name": page.name,
                "unit": page.unit,
                "axes": axes,
                "aggregation": page.aggregation,
                "metadata": dict(page.metadata),
                "weighted": page.weights is not None,
            }
        )
    return {
        "name": estimator.name,
        "file_name": estimator.file_name,
        "metadata": dict(estimator.metadata),
        "pages": pages,
    }


def _read(folder: Path, number: int, entry: dict[str, Any]) -> Estimator:
    pages = []
    for position, page in enumerate(entry["pages"]):
        name = f"{number}-{position}"
        pages.append(
            Page(
                number=page["number"],
                name=page["name"],
                unit=page["unit"],
                axes=tuple(Axis(a["name"], a["unit"], np.array(a["values"], dtype=np.float64)) for a in page["axes"]),
                values=_map(folder / f"{name}.npy"),
                weights=_map(folder / f"{name}.weights.npy") if page["weighted"] else None,
                aggregation=Aggregation(page["aggregation"]),
                metadata=page["metadata"],
            )
        )
    return Estimator(entry["name"], entry["file_name"], tuple(pages), entry["metadata"])


def _map(path: Path) -> Floats:
    values: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    return values


def _write_array(path: Path, values: Floats) -> None:
    with path.open("wb") as file:
        np.save(file, values, allow_pickle=False)
        _sync(file.fileno(), file)


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        _sync(file.fileno(), file)


def _sync_names(folder: Path) -> None:
    """The names in a folder are on the disk only when the folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, file: Any) -> None:
    """The name must not reach the disk before the contents do."""
    file.flush()
    os.fsync(descriptor)

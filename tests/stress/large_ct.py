"""A CT of a patient's size from end to end: submitted, simulated by two tasks, merged and read, on each database.

Prints how long each step takes, and the largest memory of the client, the server and the executor.
"""

import resource
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.machine import peak_memory
from tests.support.postgres import DURABLE, serve
from tests.support.processes import PASSWORD, USER, Server, place
from yaptide.client import Client
from yaptide.persistence import schema
from yaptide.simulators.mcsquare.sample import water_sample

SHAPE = (512, 512, 164)
SPACING = (0.9765625, 0.9765625, 2.0)
PRIMARIES = 20_000
#: Largest memory in bytes of the server and of the executor, for each voxel of the CT: dose, energy and LET are merged.
MOST_OF_SERVER, MOST_OF_EXECUTOR = 20, 130


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_patient(folder: Path) -> Path:
    """Write the input of a beam into an ellipse of noisy tissue; return the folder."""
    folder.mkdir()
    files = water_sample(PRIMARIES, 150.0, seed=1)
    del files["ct.txt"]
    middle = " ".join(str(count * size / 2) for count, size in zip(SHAPE, SPACING, strict=True))
    files["plan.txt"] = files["plan.txt"].replace("60 100 60", middle)
    files["ct.mhd"] = (
        f"NDims = 3\nDimSize = {' '.join(map(str, SHAPE))}\nElementSpacing = {' '.join(map(str, SPACING))}\n"
        "ElementType = MET_SHORT\nElementDataFile = ct.raw\n"
    )
    for name, text in files.items():
        (folder / name).write_text(text)
    draw = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[0]]
    body = ((x - 256) / 200) ** 2 + ((y - 256) / 150) ** 2 < 1
    with (folder / "ct.raw").open("wb") as raw:
        for _ in range(SHAPE[2]):
            hu = np.where(body, draw.normal(20, 30, body.shape), draw.normal(-990, 8, body.shape))
            hu.clip(-1000).astype("<i2").tofile(raw)
    return folder


def use_server(url: str, folder: Path) -> None:
    """Submit, wait and read the results, as a script does; print the steps and the memory of this process."""
    with Client(url) as client:
        client.sign_in(USER, PASSWORD)
        begun = perf_counter()
        job = client.submit(folder, 2)
        submitted = perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state = job.wait()
        ended = perf_counter()
        values = job.results("Dose grid").estimators[0].pages[0].values
        say(
            f"  {state}: submitted in {submitted - begun:.1f} s, ended after {ended - submitted:.1f} s, "
            f"{values.size:,} values read in {perf_counter() - ended:.1f} s\n"
            f"  client: {memory >> 10} MiB to submit, "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB to read"
        )
        if state != "COMPLETED" or values.size != np.prod(SHAPE) or not values.any():
            sys.exit(1)


def run(server: Server, folder: Path) -> bool:
    """Use a server from a process of its own; return whether it was well, within its memory."""
    script = get_context("spawn").Process(target=use_server, args=(server.register().url, folder))
    script.start()
    script.join()
    worker = server.worker()
    voxels = int(np.prod(SHAPE))
    sizes = [peak_memory(pid) for pid in (server.running.pid, worker or server.running.pid)]
    say(f"  server: {sizes[0] >> 20} MiB, executor: {sizes[1] >> 20} MiB at most")
    server.stop()
    return script.exitcode == 0 and sizes[0] < MOST_OF_SERVER * voxels and sizes[1] < MOST_OF_EXECUTOR * voxels


def main() -> int:
    """Run it on both databases; return 1 if anything failed."""
    with tempfile.TemporaryDirectory() as temporary, serve(settings=DURABLE) as postgres:
        folder = write_patient(Path(temporary) / "patient")
        outcomes = []
        for name, variables in (
            ("SQLite", {}),
            ("PostgreSQL", {"FLASK_SQLALCHEMY_DATABASE_URI": postgres.create_database()}),
        ):
            say(f"{name}, {' x '.join(map(str, SHAPE))} voxels")
            with place(Path(temporary) / name, **variables) as there:
                there.data.mkdir()
                schema.upgrade_tables(there.database)
                outcomes.append(run(there.up(), folder))
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

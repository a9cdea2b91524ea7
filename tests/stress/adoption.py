"""`python -m tests.stress.adoption`: adopt, and upgrade, databases with large payloads; memory, time and disk as JSON.

One payload is a quarter of all, so that a program that held it in memory would be seen. Fails if an adoption takes more
than 300 MB of memory, or if any payload has changed.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

from tests.support.legacy import Old
from tests.support.postgres import DURABLE, serve
from yaptide.persistence import schema
from yaptide.persistence.engine import Database

MOST_MEMORY = 300e6
_TABLES = ("Input", "Logfiles", "Estimator", "Page")
_DIGITS = bytes.maketrans(b"abcdef", b"012345")


def page_of(stored: float, seed: int) -> bytes:
    """Return a page of random numbers of about so many bytes as stored."""
    digits = Random(seed).randbytes(1 << 18).hex().encode().translate(_DIGITS)
    block = re.sub(rb"(.{16})", rb"0.\1,", digits)  # repetitions are too far apart to be compressed
    return _packed(
        b'{"dimensions": 1, "data": {"name": "DOSE", "unit": "", "values": [', block, b'0.5]}, "metadata": {}}', stored
    )


def log_of(stored: float) -> bytes:
    """Return log files of about so many bytes as stored."""
    return _packed(b'{"run.log": "', Random(0).randbytes(1 << 18).hex().encode(), b'"}', stored)


def _packed(start: bytes, block: bytes, end: bytes, stored: float) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    pieces, length = [packer.compress(start)], 0
    while length < stored:
        pieces.append(packer.compress(block))
        length += len(pieces[-1])
    return b"".join([*pieces, packer.compress(end), packer.flush()])


def payload_sizes(total: float) -> list[float]:
    """Return the stored sizes of pages: one of a quarter, five that are a quarter together, and many small ones."""
    small = [4e5] * max(round(total / 4 / 4e5), 1)
    return [total / 4, *[total / 20] * 5, *small, *[total / 80] * 16]


def fill_old(url: str, total: float) -> None:
    """Create an old database."""
    old = Old(url)
    with old.filling() as filler:
        user = filler.user("alice", "secret", "pbkdf2:sha256:1")
        number = filler.simulation("large", user)
        filler.task(number)
        filler.input(number)
        filler.add("Logfiles", simulation_id=number, compressed_data=log_of(total / 30))
        estimator = filler.estimator(number, "dose")
        for position, size in enumerate(payload_sizes(total)):
            filler.page(estimator, position, page_of(size, position))


def fill_released(url: str, total: float) -> None:
    """Create a database of the first released revision."""
    database = Database(url)
    schema.upgrade_tables(database, "0001")
    with database.writing() as connection:
        insert(connection, "User", id=1, username="alice", auth_provider="YaptideUser")
        insert(connection, "YaptideUser", id=1)
        values = {"job_id": "large", "user_id": 1, "title": "", "sim_type": "mcsquare", "job_state": "COMPLETED"}
        times = dict.fromkeys(("start_time", "end_time"), sa.func.current_timestamp())
        insert(connection, "Simulation", id=1, **values, **times, platform="DIRECT", input_type="FILES")
        insert(connection, "CelerySimulation", id=1)
        rest = {"content_size": 1, "content_sha256": "0" * 64}
        insert(connection, "Estimator", id=1, simulation_id=1, name="", file_name="", compressed_data=b"x", **rest)
        for position in range(100):
            values = {"estimator_id": 1, "page_number": position, "page_name": "", "page_dimension": 1}
            insert(connection, "Page", **values, **rest, compressed_data=page_of(total / 100, position))
    database.close()


def insert(connection: sa.Connection, table: str, **values: Any) -> None:
    connection.execute(sa.insert(sa.Table(table, sa.MetaData(), autoload_with=connection)).values(**values))


def digests(url: str) -> dict[tuple[str, int], str]:
    """Return the digest of every payload."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    sums = {}
    with engine.connect() as connection:
        for table in _TABLES:
            for number in connection.exec_driver_sql(f'SELECT id FROM "{table}"').scalars().all():
                query = f'SELECT compressed_data FROM "{table}" WHERE id = {number}'
                sums[table, number] = hashlib.sha256(connection.exec_driver_sql(query).scalar_one()).hexdigest()
    return sums


@contextmanager
def peak_of(measure: Callable[[], int]) -> Iterator[list[int]]:
    """Watch a number while a block runs; the list then has its largest value."""
    peak, ended = [measure()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            peak[0] = max(peak[0], measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def run_command(url: str, folder: Path, *words: str) -> dict[str, Any]:
    """Run a command of yaptide; return its largest memory (MB), its time (s), and its messages."""
    environment = {**os.environ, "FLASK_SQLALCHEMY_DATABASE_URI": url, "YAPTIDE_DATA_DIR": str(folder)}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as messages:
        arguments = [sys.executable, "-m", "yaptide", *words]
        process = subprocess.Popen(arguments, env=environment, stdout=messages, stderr=messages)
        with peak_of(lambda: memory_of(process.pid)) as memory:  # resource usage would include that of this process
            process.wait()
        messages.seek(0)
        if process.returncode:
            raise SystemExit(messages.read())
        said = [line for line in messages.read().splitlines() if "disk space" in line]
    return {"memory_mb": round(memory[0] / 1000), "seconds": round(time.monotonic() - began), "said": said}


def memory_of(pid: int) -> int:
    """Return the largest memory so far of a process, in kB; 0 if it has ended."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) if "VmHWM:" in words else 0


def measure_run(url: str, folder: Path, disk: Callable[[], int], fill: Callable[[], None], *words: str) -> Any:
    """Fill a database, run a command on it, and compare all payloads; return the figures."""
    fill()
    before, size = digests(url), disk()
    with peak_of(disk) as peak:
        figures = run_command(url, folder, *words)
    assert digests(url) == before, "a payload has changed"
    return {"database_mb": round(size / 1e6), "additional_disk_mb": round((peak[0] - size) / 1e6), **figures}


def of_file(folder: Path, name: str) -> Callable[[], int]:
    return lambda: sum(path.stat().st_size for path in folder.glob(f"{name}*"))


def on_server(url: str) -> Callable[[], int]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def size() -> int:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())

    return size


def main() -> int:
    """Measure, and print the figures; return 1 if the memory is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1000, help="payloads in all")
    parser.add_argument("--only", choices=["sqlite", "postgresql", "upgrade"])
    options = parser.parse_args()
    total, figures = options.megabytes * 1e6, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "sqlite"):
            url = f"sqlite:///{folder}/old.db"
            figures["adopt, sqlite"] = measure_run(
                url, folder, of_file(folder, "old.db"), lambda: fill_old(url, total), "db", "adopt"
            )
            (folder / "old.db").unlink()
        if options.only in (None, "postgresql"):
            with serve(settings=DURABLE) as server:
                there = server.create_database()
                figures["adopt, postgresql"] = measure_run(
                    there, folder, on_server(there), lambda: fill_old(there, total), "db", "adopt"
                )
        if options.only in (None, "upgrade"):
            file = f"sqlite:///{folder}/new.db"
            figures["upgrade from 0001, sqlite"] = measure_run(
                file, folder, of_file(folder, "new.db"), lambda: fill_released(file, total), "db", "upgrade"
            )
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    adoptions = (run for name, run in figures.items() if name.startswith("adopt"))
    return 1 if any(run["memory_mb"] * 1e6 > MOST_MEMORY for run in adoptions) else 0


if __name__ == "__main__":
    sys.exit(main())

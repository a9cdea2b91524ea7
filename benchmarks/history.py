"""Synthetic history: users with simulations, tasks and inputs, the same for the same seed.

It is written once as one file a table, in the text format of PostgreSQL's COPY, into `benchmarks/cache`, and loaded
from there: by COPY, or by executemany on SQLite.
"""

import hashlib
import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.store import Store
from yaptide.persistence import codec

CACHE = Path(__file__).parent / "cache"
_VERSION = 1
_BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
_NULL = "\\N"
_COLUMNS = {
    "Simulation": (
        *("id", "job_id", "user_id", "start_time", "end_time", "title", "platform", "input_type", "sim_type"),
        *("job_state", "update_key_hash", "stored_bytes"),
    ),
    "CelerySimulation": ("id",),
    "Input": ("simulation_id", "compressed_data", "content_size", "content_sha256"),
    "Task": (
        *("id", "simulation_id", "task_id", "requested_primaries", "simulated_primaries", "task_state"),
        *("start_time", "end_time", "platform", "last_update_time", "seed", "attempts"),
    ),
    "CeleryTask": ("id",),
}
_STATES = ("COMPLETED",) * 17 + ("FAILED", "CANCELED", "CANCELED")


@dataclass(frozen=True)
class History:
    """How many simulations each user has (users are numbered from 1), and how many tasks there are in all."""

    users: tuple[int, ...]
    tasks: int
    seed: int = 1

    @property
    def simulations(self) -> int:
        """How many simulations there are."""
        return sum(self.users)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        told = repr((_VERSION, self.users, self.tasks, self.seed))
        return CACHE / hashlib.sha256(told.encode()).hexdigest()[:12]


def load(store: Store, history: History) -> None:
    """Fill an empty, migrated database that has the users already."""
    if not (history.folder / "done").exists():
        _write(history)
    for table, columns in _COLUMNS.items():
        path = history.folder / table
        if store.is_sqlite:
            _insert(store, table, columns, path)
        else:
            _copy(store, table, columns, path)
    store.settle()


def _copy(store: Store, table: str, columns: Sequence[str], path: Path) -> None:
    names = ", ".join(columns)
    with closing(store.connect()) as connection:
        statement = f'COPY "{table}" ({names}) FROM STDIN'
        with path.open("rb") as file, connection.cursor() as cursor, cursor.copy(statement) as copy:
            while block := file.read(1 << 20):
                copy.write(block)
        if "id" in columns and table in ("Simulation", "Task"):
            connection.execute(
                f"""SELECT setval(pg_get_serial_sequence('"{table}"', 'id'), (SELECT max(id) FROM "{table}"))"""
            )
        connection.commit()


def _insert(store: Store, table: str, columns: Sequence[str], path: Path) -> None:
    marks = ", ".join("?" for _ in columns)
    with closing(store.connect()) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        statement = f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES ({marks})'
        connection.executemany(statement, _rows(path, columns))
        connection.execute("COMMIT")


def _rows(path: Path, columns: Sequence[str]) -> Iterator[list[object]]:
    blob = columns.index("compressed_data") if "compressed_data" in columns else -1
    with path.open() as file:
        for line in file:
            row: list[object] = [None if value == _NULL else value for value in line.rstrip("\n").split("\t")]
            if blob >= 0:
                row[blob] = bytes.fromhex(str(row[blob])[3:])
            yield row


def _write(history: History) -> None:
    history.folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(history.seed)  # noqa: S311 - the same history every time
    with ExitStack() as stack:
        files = {name: stack.enter_context((history.folder / name).open("w")) for name in _COLUMNS}
        payload = codec.encode_payload(
            {"input_type": "FILES", "number_of_all_primaries": 1000, "input_files": {"a": "b" * 400}}
        )
        packed = f"\\\\x{payload.data.hex()}\t{payload.size}\t{payload.sha256}"
        task = simulation = 0
        owners = [user for user, count in enumerate(history.users, start=1) for _ in range(count)]
        draw.shuffle(owners)
        for simulation, user in enumerate(owners, start=1):
            began = _BEGAN + timedelta(minutes=simulation)
            ended = began + timedelta(seconds=draw.randrange(60, 36000))
            start, end = _time(began), _time(ended)
            state = draw.choice(_STATES)
            name = uuid.UUID(int=draw.getrandbits(128), version=4)
            row = (simulation, f"{began:%Y%m%d-%H%M%S}-{name}DIRECT", user, start, end, f"Plan {simulation}", "DIRECT")
            size = len(payload.data)
            print(*row, "FILES", "mcsquare", state, _NULL, size, sep="\t", file=files["Simulation"])
            print(simulation, file=files["CelerySimulation"])
            print(simulation, packed, sep="\t", file=files["Input"])
            last = round(history.tasks * simulation / history.simulations)
            for number in range(last - task):
                task += 1
                counts = (1000, 1000 if state == "COMPLETED" else draw.randrange(1000))
                row = (task, simulation, number, *counts, state, start, end, "DIRECT", end, draw.getrandbits(31), 1)
                print(*row, sep="\t", file=files["Task"])
                print(task, file=files["CeleryTask"])
    (history.folder / "done").touch()


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"

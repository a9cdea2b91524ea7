"""A database to measure on, how the drivers reach it without us, and a server of ours that serves it."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from benchmarks.drivers import connect
from benchmarks.wire import Wire
from tests.support.processes import PASSWORD, Place, Server
from yaptide.client import Client
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import lifecycle

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
#: With it every running simulation of a benchmark reports.
KEY = "k" * 43


@dataclass
class Store:
    """A database of the kind `kind` in a place of its own."""

    kind: str
    place: Place
    users: Sequence[str] = ("bench",)
    _stack: ExitStack = field(default_factory=ExitStack)
    _made: int = 0

    @property
    def url(self) -> str:
        """SQLAlchemy's URL."""
        return self.place.url

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.kind == SQLITE

    def connect(self) -> Any:
        """A connection by the driver alone, set up as durable as ours."""
        return connect(self.url)

    def sql(self, statement: str) -> str:
        """A statement with the driver's marks for values."""
        return statement if self.is_sqlite else statement.replace("?", "%s")

    def prepare(self) -> None:
        """Make the tables and the users, numbered from 1, before anything is loaded."""
        self.place.data.mkdir(parents=True, exist_ok=True)
        database = Database(self.url)
        schema.upgrade_tables(database)
        database.close()
        with Client(self.server.url) as client:
            for name in self.users:
                client.register(name, PASSWORD)

    def settle(self) -> None:
        """After much was loaded: PostgreSQL gets to know how much, as it would by itself after a while."""
        with closing(self.connect()) as connection:
            if self.is_sqlite:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            else:
                connection.autocommit = True
                connection.execute("VACUUM ANALYZE")
                connection.execute("CHECKPOINT")

    @cached_property
    def server(self) -> Server:
        """`yaptide up` without an executor, a process of its own."""
        return self.place.up("--no-executor", YAPTIDE_FOREIGN_WORKERS="mcsquare,shieldhit")

    @cached_property
    def bare(self) -> Server:
        """The same with an application that checks nothing: see `benchmarks.bare`."""
        return self.place.up("--no-executor", wrapper=(sys.executable, "-m", "benchmarks.bare"))

    def token(self, user: str = "") -> str:
        """What proves that a request is `user`'s."""
        with Client(self.server.url) as client:
            client.sign_in(user or self.users[0], PASSWORD)
            cookies = client._http.cookies.items()  # noqa: SLF001 - a raw client sends one of them
            return next(f"{name}={value}" for name, value in cookies if name.startswith("access_token"))

    def wire(self) -> Wire:
        """A kept connection to the server."""
        return Wire(self.server.url)

    def bare_wire(self) -> Wire:
        """A kept connection to the one that checks nothing."""
        return Wire(self.bare.url)

    def simulations(self, count: int, tasks: int, state: str = "RUNNING", owner: str | None = None) -> list[int]:
        """Add running simulations of the first user, which report with KEY; their numbers."""
        hashed = lifecycle.hash_update_key(KEY)
        now = datetime.now(UTC).replace(tzinfo=None if self.is_sqlite else UTC)
        time = str(now) if self.is_sqlite else now
        numbers = []
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            for _ in range(count):
                self._made += 1
                job_id = f"{now:%Y%m%d-%H%M%S}-{self._made:08x}-0000-4000-8000-{id(self) % 16**12:012x}DIRECT"
                values = (job_id, 1, time, "bench", "DIRECT", "FILES", "mcsquare", state, hashed, owner, time)
                cursor.execute(
                    self.sql(
                        'INSERT INTO "Simulation" (job_id, user_id, start_time, title, platform, input_type, sim_type,'
                        " job_state, update_key_hash, owner, heartbeat_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                        " RETURNING id"
                    ),
                    values,
                )
                (number,) = cursor.fetchone()
                numbers.append(number)
                cursor.execute(self.sql('INSERT INTO "CelerySimulation" (id) VALUES (?)'), (number,))
                rows = [(number, task, 10**12, "RUNNING", time, "DIRECT", task) for task in range(tasks)]
                cursor.executemany(
                    self.sql(
                        'INSERT INTO "Task" (simulation_id, task_id, requested_primaries, task_state, start_time,'
                        " platform, seed) VALUES (?, ?, ?, ?, ?, ?, ?)"
                    ),
                    rows,
                )
                cursor.execute(
                    self.sql('INSERT INTO "CeleryTask" (id) SELECT id FROM "Task" WHERE simulation_id = ?'), (number,)
                )
            connection.commit()
        return numbers

    def one(self, statement: str, *values: Any) -> Any:
        """The only value of the only row."""
        with closing(self.connect()) as connection:
            (found,) = connection.execute(self.sql(statement), values).fetchone()
            return found

    def job_id(self, simulation: int) -> str:
        """Public name of a simulation."""
        return str(self.one('SELECT job_id FROM "Simulation" WHERE id = ?', simulation))

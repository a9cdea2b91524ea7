"""A real PostgreSQL server for tests: a separate process in a temporary folder, on a free port."""

import contextlib
import itertools
import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from tests.support.ports import free_port

#: Survives kill(), but not a power failure: nothing waits for the disk.
FAST: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}
#: As in production.
DURABLE: Mapping[str, str] = {}

SUPERUSER = "postgres"
#: Longer than any of the steps below takes on a busy machine.
DEADLINE = 120.0


class PostgresMissing(Exception):
    """PostgreSQL's programs are not installed."""


def find_binaries() -> Path:
    """Return the folder with PostgreSQL's programs, of the newest installed version."""
    # Debian installs them in one folder per version, which is not on the PATH.
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if folders:
        return max(folders, key=lambda folder: float(folder.parent.name))
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise PostgresMissing(
        "These tests need PostgreSQL's server programs: run `scripts/setup postgresql`, "
        "or install them (on Debian: apt-get install postgresql)."
    )


def find_account() -> pwd.struct_passwd | None:
    """Return the account for the server, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


@dataclass
class Postgres:
    """A server and how to connect to it; created by `serve`."""

    folder: Path
    binaries: Path = field(default_factory=find_binaries)
    port: int = field(default_factory=free_port)
    password: str | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: FAST)
    _process: subprocess.Popen[bytes] | None = None
    #: Read end of a pipe whose write end the server and its children hold: it is closed when the last one ends.
    _alive: int = -1
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def data(self) -> Path:
        """Folder of the database cluster."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Log file of the server."""
        return self.folder / "log"

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database for SQLAlchemy."""
        url = URL.create("postgresql+psycopg", SUPERUSER, self.password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Return a plain connection in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            password=self.password,
            dbname=database,
            connect_timeout=30,
            autocommit=True,
        )

    def create_database(self, template: str = "template1", encoding: str = "UTF8") -> str:
        """Create a database as a copy of another one without connections (about 50 ms); return its URL.

        Another encoding needs `template0`, and a locale that allows every encoding.
        """
        name = f"test_{next(self._numbers)}"
        words = "CREATE DATABASE {} TEMPLATE {} ENCODING {}" + ("" if encoding == "UTF8" else " LOCALE 'C'")
        names = sql.Identifier(name), sql.Identifier(template), sql.Literal(encoding)
        with self.connect() as connection:
            connection.execute(sql.SQL(words).format(*names))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, even if there are connections to it."""
        with self.connect() as connection:
            name = sql.Identifier(make_url(url).database or "")
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def initialize(self) -> None:
        """Create the database cluster."""
        command = [
            *(self.binaries / "initdb", "--pgdata", self.data, "--username", SUPERUSER),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--auth=trust"),
        ]
        if self.password is not None:
            secret = self.folder / "password"
            secret.write_text(self.password)
            self._give(secret)
            command += ["--auth=scram-sha-256", "--pwfile", secret]
        self._give(self.folder)
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._as_account(),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout.decode()}")

    def start(self) -> None:
        """Start the server and wait until it responds."""
        if self._process:
            raise RuntimeError("the server is running already")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            **self.settings,
        }
        command = [
            self.binaries / "postgres",
            "-D",
            self.data,
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        if setpriv := shutil.which("setpriv"):
            # If the tests are killed and no fixture can clean up, the kernel stops the server.
            command = [setpriv, "--pdeathsig=QUIT", "--", *command]
        self._alive, held = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[held],
                    # Ctrl-C is for the tests, which may still need the database to clean up.
                    start_new_session=True,
                    **self._as_account(),
                )
        finally:
            os.close(held)
        try:
            self._wait_until_ready()
        except BaseException:
            self._end(signal.SIGQUIT)
            raise

    def stop(self) -> None:
        """Shut the server down cleanly, closing all connections; does nothing if it is not running."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server, like a crash; committed data is recovered at the next start."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it is running, and start it at the same address."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server at once, for good."""
        if self._process is None and (self.data / "postmaster.pid").exists():
            # It was killed. Only a new server finds and removes the shared memory that it left.
            self.start()
        self._end(signal.SIGQUIT)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(with_signal)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process = None
            self._wait_for_children()

    def _wait_for_children(self) -> None:
        """Wait for the last child: children briefly outlive a killed server, and prevent a new one from starting."""
        ended, _, _ = select.select([self._alive], [], [], DEADLINE)
        os.close(self._alive)
        if not ended:
            raise TimeoutError("processes of a killed PostgreSQL do not end")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                if self._process is None or self._process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL ended at once:\n{self.log.read_text()}") from error
                if time.monotonic() > deadline:
                    raise TimeoutError(f"PostgreSQL does not respond:\n{self.log.read_text()}") from error
                time.sleep(0.02)
            else:
                return

    def _give(self, path: Path) -> None:
        if account := find_account():
            os.chown(path, account.pw_uid, account.pw_gid)

    def _as_account(self) -> dict[str, Any]:
        account = find_account()
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


@contextlib.contextmanager
def serve(password: str | None = None, settings: Mapping[str, str] = FAST) -> Iterator[Postgres]:
    """Run a server, and remove everything afterwards.

    `settings` are lines of postgresql.conf. With a password, every connection needs it; otherwise none does.
    """
    with tempfile.TemporaryDirectory(prefix="yaptide-postgres-") as folder:
        server = Postgres(Path(folder), password=password, settings=settings)
        try:
            server.initialize()
            server.start()
            yield server
        finally:
            server.close()

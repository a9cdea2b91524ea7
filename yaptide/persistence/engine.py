"""The database connection: engines for SQLite and PostgreSQL, and transactions.

The rest of the program uses only `Database`, mainly `reading()` and `writing()`.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Engine, Row, Transaction, create_engine, event, exc, make_url
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from yaptide.domain.errors import Conflict, Contended, InvalidInput, NotConfigured, StorageFull, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

#: A row of a result, with a name for each column.
Record = Row[*tuple[Any, ...]]

#: Seconds that a transaction waits for another writer before it fails.
BUSY_TIMEOUT = 30
#: Seconds after which PostgreSQL aborts a transaction whose process is idle: its locks block others.
IDLE_TIMEOUT = 300
#: Seconds within which a healthy database answers a probe; libpq accepts no shorter time.
PROBE_TIMEOUT = 2
_REST = 1.0
_CONTENTION = ("40001", "40P01")  # serialisation failure, deadlock
_LOCKED = "55P03"
_TRIES = 5
_OURS = "SELECT count(*) = 0 OR sum(name = 'StateHistory') > 0 FROM sqlite_master WHERE type = 'table'"
#: Seconds that an upgrade waits for other processes to disconnect.
OTHERS_TIMEOUT = 5.0
#: A rebuilt table takes the old one's name. A user's own view on it must not block that.
_REBUILDING = ("PRAGMA foreign_keys=OFF", "PRAGMA legacy_alter_table=ON")
_APPLICATION = "yaptide"
_OTHERS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = %s AND pid <> pg_backend_pid()"""
#: Option for statements that return payloads: otherwise PostgreSQL sends them as hexadecimal text.
IN_BINARY = {"yaptide_binary": True}
_READ_ONLY = {"postgresql_readonly": True, "yaptide_reading": True}


class Database:
    """One database, shared by all threads of a process.

    `url` is the path of an SQLite file, or a SQLAlchemy URL such as ``sqlite:///file.db``, ``sqlite://`` (in memory) or
    ``postgresql+psycopg://user:password@host/name``. A new file is accessible only to its owner. Raises InvalidInput
    for any other `url`.
    """

    def __init__(self, url: str | Path) -> None:
        parsed = _checked(url)
        self.engine: Engine = create_engine(parsed, hide_parameters=True, **_options(parsed))
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.in_memory = self.is_sqlite and parsed.database in (None, "", ":memory:")
        self._prepare(self.engine)
        self._reader = self.engine.execution_options(**_READ_ONLY)
        self._prober = self._make_prober()
        self._autocommit = self._make_single(parsed)
        self._committed_reader = self._reader if self.in_memory else self._autocommit

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Begin a transaction that commits at the end of the block, and rolls back if the block raises.

        On SQLite it takes the write lock at once (BEGIN IMMEDIATE): a transaction that reads first and writes later
        could otherwise fail or overwrite concurrent changes. Database errors become StorageFull or Unavailable.
        """
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a read-only transaction; it does not wait for writers."""
        with _translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Open a connection for a single statement that is its own transaction: one round trip instead of three.

        It does not wait for the disk. A power failure may lose the last second, so use it only for what is soon
        reported again, such as progress.
        """
        with _translated(), self._autocommit.connect() as connection:
            yield connection

    @contextmanager
    def read_committed(self) -> Iterator[Connection]:
        """Open a connection for reads that need no common snapshot: each statement sees what was committed before it.

        It saves the round trips to the server that begin and end a transaction.
        """
        with _translated(), self._committed_reader.connect() as connection:
            yield connection

    @contextmanager
    def probe(self) -> Iterator[Connection]:
        """Begin a read-only transaction on a new connection, for health checks that cannot wait.

        Connecting and each statement either end within PROBE_TIMEOUT or raise Unavailable, however busy the other
        connections are. (A database in memory has only one connection.)
        """
        with _translated(), self._prober.begin() as connection:
            yield connection

    @contextmanager
    def migrating(self, *, alone: bool = False) -> Iterator[Connection]:
        """Begin a transaction that may rebuild tables.

        SQLite rebuilds a table by dropping the old one, which would delete all rows that refer to it: foreign keys are
        off during the transaction, and checked before the commit. Raises Conflict, with everything rolled back, if a
        row has lost its parent, or if the transaction must be `alone` and other processes of yaptide are connected:
        a server that began with the old tables would go on writing as they were.
        """
        if alone and not self.in_memory:
            self.close()  # idle connections of this process are not others
        with _translated(), self.engine.connect() as connection:
            if self.is_sqlite:
                _run(connection.connection, *_REBUILDING)
            try:
                with _begin_alone(connection) if alone and not self.in_memory else connection.begin():
                    if not self.is_sqlite:  # a migration may compute for long between two statements
                        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                    yield connection
                    if self.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                        raise Conflict("The migration would leave rows without a parent; nothing was changed")
            finally:
                if self.is_sqlite:
                    _run(connection.connection, "PRAGMA legacy_alter_table=OFF", "PRAGMA foreign_keys=ON")
                if alone and self.is_sqlite and not self.in_memory:
                    connection.invalidate()  # closing it ends the exclusive lock

    @property
    def address(self) -> str:
        """The URL of the database without its password."""
        return self.engine.url.render_as_string()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self._autocommit.dispose()

    def _prepare(self, engine: Engine) -> None:
        """Configure every connection of an engine."""
        if self.is_sqlite:
            event.listen(engine, "do_connect", _make_private)
            event.listen(engine, "connect", _open_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            # Before SQLAlchemy's own check, which confuses bytes with text in a database without an encoding.
            event.listen(engine, "connect", _open_postgresql, insert=True)
            event.listen(engine, "before_cursor_execute", _choose_format)
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", _check_idle)

    def _make_single(self, url: URL) -> Engine:
        """Create an engine without transactions: switching a connection's mode costs as much as a statement."""
        if self.in_memory:
            return self.engine.execution_options(isolation_level="AUTOCOMMIT")
        # No transaction begins, so that nothing is to be rolled back when a connection is returned.
        options = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None, "skip_autocommit_rollback": True}
        engine = create_engine(url, hide_parameters=True, **options, **_options(url))
        self._prepare(engine)
        event.listen(engine, "connect", _wait_for_no_disk)
        return engine.execution_options(yaptide_autocommit=True)

    def _make_prober(self) -> Engine:
        if self.in_memory:
            return self._reader
        options = {"timeout" if self.is_sqlite else "connect_timeout": PROBE_TIMEOUT}
        engine = create_engine(self.engine.url, hide_parameters=True, poolclass=NullPool, connect_args=options)
        self._prepare(engine)
        if not self.is_sqlite:
            event.listen(engine, "connect", partial(_set_postgresql, statement_timeout=PROBE_TIMEOUT))
        return engine.execution_options(**_READ_ONLY)


@contextmanager
def _begin_alone(connection: Connection) -> Iterator[None]:
    """Begin a transaction during which no other process of yaptide is connected, or raise Conflict."""
    if connection.dialect.name == "sqlite":
        with _begin_exclusive(connection):
            yield
        return
    with connection.begin():
        # Another upgrade is no obstacle: it waits until this one has ended, and finds its work done.
        connection.exec_driver_sql(f"SET LOCAL application_name = '{_APPLICATION} upgrade'")
        _check_alone(connection)
        yield
        _check_alone(connection)  # a server may have connected meanwhile


def _begin_exclusive(connection: Connection) -> Transaction:
    """Begin a transaction on an SQLite file that no other connection has open, or raise Conflict.

    Every connection in WAL mode holds a shared lock on the file, also between its transactions.
    """
    deadline = time.monotonic() + OTHERS_TIMEOUT
    while True:
        _run(connection.connection, *_REBUILDING, "PRAGMA busy_timeout=100", "PRAGMA locking_mode=EXCLUSIVE")
        try:
            return connection.begin()
        except exc.OperationalError as error:
            if "database is locked" not in str(error.orig):
                raise
            # A connection that waits keeps new readers out, and another upgrade, which waits like this one.
            connection.invalidate()
            if time.monotonic() > deadline:
                raise _others("another program has the file open") from error
        time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - not used as a secret


def _check_alone(connection: Connection) -> None:
    """Check that no other process of yaptide is connected to a PostgreSQL database; wait for those that are ending."""
    deadline = time.monotonic() + OTHERS_TIMEOUT
    while True:
        connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")  # otherwise it shows the connections of before
        others = connection.exec_driver_sql(_OTHERS, (_APPLICATION,)).scalar_one()
        if not others:
            return
        if time.monotonic() > deadline:
            raise _others(f"other connections of yaptide: {others}")
        connection.exec_driver_sql("SELECT pg_sleep(0.1)")


def _others(reason: str) -> Conflict:
    return Conflict(
        f"The database cannot be upgraded while it is in use: {reason}. Nothing was changed. Stop all servers and "
        "other commands of yaptide, upgrade, then start the servers of this version"
    )


def retry_contended(operation: Callable[P, R]) -> Callable[P, R]:
    """Decorate an operation so that it runs again if the database aborted its transaction (Contended).

    Only for operations that change nothing outside the transaction before the commit. The delays grow and are random,
    so that the same operations do not collide again.
    """

    @wraps(operation)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, _TRIES):
            try:
                return operation(*args, **kwargs)
            except Contended:
                time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311 - not used as a secret
        return operation(*args, **kwargs)

    return run


def _checked(url: str | Path) -> URL:
    if isinstance(url, Path):
        return URL.create("sqlite", database=str(url))
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise InvalidInput(
            "Invalid database URL: use e.g. sqlite:////var/lib/yaptide/yaptide.db "
            "or postgresql+psycopg://user:password@host:5432/yaptide"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise InvalidInput(f"Unsupported database {parsed.drivername!r}: use sqlite or postgresql")
    return parsed


def _options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() != "sqlite":
        return {
            "pool_size": 10,
            "max_overflow": 20,
            "connect_args": {"connect_timeout": 10, "application_name": _APPLICATION},
        }
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT, "check_same_thread": False}}
    if url.database in (None, "", ":memory:"):
        # A database in memory exists only in its connection: all threads take turns on it.
        options.update(poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=BUSY_TIMEOUT)
    return options


def _make_private(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> None:
    """Create a missing file with access for its owner only, which SQLite's journal files then inherit."""
    file = arguments[0]
    if file != ":memory:" and not options.get("uri"):
        with suppress(OSError):  # it exists, or cannot be created, which SQLite reports better
            Path(file).touch(mode=0o600, exist_ok=False)


def _open_sqlite(connection: Any, _record: object) -> None:
    # The driver begins transactions too late (before the first write) and too weakly, so `_begin_sqlite` does.
    connection.isolation_level = None
    _run(connection, "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY")
    # The journal mode is stored in the file: do not change a file of another program.
    (is_ours,) = connection.execute(_OURS).fetchone()
    if is_ours:
        _run(connection, "PRAGMA journal_mode=WAL")


def _wait_for_no_disk(connection: Any, _record: object) -> None:
    is_sqlite = type(connection).__module__.startswith("sqlite3")
    _run(connection, "PRAGMA synchronous=NORMAL" if is_sqlite else "SET synchronous_commit TO off")


def _open_postgresql(connection: Any, record: object) -> None:
    """Limit every wait: for a lock, and for an idle transaction that holds one."""
    _check_encoding(connection)
    _run(connection, "SET timezone TO 'UTC'")  # times are stored in UTC: thousands of them need no conversion
    _set_postgresql(connection, record, lock_timeout=BUSY_TIMEOUT, idle_in_transaction_session_timeout=IDLE_TIMEOUT)


def _check_encoding(connection: Any) -> None:
    """Raise NotConfigured for a database that cannot store every text."""
    encoding = connection.info.parameter_status("server_encoding")  # None: a pooler does not report it
    if encoding not in ("UTF8", None):
        connection.close()
        raise NotConfigured(
            f"The encoding of the PostgreSQL database is {encoding}, but must be UTF8. Create one with: createdb "
            "--encoding UTF8 --template template0 NAME, and move the data with pg_dump and pg_restore"
        )


def _set_postgresql(connection: Any, _record: object, **seconds: float) -> None:
    # Not as options of the connection: a pooler such as PgBouncer rejects those.
    _run(connection, "; ".join(f"SET {name} = {round(value * 1000)}" for name, value in seconds.items()))
    connection.commit()


def _choose_format(
    _connection: Connection, cursor: Any, _statement: str, _values: Any, context: Any, _many: bool
) -> None:
    if context is not None and context.execution_options.get("yaptide_binary"):
        cursor.format = 1  # psycopg.pq.Format.BINARY


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT" and not options.get("yaptide_autocommit"):
        connection.exec_driver_sql("BEGIN" if options.get("yaptide_reading") else "BEGIN IMMEDIATE")


def _run(connection: Any, *statements: str) -> None:
    """Run statements on a connection of the driver, outside the transactions of SQLAlchemy."""
    with closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _check_idle(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Check a connection that was idle before it is used again.

    Checking every time would double the round trips of a progress report.
    """
    used = record.info.get("used")
    if used is not None and time.monotonic() - used > _REST:
        try:
            _run(connection, "SELECT 1")
            connection.rollback()
        except Exception as error:
            raise exc.DisconnectionError("the server has closed the connection") from error


@contextmanager
def explain_rejection(error: Callable[[str], Exception]) -> Iterator[None]:
    """Raise `error` of the database's reason if it rejects a row: a name is taken, a referenced row is missing."""
    try:
        yield
    except exc.IntegrityError as rejection:
        raise error(str(rejection.orig).splitlines()[0]) from rejection


@contextmanager
def _translated() -> Iterator[None]:
    """Convert database errors to errors that a user can act on, without the statement and its values."""
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable("The database is too busy; try again") from error
    except exc.DBAPIError as error:
        text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        lowered = text.lower()
        if "disk is full" in lowered or "no space left" in lowered or getattr(error.orig, "sqlstate", "") == "53100":
            raise StorageFull("The database is full; nothing was stored") from error
        if getattr(error.orig, "sqlstate", "") == _LOCKED:
            raise Unavailable(f"Another transaction has held a lock for {BUSY_TIMEOUT} s; try again") from error
        if getattr(error.orig, "sqlstate", "") in _CONTENTION or "database is locked" in lowered:
            raise Contended("The database is too busy; try again") from error
        if isinstance(error, exc.DataError):
            raise InvalidInput(f"The database rejected a value: {text}") from error
        # DatabaseError itself: the file is damaged or not a database.
        unusable = isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError)
        if unusable or type(error) is exc.DatabaseError:
            raise Unavailable(f"The database is not available: {text}") from error
        raise

"""Backups of the whole database: one file that does not depend on the kind of database it is made from.

docs/backup.md documents the format. A backup is of the revision of the schema that the database has, which may be older
than the one this version of yaptide works on: a backup is best made before an upgrade.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import orjson
from msgspec import Meta, Struct
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from yaptide import __version__
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.persistence import container, schema
from yaptide.persistence.container import Digest, Format, Reader, Writer
from yaptide.persistence.engine import Database, Record
from yaptide.persistence.queries import tables
from yaptide.persistence.queries.tables import KINDS, Layout

FORMAT = Format("yaptide-backup", 1, "a backup")

#: Is told what is being done, how many rows of it are done, and how many there are.
Watch = Callable[[str, int, int], None]

_Count = Annotated[int, Meta(ge=0)]
_KINDS = set(KINDS.values())


class TableReport(Struct):
    """A table in a backup.

    `columns` are its columns and their kinds, `key` the primary key, `parts` how many entries of rows there are,
    `last_number` the highest number a row ever had, `sha256` the digest of all rows in the order of the primary key.
    """

    columns: dict[str, str]
    key: list[str]
    rows: _Count = 0
    parts: _Count = 0
    last_number: _Count | None = None
    sha256: Digest = hashlib.sha256().hexdigest()


class _About(Struct):
    revision: Annotated[str, Meta(max_length=32)]
    tables: dict[str, TableReport]


class Report(Struct):
    """What a backup holds: when and by which version of yaptide it was made, and its tables."""

    yaptide: str
    time: datetime
    revision: str
    bytes: int
    tables: dict[str, TableReport]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())


def ignore_progress(_what: str, _done: int, _total: int) -> None:
    """Watch nothing."""


def write_backup(database: Database, path: Path, watch: Watch = ignore_progress) -> Report:
    """Write all that is in the database to a file, as it is at one moment, while others go on using it.

    Raises Conflict if the database is empty or not ours, StorageFull if there is no room for the file; then nothing is
    written, and a file of that name stays what it is.
    """
    with database.reading() as connection, container.write_container(path, FORMAT) as writer:
        tables.take_snapshot(connection)
        about = _About(_revision(connection), {})
        for layout in tables.list_layouts(connection):
            about.tables[layout.name] = _write_table(connection, layout, writer, watch)
        writer.about = about
    return Report(__version__, writer.time, about.revision, path.stat().st_size, about.tables)


def verify_backup(path: Path, watch: Watch = ignore_progress) -> Report:
    """Check a backup without a database: every byte, every row and all counts.

    Raises InvalidInput for a file that is damaged or no backup, Conflict for one of a newer version of yaptide.
    """
    with container.open_container(path, FORMAT) as reader:
        about = container.parse_json(reader.manifest.about, _About)
        for name, table in about.tables.items():
            _check(name, table, (rows for _, rows in _parts(reader, name, table)), watch)
        return _report(reader, about)


def restore_backup(database: Database, path: Path, watch: Watch = ignore_progress) -> Report:
    """Fill an empty database from a backup and bring it up to date, in one transaction.

    The rows are read back and compared with the backup before they are committed. Raises InvalidInput for a file that
    is damaged or no backup, Conflict for one of a newer version of yaptide or a database that is not empty; then
    nothing is changed.
    """
    with container.open_container(path, FORMAT) as reader:
        about = container.parse_json(reader.manifest.about, _About)
        if about.revision not in schema.known_revisions():
            version = reader.manifest.yaptide
            raise Conflict(f"The backup was made by a newer version of yaptide ({version}); upgrade yaptide first")
        with _taken(), database.migrating() as connection:
            _make_tables(connection, about)
            for name, table in about.tables.items():
                _fill(connection, reader, name, table, watch)
            for name, table in about.tables.items():
                _check(name, table, _stored(connection, _layout(name, table)), watch)
            schema.migrate_tables(connection, schema.HEAD)
        return _report(reader, about)


def _report(reader: Reader, about: _About) -> Report:
    manifest = reader.manifest
    return Report(manifest.yaptide, manifest.time, about.revision, reader.length, about.tables)


def _revision(connection: Connection) -> str:
    revision = schema.read_revision(connection)
    if revision is None or revision not in schema.known_revisions():
        raise Conflict("There is nothing to back up: the database is empty, not ours, or of a newer version of yaptide")
    return revision


@contextmanager
def _taken() -> Iterator[None]:
    """What the database does not take is a fault of the backup."""
    try:
        yield
    except IntegrityError as error:
        raise InvalidInput(f"the database does not take its rows: {str(error.orig).splitlines()[0]}") from error


# Rows


class _Row(NamedTuple):
    """A row as it is written: a line of JSON, in which bytes are only counted, and these bytes."""

    line: bytes
    payloads: list[bytes]


def _encode(layout: Layout, record: Record) -> _Row:
    values, payloads = {}, []
    for (name, kind), value in zip(layout.columns.items(), record, strict=True):
        # SQLite keeps anything in any column; PostgreSQL would not take it, and readers would not expect it.
        if value is not None and KINDS.get(type(value)) != kind:
            raise Conflict(f"A row of {layout.name} holds in {name} what is not of the kind {kind}: {value!r:.80}")
        values[name] = value
        if isinstance(value, bytes):
            payloads.append(value)
            values[name] = len(value)
    return _Row(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE), payloads)


def _decode(layout: Layout, line: bytes, payloads: IO[bytes]) -> tuple[dict[str, Any], _Row]:
    """The values of a row by column, and the row as it was written."""
    told = container.parse_json(line, dict[str, Any])
    if told.keys() != layout.columns.keys():
        raise InvalidInput(f"a row of {layout.name} has other columns than the table")
    values = {name: _value(kind, told[name], payloads) for name, kind in layout.columns.items()}
    return values, _Row(line, [value for value in values.values() if isinstance(value, bytes)])


def _value(kind: str, told: Any, payloads: IO[bytes]) -> Any:
    if told is None:
        return None
    value = told
    if kind == KINDS[datetime] and isinstance(told, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(told)
    elif kind == KINDS[bytes] and type(told) is int and told >= 0:
        value = payloads.read(told)
    naive = isinstance(value, datetime) and value.tzinfo is None
    if KINDS.get(type(value)) != kind or naive or (type(value) is int and not -(2**63) <= value < 2**63):
        raise InvalidInput(f"{told!r:.80} is not of the kind {kind}")
    return value


# Tables in the file


def _write_table(connection: Connection, layout: Layout, writer: Writer, watch: Watch) -> TableReport:
    report = TableReport(dict(layout.columns), list(layout.key), last_number=tables.last_number(connection, layout))
    total, digest = tables.count_rows(connection, layout), hashlib.sha256()
    watch(layout.name, 0, total)
    for rows in _stored(connection, layout):
        rows_entry, bytes_entry = _entries(layout.name, report.parts)
        writer.add(rows_entry, b"".join(row.line for row in rows), deflated=True)
        if _has_bytes(layout):
            writer.add(bytes_entry, b"".join(payload for row in rows for payload in row.payloads), deflated=False)
        _digest(digest, rows)
        report.parts += 1
        report.rows += len(rows)
        watch(layout.name, report.rows, total)
    report.sha256 = digest.hexdigest()
    return report


def _stored(connection: Connection, layout: Layout) -> Iterator[list[_Row]]:
    """The rows of a table as they would be written, in parts."""
    for batch in tables.iterate_batches(connection, layout):
        yield [_encode(layout, record) for record in batch]


def _parts(reader: Reader, name: str, table: TableReport) -> Iterator[tuple[list[dict[str, Any]], list[_Row]]]:
    """The rows of a table in the file, in parts: their values by column, and as they were written."""
    layout = _layout(name, table)
    for part in range(table.parts):
        rows_entry, bytes_entry = _entries(name, part)
        payloads = io.BytesIO(reader.read(bytes_entry) if _has_bytes(layout) else b"")
        lines = io.BytesIO(reader.read(rows_entry))
        found = [_decode(layout, line, payloads) for line in lines]
        yield [values for values, _ in found], [row for _, row in found]


def _entries(table: str, part: int) -> tuple[str, str]:
    return f"{table}/{part:06}.jsonl", f"{table}/{part:06}.bin"


def _has_bytes(layout: Layout) -> bool:
    return KINDS[bytes] in layout.columns.values()


def _layout(name: str, table: TableReport) -> Layout:
    if not table.key or not set(table.key) <= table.columns.keys() or not set(table.columns.values()) <= _KINDS:
        raise InvalidInput(f"it does not tell the columns of {name}")
    return Layout(name, table.columns, tuple(table.key))


def _check(name: str, table: TableReport, parts: Iterable[list[_Row]], watch: Watch) -> None:
    """Compare rows with what the manifest tells of them."""
    done, digest = 0, hashlib.sha256()
    for rows in parts:
        _digest(digest, rows)
        done += len(rows)
        watch(f"checking {name}", done, table.rows)
    if (done, digest.hexdigest()) != (table.rows, table.sha256):
        raise InvalidInput(f"the rows of {name} ({done} of {table.rows}) are not those that were written")


def _digest(digest: "hashlib._Hash", rows: Iterable[_Row]) -> None:
    for row in rows:
        digest.update(row.line)
        for payload in row.payloads:
            digest.update(payload)


# Tables in the database


def _make_tables(connection: Connection, about: _About) -> None:
    """Make the tables of the backup's revision in a database that has none, or only empty ones."""
    standing = tables.list_layouts(connection)
    tables.lock_tables(connection, standing)
    revision = schema.read_revision(connection)
    if standing:
        if revision not in schema.known_revisions() or any(
            tables.count_rows(connection, layout) for layout in standing
        ):
            raise Conflict("The database is not empty: a backup is restored into an empty one. Nothing was changed")
        schema.migrate_tables(connection, "base", back=True)
    schema.migrate_tables(connection, about.revision)
    made = {layout.name: layout.columns for layout in tables.list_layouts(connection)}
    if made != {name: table.columns for name, table in about.tables.items()}:
        raise InvalidInput(f"its tables are not those of revision {about.revision}")


def _fill(connection: Connection, reader: Reader, name: str, table: TableReport, watch: Watch) -> None:
    layout, done = _layout(name, table), 0
    watch(name, 0, table.rows)
    for values, _ in _parts(reader, name, table):
        tables.add_rows(connection, layout, values)
        done += len(values)
        watch(name, done, table.rows)
    if table.last_number is not None:
        tables.set_last_number(connection, layout, table.last_number)

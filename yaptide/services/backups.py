"""Backups of the whole database: one file, independent of the kind of database.

docs/backup.md documents the format. A backup has the schema revision of its database, which may be older than the one
this version needs: a backup is best made before an upgrade.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import orjson
from msgspec import Meta, Struct
from sqlalchemy import Connection

from yaptide import __version__
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.persistence import container, schema
from yaptide.persistence.container import Digest, Format, Reader, Writer
from yaptide.persistence.engine import Database, Record, explain_rejection
from yaptide.persistence.queries import backups as queries
from yaptide.persistence.queries.backups import KINDS, Layout

FORMAT = Format("yaptide-backup", 1, "a backup")

#: Progress callback: what is being done, rows done, rows in total.
Watch = Callable[[str, int, int], None]

_Count = Annotated[int, Meta(ge=0)]
_KINDS = set(KINDS.values())


class TableReport(Struct):
    """A table in a backup.

    `columns` are its columns and their kinds, `key` the primary key, `parts` the number of entries with rows,
    `last_number` the highest id that a row ever had, `sha256` the digest of all rows in order of the primary key.
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
    """A summary of a backup: the yaptide version and time of its creation, and its tables."""

    yaptide: str
    time: datetime
    revision: str
    bytes: int
    tables: dict[str, TableReport]

    @property
    def rows(self) -> int:
        """Number of rows of all tables."""
        return sum(table.rows for table in self.tables.values())


def ignore_progress(_what: str, _done: int, _total: int) -> None:
    """Ignore progress."""


def write_backup(database: Database, path: Path, watch: Watch = ignore_progress) -> Report:
    """Write a snapshot of the whole database to a file; the database stays in use.

    Raises Conflict if the database is empty or not a yaptide database, StorageFull if the disk is full; then nothing is
    written, and an existing file is unchanged.
    """
    with database.reading() as connection, container.write_container(path, FORMAT) as writer:
        queries.take_snapshot(connection)
        about = _About(_revision(connection), {})
        for layout in queries.list_layouts(connection):
            about.tables[layout.name] = _write_table(connection, layout, writer, watch)
        writer.about = about
    return Report(__version__, writer.time, about.revision, path.stat().st_size, about.tables)


def verify_backup(path: Path, watch: Watch = ignore_progress) -> Report:
    """Check a backup without a database: every byte, every row and all counts.

    Raises InvalidInput for a file that is damaged or not a backup, Conflict for one of a newer version of yaptide.
    """
    with container.open_container(path, FORMAT) as reader:
        about = container.parse_json(reader.manifest.about, _About)
        for name, table in about.tables.items():
            _check(name, table, (rows for _, rows in _parts(reader, name, table)), watch)
        return _report(reader, about)


def restore_backup(database: Database, path: Path, watch: Watch = ignore_progress) -> Report:
    """Fill an empty database from a backup and upgrade it, in one transaction.

    The rows are read back and compared with the backup before the commit. Raises InvalidInput for a file that is
    damaged or not a backup, Conflict for one of a newer version of yaptide or a database that is not empty; then
    nothing is changed.
    """
    with container.open_container(path, FORMAT) as reader:
        about = container.parse_json(reader.manifest.about, _About)
        if about.revision not in schema.known_revisions():
            version = reader.manifest.yaptide
            raise Conflict(f"The backup was made by a newer version of yaptide ({version}); upgrade yaptide first")
        with explain_rejection(_reject), database.migrating() as connection:
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
        raise Conflict("Nothing to back up: the database is empty, not of yaptide, or of a newer version of yaptide")
    return revision


def _reject(reason: str) -> InvalidInput:
    return InvalidInput(f"the database rejects its rows: {reason}")


# Rows


class _Row(NamedTuple):
    """An encoded row: a line of JSON with the lengths of bytes values, and these values."""

    line: bytes
    payloads: list[bytes]


def _encode(layout: Layout, record: Record) -> _Row:
    values, payloads = {}, []
    for (name, kind), value in zip(layout.columns.items(), record, strict=True):
        # SQLite stores any type in any column; PostgreSQL and readers would reject it.
        if value is not None and KINDS.get(type(value)) != kind:
            raise Conflict(f"A row of {layout.name} has a value in {name} that is not {kind}: {value!r:.80}")
        values[name] = value
        if isinstance(value, bytes):
            payloads.append(value)
            values[name] = len(value)
    return _Row(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE), payloads)


def _decode(layout: Layout, line: bytes, payloads: IO[bytes]) -> tuple[dict[str, Any], _Row]:
    """Return the values of a row by column, and the encoded row."""
    fields = container.parse_json(line, dict[str, Any])
    if fields.keys() != layout.columns.keys():
        raise InvalidInput(f"a row of {layout.name} has other columns than the table")
    values = {name: _value(kind, fields[name], payloads) for name, kind in layout.columns.items()}
    return values, _Row(line, [value for value in values.values() if isinstance(value, bytes)])


def _value(kind: str, encoded: Any, payloads: IO[bytes]) -> Any:
    if encoded is None:
        return None
    value = encoded
    if kind == KINDS[datetime] and isinstance(encoded, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(encoded)
    elif kind == KINDS[bytes] and type(encoded) is int and encoded >= 0:
        value = payloads.read(encoded)
    naive = isinstance(value, datetime) and value.tzinfo is None
    if KINDS.get(type(value)) != kind or naive or (type(value) is int and not -(2**63) <= value < 2**63):
        raise InvalidInput(f"{encoded!r:.80} is not {kind}")
    return value


# Tables in the file


def _write_table(connection: Connection, layout: Layout, writer: Writer, watch: Watch) -> TableReport:
    report = TableReport(dict(layout.columns), list(layout.key), last_number=queries.last_number(connection, layout))
    total, digest = queries.count_rows(connection, layout), hashlib.sha256()
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
    """Yield the rows of a table, encoded, in parts."""
    for batch in queries.iterate_batches(connection, layout):
        yield [_encode(layout, record) for record in batch]


def _parts(reader: Reader, name: str, table: TableReport) -> Iterator[tuple[list[dict[str, Any]], list[_Row]]]:
    """Yield the rows of a table in the file in parts: values by column, and encoded rows."""
    layout = _layout(name, table)
    for part in range(table.parts):
        rows_entry, bytes_entry = _entries(name, part)
        payloads = io.BytesIO(reader.read(bytes_entry) if _has_bytes(layout) else b"")
        lines = io.BytesIO(reader.read(rows_entry))
        decoded = [_decode(layout, line, payloads) for line in lines]
        yield [values for values, _ in decoded], [row for _, row in decoded]


def _entries(table: str, part: int) -> tuple[str, str]:
    return f"{table}/{part:06}.jsonl", f"{table}/{part:06}.bin"


def _has_bytes(layout: Layout) -> bool:
    return KINDS[bytes] in layout.columns.values()


def _layout(name: str, table: TableReport) -> Layout:
    if not table.key or not set(table.key) <= table.columns.keys() or not set(table.columns.values()) <= _KINDS:
        raise InvalidInput(f"its manifest has no valid columns for {name}")
    return Layout(name, table.columns, tuple(table.key))


def _check(name: str, table: TableReport, parts: Iterable[list[_Row]], watch: Watch) -> None:
    """Compare rows with the manifest."""
    done, digest = 0, hashlib.sha256()
    for rows in parts:
        _digest(digest, rows)
        done += len(rows)
        watch(f"checking {name}", done, table.rows)
    if (done, digest.hexdigest()) != (table.rows, table.sha256):
        raise InvalidInput(f"the rows of {name} ({done} of {table.rows}) do not match the manifest")


def _digest(digest: "hashlib._Hash", rows: Iterable[_Row]) -> None:
    for row in rows:
        digest.update(row.line)
        for payload in row.payloads:
            digest.update(payload)


# Tables in the database


def _make_tables(connection: Connection, about: _About) -> None:
    """Create the tables of the backup's revision in a database that has none, or only empty ones."""
    existing = queries.list_layouts(connection)
    queries.lock_tables(connection, existing)
    revision = schema.read_revision(connection)
    if existing:
        if revision not in schema.known_revisions() or any(
            queries.count_rows(connection, layout) for layout in existing
        ):
            raise Conflict("The database is not empty: restore into an empty one. Nothing was changed")
        schema.migrate_tables(connection, "base", back=True)
    schema.migrate_tables(connection, about.revision)
    created = {layout.name: layout.columns for layout in queries.list_layouts(connection)}
    if created != {name: table.columns for name, table in about.tables.items()}:
        raise InvalidInput(f"its tables are not those of revision {about.revision}")


def _fill(connection: Connection, reader: Reader, name: str, table: TableReport, watch: Watch) -> None:
    layout, done = _layout(name, table), 0
    watch(name, 0, table.rows)
    for values, _ in _parts(reader, name, table):
        queries.add_rows(connection, layout, values)
        done += len(values)
        watch(name, done, table.rows)
    if table.last_number is not None:
        queries.set_last_number(connection, layout, table.last_number)

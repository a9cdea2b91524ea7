"""Queries that read and fill whole tables, for a backup.

No table or column is named here. They are read from the database itself, so that a backup contains all of them, on
every revision of the schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    LargeBinary,
    String,
    TableClause,
    column,
    func,
    insert,
    inspect,
    literal,
    select,
    table,
    text,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from yaptide.domain.errors import Conflict
from yaptide.persistence.engine import Record
from yaptide.persistence.models.base import UtcDateTime

#: Kinds of columns by the Python type of their values.
KINDS: Mapping[type, str] = {int: "integer", str: "text", datetime: "time", bytes: "bytes", bool: "boolean"}
_TYPES: Mapping[str, type[TypeEngine[Any]]] = {
    "integer": BigInteger,
    "text": String,
    "time": UtcDateTime,
    "bytes": LargeBinary,
    "boolean": Boolean,
}
_VERSION_TABLE = "alembic_version"
_MOST_ROWS = 2000
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Layout:
    """A table: its name, its columns with their kinds (see `KINDS`), and its primary key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]

    @cached_property
    def clause(self) -> TableClause:
        """The table for use in statements."""
        return table(self.name, *(column(name, _TYPES[kind]()) for name, kind in self.columns.items()))

    @property
    def large(self) -> list[ColumnElement[Any]]:
        """The columns whose values can be large."""
        return [self.clause.c[name] for name, kind in self.columns.items() if kind in ("bytes", "text")]


def take_snapshot(connection: Connection) -> None:
    """Make all further statements of a transaction that has just begun see the database as it is now.

    SQLite's read transactions do so anyway: in WAL mode a reader sees what was committed when it began, and does not
    block writers. SQLite's backup API would copy pages, which only SQLite can read, and start over whenever another
    process writes.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def list_layouts(connection: Connection) -> list[Layout]:
    """Return all tables except Alembic's, each after the tables that it refers to."""
    inspector = inspect(connection)
    layouts = []
    for name, _ in inspector.get_sorted_table_and_fkc_names():
        if name is not None and name != _VERSION_TABLE:
            columns = {str(c["name"]): _kind(name, c["name"], c["type"]) for c in inspector.get_columns(name)}
            # Bytes last in any case: the same rows then have the same digest in every database.
            columns = dict(sorted(columns.items(), key=lambda item: item[1] == KINDS[bytes]))
            layouts.append(Layout(name, columns, tuple(inspector.get_pk_constraint(name)["constrained_columns"])))
    return layouts


def _kind(table_name: str, column_name: str, column_type: TypeEngine[Any]) -> str:
    kind = KINDS.get(column_type.python_type)
    if kind is None:
        raise Conflict(f"Cannot back up the column {column_name} of {table_name}: its type is {column_type!r}")
    return kind


def count_rows(connection: Connection, layout: Layout) -> int:
    """Count the rows of a table."""
    return connection.execute(select(func.count()).select_from(layout.clause)).scalar_one()


def iterate_batches(connection: Connection, layout: Layout) -> Iterator[Sequence[Record]]:
    """Yield all rows in order of the primary key, in batches that take little memory (one row may be larger)."""
    key = [_ordered(connection, layout.clause.c[name]) for name in layout.key]
    size: ColumnElement[int] = sum((func.coalesce(func.length(large), 0) for large in layout.large), literal(0))
    sizes = select(*(layout.clause.c[name] for name in layout.key), size).order_by(*key).limit(_MOST_ROWS)
    rows = select(layout.clause).order_by(*key)
    condition: ColumnElement[bool] | None = None
    while row_sizes := connection.execute(sizes if condition is None else sizes.where(condition)).all():
        last = tuple_(*map(literal, _end_of_batch(row_sizes)))
        batch = rows.where(tuple_(*key) <= last)
        yield connection.execute(batch if condition is None else batch.where(condition)).all()
        condition = tuple_(*key) > last


def _end_of_batch(row_sizes: Sequence[Record]) -> Sequence[Any]:
    """Return the key of the last row of the batch."""
    total, end = 0, row_sizes[0]
    for row in row_sizes:
        total += row[-1]
        if total > _MOST_BYTES:
            break
        end = row
    return end[:-1]


def _ordered(connection: Connection, key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a key column in an order that is the same in all databases."""
    if isinstance(key.type, String) and connection.dialect.name == "postgresql":
        return key.collate("C")
    return key


def add_rows(connection: Connection, layout: Layout, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, each with all columns."""
    if rows:
        connection.execute(insert(layout.clause), rows)


def last_number(connection: Connection, layout: Layout) -> int | None:
    """Return the highest id that the database has generated for a table; None if it does not generate them.

    On SQLite this is the highest id in the table, unless ids of deleted rows are never used again (AUTOINCREMENT).
    """
    (name, *more) = layout.key
    if more or layout.columns[name] != "integer":
        return None
    if connection.dialect.name == "postgresql":
        sequence = _sequence(connection, layout)
        if sequence is None:
            return None
        last, is_called = connection.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()  # noqa: S608
        return int(last) if is_called else 0
    if _is_counted(connection, layout):
        query = text("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = :name")
        return int(connection.execute(query, {"name": layout.name}).scalar_one())
    return int(connection.execute(select(func.coalesce(func.max(layout.clause.c[name]), 0))).scalar_one())


def set_last_number(connection: Connection, layout: Layout, last: int) -> None:
    """Make the database generate ids from `last` + 1."""
    values = {"name": layout.name, "last": last}
    if connection.dialect.name == "postgresql":
        sequence = _sequence(connection, layout)
        if sequence is not None and last > 0:
            query = text("SELECT setval(CAST(:sequence AS regclass), :last)")
            connection.execute(query, {"sequence": sequence, "last": last})
    elif _is_counted(connection, layout):
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), values)


def _sequence(connection: Connection, layout: Layout) -> str | None:
    """Return the quoted name of the PostgreSQL sequence of a table, or None."""
    quoted = connection.dialect.identifier_preparer.quote(layout.name)
    query = text("SELECT pg_get_serial_sequence(:table, :key)")
    return connection.execute(query, {"table": quoted, "key": layout.key[0]}).scalar()


def _is_counted(connection: Connection, layout: Layout) -> bool:
    """Return whether SQLite remembers the highest id that a row of the table ever had."""
    query = text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name AND sql LIKE '%AUTOINCREMENT%'")
    return connection.execute(query, {"name": layout.name}).first() is not None


def lock_tables(connection: Connection, layouts: Sequence[Layout]) -> None:
    """Lock tables against all other access until the transaction ends; an SQLite writer is alone anyway."""
    if layouts and connection.dialect.name == "postgresql":
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(quote(layout.name) for layout in layouts)
        connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))

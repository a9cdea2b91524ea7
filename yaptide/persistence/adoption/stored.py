"""Payloads in the old tables: read in pieces, and copied into the new tables without holding them in memory."""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Table, case, func, insert, literal, select

from yaptide.persistence.adoption.values import to_bytes
from yaptide.persistence.engine import IN_BINARY

#: Bytes read at once: a multiple of 3, so that pieces in base64 can be joined. Smaller payloads are read as a whole.
_PIECE = 3 << 18


@dataclass(frozen=True, slots=True)
class Stored:
    """The payload of a row of an old table: in memory as `data`, or `length` bytes that stay in the database."""

    connection: Connection
    table: Table
    number: int
    length: int
    data: bytes | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the payload in pieces."""
        if self.data is not None:
            yield self.data
        elif self.connection.dialect.name == "sqlite":
            with _open_blob(self.connection, self.table, self.number, readonly=True) as blob:
                while piece := blob.read(_PIECE):
                    yield piece
        else:
            for start in range(1, self.length + 1, _PIECE):
                yield self._part(func.substr(self.table.c.compressed_data, start, _PIECE))

    def _part(self, part: Any) -> bytes:
        query = select(part).where(self.table.c.id == self.number)
        return to_bytes(self.connection.execute(query, execution_options=IN_BINARY).scalar())

    def digest(self) -> str:
        """Return the SHA-256 of the stored bytes, hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def copy_to(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert a row with this payload, byte for byte, and the other columns `row` into a new table."""
        if self.data is not None:
            self.connection.execute(insert(table), [{**row, "compressed_data": self.data}])
        elif self.connection.dialect.name == "sqlite":
            self.connection.execute(insert(table).values(**row, compressed_data=func.zeroblob(self.length)))
            with _open_blob(self.connection, table, row["id"]) as blob:
                for chunk in self.chunks():
                    blob.write(chunk)
        else:
            columns = {name: literal(value, table.c[name].type) for name, value in row.items()}
            copied = select(*columns.values(), self.table.c.compressed_data).where(self.table.c.id == self.number)
            self.connection.execute(insert(table).from_select([*columns, "compressed_data"], copied))


def open_stored(connection: Connection, table: Table, number: int) -> Stored:
    """Return the payload of a row of an old table; an empty one for null."""
    data = table.c.compressed_data
    length: ColumnElement[Any] = func.length(data)
    if connection.dialect.name == "sqlite":  # any type may be in there; only of bytes is the length known unread
        length = case((func.typeof(data) == "blob", length), else_=None)
    known = connection.execute(select(length).where(table.c.id == number)).scalar() or 0
    if known > _PIECE:
        return Stored(connection, table, number, known, None)
    query = select(data).where(table.c.id == number)
    whole = to_bytes(connection.execute(query, execution_options=IN_BINARY).scalar())
    return Stored(connection, table, number, len(whole), whole)


def _open_blob(connection: Connection, table: Table, number: int, *, readonly: bool = False) -> sqlite3.Blob:
    driver = cast("sqlite3.Connection", connection.connection.driver_connection)
    return driver.blobopen(table.name, "compressed_data", number, readonly=readonly)

"""Payloads too large for memory: written and read in parts, for each database in its own way."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Connection, Table, func, insert, literal_column, select, text

from yaptide.persistence.engine import IN_BINARY
from yaptide.persistence.models.tables import PAGE
from yaptide.persistence.payload import LargePayload
from yaptide.persistence.queries import json_rows

# Temporary tables are not logged: the payload is written twice, but not three times.
_PIECES = text("CREATE TEMPORARY TABLE payload_pieces (n integer PRIMARY KEY, data bytea) ON COMMIT DROP")
_ADD_PIECE = text("INSERT INTO payload_pieces (n, data) VALUES (:n, :data)")
_JOINED: Any = literal_column("(SELECT string_agg(data, ''::bytea ORDER BY n) FROM payload_pieces)")


def add_blob(connection: Connection, values: Mapping[str, Any], payload: LargePayload, table: Table = PAGE) -> None:
    """Insert a row with a large payload in the current transaction."""
    row = {**values, "content_size": payload.size, "content_sha256": payload.sha256}
    if connection.dialect.name == "sqlite":
        empty = func.zeroblob(payload.length)
        added = insert(table).values(**row, compressed_data=empty).returning(table.c.id)
        number = connection.execute(added).scalar_one()
        with _driver(connection).blobopen(table.name, "compressed_data", number) as blob:
            for piece in payload.chunks():
                blob.write(piece)
    else:
        connection.execute(_PIECES)
        for number, piece in enumerate(payload.chunks()):
            connection.execute(_ADD_PIECE, {"n": number, "data": piece})
        connection.execute(insert(table).values(**row, compressed_data=_JOINED))
        connection.execute(text("DROP TABLE payload_pieces"))


def read_chunk(connection: Connection, page_id: int, start: int, length: int) -> bytes:
    """Return up to `length` bytes from `start` of the payload of a page; empty if the page is gone."""
    if connection.dialect.name == "sqlite":
        try:
            with _driver(connection).blobopen(PAGE.name, "compressed_data", page_id, readonly=True) as blob:
                blob.seek(start)
                return blob.read(length)
        except (sqlite3.Error, ValueError):
            return b""
    data = func.substr(PAGE.c.compressed_data, start + 1, length)
    query = select(data).where(PAGE.c.id == page_id).execution_options(**IN_BINARY)
    return cast("bytes", connection.execute(query).scalar()) or b""


def read_heads(connection: Connection, page_ids: Sequence[int], length: int) -> list[bytes]:
    """Return the first bytes of the payloads of pages, in any order."""
    if connection.dialect.name == "sqlite":  # its substr() would read each payload as a whole
        return [read_chunk(connection, page_id, 0, length) for page_id in page_ids]
    among = json_rows.is_among(PAGE.c.id, connection.dialect.name)
    query = select(func.substr(PAGE.c.compressed_data, 1, length)).where(among).execution_options(**IN_BINARY)
    return list(connection.execute(query, {"values": page_ids}).scalars())


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)

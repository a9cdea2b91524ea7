"""Connections by the database drivers alone."""

import sqlite3
from typing import Any

import psycopg
from sqlalchemy.engine import make_url


def connect(url: str, *, waits: bool = True) -> Any:
    """Return a connection by the driver alone, as durable as yaptide's, in transactions that begin immediately.

    With `waits=False` it does not wait for the disk, and each statement is a transaction.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        level = "IMMEDIATE" if waits else None
        connection = sqlite3.connect(str(parsed.database), timeout=60, isolation_level=level)
        durable = "FULL" if waits else "NORMAL"
        for pragma in (f"synchronous={durable}", "foreign_keys=ON", "journal_mode=WAL", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        return connection
    server = psycopg.connect(
        host=parsed.host, port=parsed.port, user=parsed.username, dbname=parsed.database, connect_timeout=30
    )
    if not waits:
        server.autocommit = True
        server.execute("SET synchronous_commit TO off")
    return server

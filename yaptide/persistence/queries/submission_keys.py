"""Queries about the idempotency keys of submissions."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from yaptide.persistence.engine import Record
from yaptide.persistence.models.tables import SUBMISSION_KEY
from yaptide.persistence.queries import json_rows

_BY_KEY = select(
    *(SUBMISSION_KEY.c[name] for name in ("content_sha256", "simulation_id", "job_id", "sim_type", "left_out"))
).where(SUBMISSION_KEY.c.user_id == bindparam("user"), SUBMISSION_KEY.c.key == bindparam("key"))


def find_key(connection: Connection, user_id: int, key: str) -> Record | None:
    """Return what a user has submitted with a key: content_sha256, simulation_id, job_id, sim_type, left_out."""
    return connection.execute(_BY_KEY, {"user": user_id, "key": key}).first()


def add_key(connection: Connection, values: dict[str, Any]) -> None:
    """Insert a key; the database raises IntegrityError if the user has used it."""
    connection.execute(insert(SUBMISSION_KEY), values)


def list_old(connection: Connection, before: datetime, most: int) -> list[int]:
    """Return the ids of at most `most` keys from before this time, oldest first."""
    query = (
        select(SUBMISSION_KEY.c.id).where(SUBMISSION_KEY.c.time < before).order_by(SUBMISSION_KEY.c.time).limit(most)
    )
    return list(connection.scalars(query))


def remove_keys(connection: Connection, ids: list[int]) -> None:
    """Delete keys."""
    among = json_rows.is_among(SUBMISSION_KEY.c.id, connection.dialect.name)
    connection.execute(delete(SUBMISSION_KEY).where(among), {"values": ids})

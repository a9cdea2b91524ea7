"""Queries about the idempotency keys of submissions."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from yaptide.persistence.engine import Record
from yaptide.persistence.models import SubmissionKeyModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.queries import json_rows

_KEY = table_of(SubmissionKeyModel)
_BY_KEY = select(
    *(_KEY.c[name] for name in ("content_sha256", "simulation_id", "job_id", "sim_type", "left_out"))
).where(_KEY.c.user_id == bindparam("user"), _KEY.c.key == bindparam("key"))


def find_key(connection: Connection, user_id: int, key: str) -> Record | None:
    """Return what a user has submitted with a key: content_sha256, simulation_id, job_id, sim_type, left_out."""
    return connection.execute(_BY_KEY, {"user": user_id, "key": key}).first()


def add_key(connection: Connection, values: dict[str, Any]) -> None:
    """Insert a key; the database raises IntegrityError if the user has used it."""
    connection.execute(insert(_KEY), values)


def list_old(connection: Connection, before: datetime, most: int) -> list[int]:
    """Return the ids of at most `most` keys from before this time, oldest first."""
    query = select(_KEY.c.id).where(_KEY.c.time < before).order_by(_KEY.c.time).limit(most)
    return list(connection.scalars(query))


def remove_keys(connection: Connection, ids: list[int]) -> None:
    """Delete keys."""
    among = json_rows.is_among(_KEY.c.id, connection.dialect.name)
    connection.execute(delete(_KEY).where(among), {"values": ids})

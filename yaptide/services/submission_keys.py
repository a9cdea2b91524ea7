"""Idempotency keys: a submission that is repeated because its response was lost does not run twice.

As in draft-ietf-httpapi-idempotency-key-header: the sender chooses a key for each submission. The server stores it with
the simulation, in one transaction, and answers a repetition with the same simulation.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput, KeyReused
from yaptide.persistence.engine import Record, retry_contended
from yaptide.persistence.queries import submission_keys
from yaptide.services.backend import Backend, utc_now

#: How long a key is kept. Repetitions come within minutes; scripts that were stopped may repeat the next day.
KEPT = timedelta(days=2)
_AT_ONCE = 1000
_VALID = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class SubmissionKey:
    """A key, and the SHA-256 (hexadecimal) of what is submitted with it."""

    key: str
    content_sha256: str


def make_key(key: str, content: Mapping[str, Any]) -> SubmissionKey:
    """Return the key of a submission with this content; raise InvalidInput for an invalid key."""
    if not _VALID.fullmatch(key):
        raise InvalidInput("Invalid Idempotency-Key: use 1 to 255 visible ASCII characters, without spaces")
    try:
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidInput(f"Cannot encode this as JSON: {error}") from error
    return SubmissionKey(key, hashlib.sha256(text).hexdigest())


def find_submission(connection: Connection, user_id: int, key: SubmissionKey) -> Record | None:
    """Return what a user has submitted with this key (`queries.submission_keys.find_key`), or None.

    Raises KeyReused if it was something else.
    """
    row = submission_keys.find_key(connection, user_id, key.key)
    if row is not None and row.content_sha256 != key.content_sha256:
        raise KeyReused("Another simulation was submitted with this Idempotency-Key: use a new key for each submission")
    return row


@retry_contended
def forget_keys(backend: Backend) -> None:
    """Delete the keys that are older than `KEPT`, a limited number at once."""
    with backend.database.reading() as connection:
        old = submission_keys.list_old(connection, utc_now() - KEPT, _AT_ONCE)
    if old:
        with backend.database.writing() as connection:
            submission_keys.remove_keys(connection, old)

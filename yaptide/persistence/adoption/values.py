"""Convert values of old columns, where SQLite stores any type and no constraint limits a word."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

from yaptide.domain.states import EntityState

#: If neither the simulation nor its tasks have any time.
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)

_LARGEST = 2**63 - 1
_LARGEST_INTEGER = 2**31 - 1


def to_time(value: Any) -> datetime | None:
    """Return a time in UTC, which is assumed for a value without a time zone; None for anything else."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return None


def to_times(values: Iterable[Any]) -> list[datetime]:
    """Return those of the values that are times."""
    return [time for time in map(to_time, values) if time is not None]


def to_int64(value: Any, largest: int = _LARGEST) -> int | None:
    """Return an integer that the database can store, or None."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -largest <= number <= largest else None


def to_int32(value: Any) -> int | None:
    """Return an integer that fits into 32 bits, or None."""
    return to_int64(value, _LARGEST_INTEGER)


def unused_numbers(values: Iterable[Any]) -> Iterator[int]:
    """Yield numbers from 0 that are not among the values, which may also be text on SQLite."""
    used = {to_int32(value) for value in values}
    return (number for number in count() if number not in used)


def to_text(value: Any) -> str:
    """Return the value as text; empty for null."""
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def optional_text(value: Any) -> str | None:
    """Return the value as text, or None for null."""
    return None if value is None else to_text(value)


def to_word(value: Any, *allowed: str) -> str | None:
    """Return the allowed word that equals the value, ignoring case and surrounding space; None if there is none."""
    word = to_text(value).strip().lower()
    return next((candidate for candidate in allowed if candidate.lower() == word), None)


def to_state(value: Any, allowed: Iterable[EntityState]) -> EntityState | None:
    """Return the allowed state that equals the value, or None."""
    word = to_word(value, *allowed)
    return None if word is None else EntityState(word)


def to_bytes(value: Any) -> bytes:
    """Return the bytes of a payload; empty for null."""
    if value is None:
        return b""
    return value if isinstance(value, bytes) else to_text(value).encode()

"""Reads what is in old columns, where SQLite keeps anything and nothing says what a word may be."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

from yaptide.domain.states import EntityState

#: Where not even the rows around a simulation tell when it was submitted.
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)

_LARGEST = 2**63 - 1
_LARGEST_INTEGER = 2**31 - 1


def to_time(value: Any) -> datetime | None:
    """A time, in UTC; without a time zone it is meant as UTC. None for what is no time."""
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
    """Those of the values that are times."""
    return [found for found in map(to_time, values) if found is not None]


def to_int64(value: Any, largest: int = _LARGEST) -> int | None:
    """A whole number within what the database can keep, or None."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -largest <= number <= largest else None


def to_int32(value: Any) -> int | None:
    """A whole number that fits into a column of 32 bits, or None."""
    return to_int64(value, _LARGEST_INTEGER)


def unused_numbers(values: Iterable[Any]) -> Iterator[int]:
    """Numbers from 0 on that none of the values is: SQLite keeps text in columns of numbers too."""
    used = {to_int32(value) for value in values}
    return (number for number in count() if number not in used)


def to_text(value: Any) -> str:
    """Text; empty for null."""
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def optional_text(value: Any) -> str | None:
    """Text, or None for null."""
    return None if value is None else to_text(value)


def to_word(value: Any, *allowed: str) -> str | None:
    """Which of the allowed words it is, however it is written; None if it is none of them."""
    found = to_text(value).strip().lower()
    return next((candidate for candidate in allowed if candidate.lower() == found), None)


def to_state(value: Any, allowed: Iterable[EntityState]) -> EntityState | None:
    """Which of the allowed states it is, or None."""
    found = to_word(value, *allowed)
    return None if found is None else EntityState(found)


def to_bytes(value: Any) -> bytes:
    """The bytes of a payload; none for null."""
    if value is None:
        return b""
    return value if isinstance(value, bytes) else to_text(value).encode()

"""Ages and lifetimes as users write them, e.g. ``90d`` or ``12h``."""

from datetime import timedelta

from yaptide.domain.errors import InvalidInput

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_age(text: str) -> timedelta:
    """Return the timedelta of an age such as ``90d``, ``12h`` or ``4w``; raise InvalidInput."""
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _UNITS or len(number) > 5:
        raise InvalidInput(f"Invalid age {text[:40]!r}: use e.g. 90d, 12h")
    return int(number) * _UNITS[unit]

"""Cards of FLUKA: a keyword in columns 1 to 8, six fields of ten columns from 11, and a name from 71."""

from collections.abc import Sequence

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.columns import format_number

Field = float | str | None
_WIDTH, _FIELDS = 10, 6


def format_card(keyword: str, fields: Sequence[Field] = (), name: str = "") -> str:
    """Return a card; numbers and names in its fields end at the right, a field that is None is blank."""
    columns = [_format_field(field) for field in (*fields, *[None] * (_FIELDS - len(fields)))]
    return f"{keyword:<{_WIDTH}}{''.join(columns)}{name}".rstrip()


def format_whole(value: int, what: str) -> str:
    """Return a whole number as a field; raise InvalidInput if it has too many digits."""
    text = str(value) if len(str(value)) <= _WIDTH else format_number(value, _WIDTH)
    if float(text) != value:
        raise InvalidInput(f"{what} has too many digits for FLUKA: {value}")
    return text


def _format_field(field: Field) -> str:
    text = "" if field is None else field if isinstance(field, str) else format_number(field + 0.0, _WIDTH - 1)
    return f"{text:>{_WIDTH}}"

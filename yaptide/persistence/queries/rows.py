"""Many rows as one value: the database takes them apart, and nothing is bound row by row."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, FromClause, Text, bindparam, cast, column, func, select
from sqlalchemy.types import TypeEngine


def given(dialect: str, **columns: TypeEngine[Any]) -> FromClause:
    """A table of the rows in the parameter `rows`, as `packed` makes it, for a statement on this kind of database."""
    rows = bindparam("rows", type_=Text())
    if dialect == "sqlite":
        each = func.json_each(rows).table_valued("value")
        found = (func.json_extract(each.c.value, f"$.{name}", type_=kind) for name, kind in columns.items())
        table = select(*(value.label(name) for value, name in zip(found, columns, strict=True)))
        # With a limit, though there is none, they are taken apart once, and not for each row they are joined with.
        return table.limit(-1).subquery("given")
    described = (column(name, kind) for name, kind in columns.items())
    return (
        func.json_to_recordset(cast(rows, JSON)).table_valued(*described, name="given").render_derived(with_types=True)
    )


def packed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The value of the parameter `rows`: whole numbers, text, and None where there is nothing."""
    import orjson  # noqa: PLC0415 - what only administers does without it

    return orjson.dumps(rows).decode()

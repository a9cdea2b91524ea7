"""Many rows or values as one parameter, which the database expands, instead of one parameter each."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Dialect,
    FromClause,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.types import TypeDecorator, TypeEngine


def json_table(dialect: str, **columns: TypeEngine[Any]) -> FromClause:
    """Return a table of the rows in the parameter `rows`, as encoded by `json_rows`, for statements in this dialect."""
    rows = bindparam("rows", type_=Text())
    if dialect == "sqlite":
        each = func.json_each(rows).table_valued("value")
        extracted = (func.json_extract(each.c.value, f"$.{name}", type_=kind) for name, kind in columns.items())
        table = select(*(value.label(name) for value, name in zip(extracted, columns, strict=True)))
        # The limit makes SQLite expand the rows once, and not for each row that they are joined with.
        return table.limit(-1).subquery("rows")
    described = (column(name, kind) for name, kind in columns.items())
    return (
        func.json_to_recordset(cast(rows, JSON)).table_valued(*described, name="rows").render_derived(with_types=True)
    )


def json_rows(rows: Sequence[Any]) -> str:
    """Encode the value of the parameter `rows`: whole numbers, text, or None."""
    import orjson  # noqa: PLC0415 - administration commands do without it

    return orjson.dumps(rows).decode()


class _Many(TypeDecorator[Iterable[Any]]):
    """Any number of values: an array on PostgreSQL, JSON on SQLite, which has no arrays."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: TypeEngine[Any]) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(self.kind))

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Dialect) -> Any:
        values = list(value or ())
        # Not orjson: simulations are also removed where only the standard library is installed.
        return json.dumps(values) if dialect.name == "sqlite" else values


def is_among(column: ColumnElement[Any], dialect: str, parameter: str = "values") -> ColumnElement[bool]:
    """Return the condition that a column has one of the values in a parameter, of any number.

    `in_` binds each value, and PostgreSQL accepts at most 65,535. From an array it also knows how many there are, so
    that it looks up a few by index.
    """
    values = bindparam(parameter, type_=_Many(column.type))
    if dialect == "sqlite":
        return column.in_(select(func.json_each(values).table_valued("value").c.value))
    return column == any_(values)

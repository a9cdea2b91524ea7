"""Many rows, or values, as one parameter: the database takes it apart, and nothing is bound row by row."""

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
    """A table of the rows in the parameter `rows`, as `json_rows` makes it, for statements on this database."""
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


def json_rows(rows: Sequence[Any]) -> str:
    """The value of the parameter `rows`: whole numbers, text, and None where there is nothing."""
    import orjson  # noqa: PLC0415 - what only administers does without it

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
        # Not by `json_rows`: simulations are removed where there is nothing but the standard library, too.
        return json.dumps(values) if dialect.name == "sqlite" else values


def is_among(column: ColumnElement[Any], dialect: str, parameter: str = "values") -> ColumnElement[bool]:
    """Whether a column has one of the values in a parameter, of which there may be any number.

    Of values that `in_` binds one by one, PostgreSQL takes 65,535. An array tells it how many there are, so that it
    looks up a few of them by the index.
    """
    values = bindparam(parameter, type_=_Many(column.type))
    if dialect == "sqlite":
        return column.in_(select(func.json_each(values).table_valued("value").c.value))
    return column == any_(values)

"""The tables as a mermaid class diagram, generated from the models."""

import inspect
from collections.abc import Iterator
from typing import Any

from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.types import TypeDecorator

from yaptide.persistence.models import Base


def class_diagram() -> str:
    """Return every table with columns (`?`: nullable), inheritance, and the cardinality of relationships."""
    mappers = list_mappers()
    lines = ["classDiagram"]
    for mapper in mappers:
        lines += [f"    class {mapper.local_table.description} {{", *map(_member, mapper.local_table.columns), "    }"]
    for mapper in mappers:
        lines += [*_inheritance(mapper), *map(_relation, owned_relationships(mapper))]
    return "\n".join(lines) + "\n"


def list_mappers() -> list[Mapper[Any]]:
    """Return one mapper per table, in the order of the models."""
    by_table = {mapper.local_table: mapper for mapper in Base.registry.mappers}
    return [by_table[table] for table in Base.metadata.tables.values()]


def owned_relationships(mapper: Mapper[Any]) -> list[RelationshipProperty[Any]]:
    """Return the one-to-many relationships that a model declares itself."""
    one_to_many = RelationshipDirection.ONETOMANY
    return [
        relationship
        for relationship in mapper.relationships
        if relationship.parent is mapper and relationship.direction is one_to_many
    ]


def relationship_cardinality(relationship: RelationshipProperty[Any]) -> tuple[str, str]:
    """Return the cardinality at the near and at the far end of a relationship."""
    near = "0..1" if any(column.nullable for column in relationship.remote_side) else "1"
    if relationship.uselist:
        return near, "0..*"
    # The database enforces "at most one"; only the type tells whether there always is one.
    annotation = inspect.get_annotations(relationship.parent.class_)[relationship.key]
    return near, "0..1" if "None" in str(annotation) else "1"


def column_field(column: KeyedColumnElement[Any]) -> tuple[str, str, str]:
    """Return type (with `?` if nullable), name, and keys (PK, FK) of a column as shown in a diagram."""
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    keys = ["PK"] * column.primary_key + ["FK"] * bool(column.foreign_keys)
    optional = "?" if getattr(column, "nullable", False) else ""
    return kind.python_type.__name__ + optional, str(column.name), " ".join(keys)


def _member(column: KeyedColumnElement[Any]) -> str:
    return f"        {' '.join(column_field(column))}".rstrip()


def _inheritance(mapper: Mapper[Any]) -> Iterator[str]:
    if mapper.inherits is not None:
        yield f"    {mapper.inherits.local_table.description} <|-- {mapper.local_table.description}"


def _relation(relationship: RelationshipProperty[Any]) -> str:
    near, far = relationship_cardinality(relationship)
    one, many = (side.local_table.description for side in (relationship.parent, relationship.mapper))
    return f'    {one} "{near}" --> "{far}" {many} : {relationship.key}'

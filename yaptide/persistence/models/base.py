"""The declarative base, constraint names, and the column types for times and states."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import BigInteger, DateTime, Dialect, Enum, LargeBinary, MetaData, String, Table
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from yaptide.domain.states import EntityState

#: Every constraint has a predictable name, so that a migration can drop it on either database.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time. Timezone-aware in Python; SQLite, which has no such type, stores it in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; a naive time is rejected, because its meaning is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("cannot store a time without a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """Return the function that converts what the driver returns to an aware time in UTC.

        PostgreSQL returns aware times in UTC, because `yaptide.persistence.engine` sets the time zone of its sessions.
        """
        parse = self.impl_instance.result_processor(dialect, coltype)
        if dialect.name != "sqlite" or parse is None:
            return parse
        return lambda value: None if value is None else cast("datetime", parse(value)).replace(tzinfo=UTC)


def one_of(*values: str, name: str) -> Enum:
    """Return a text type that the database limits to `values` (CHECK constraint `name`)."""
    return Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def state_column(name: str, *, checked: bool = True) -> Enum:
    """Return a type for `EntityState`, stored by name; `checked` by the database unless a narrower CHECK exists."""
    return Enum(EntityState, name=name, native_enum=False, create_constraint=checked, length=32)


class Base(DeclarativeBase):
    """Base of all models."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime, str: String}  # noqa: RUF012 - SQLAlchemy reads it from the class

    def __repr__(self) -> str:
        """Return class and primary key, never a payload or a secret."""
        return f"<{type(self).__name__} {self.__mapper__.primary_key_from_instance(self)}>"


def table_of(model: type[Base]) -> Table:
    """Return the table of a model, for statements without objects."""
    return cast("Table", model.__table__)


def _text_of(context: DefaultExecutionContext) -> bytes:
    """Return the JSON text of a payload that is inserted as gzip only, without size and digest."""
    from yaptide.persistence.codec import decode_text  # noqa: PLC0415 - administration commands need no codec

    inserted = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return decode_text(inserted["compressed_data"])


def _size_of(context: DefaultExecutionContext) -> int:
    return len(_text_of(context))


def _digest_of(context: DefaultExecutionContext) -> str:
    return hashlib.sha256(_text_of(context)).hexdigest()


class PayloadMixin:
    """Columns of a stored payload; only `yaptide.persistence.codec` knows its layout.

    Size and digest are computed if only `compressed_data` is inserted. It is the last column: only then can SQLite
    reserve space for a payload without building it in memory, and read the other columns without reading it.
    """

    compressed_data: Mapped[bytes] = mapped_column(
        LargeBinary, sort_order=1, doc="JSON text as one gzip member that can be joined with others"
    )
    content_size: Mapped[int] = mapped_column(BigInteger, default=_size_of, doc="Size of the JSON text, bytes")
    content_sha256: Mapped[str] = mapped_column(
        String(64), default=_digest_of, doc="SHA-256 of the JSON text, hexadecimal"
    )


class ClaimMixin:
    """Owner of a row, and its last heartbeat."""

    owner: Mapped[str | None] = mapped_column(doc="Executor or worker that claimed the row; null: unclaimed")
    heartbeat_time: Mapped[datetime | None] = mapped_column(doc="Last heartbeat of the owner (UTC)")

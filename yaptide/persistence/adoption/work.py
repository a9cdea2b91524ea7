"""Shared by all steps: the connection, old and new tables, options, report and progress."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, func, insert, select

from yaptide.persistence.adoption.report import Decision, Report
from yaptide.persistence.engine import Record

#: Actor in the history.
ACTOR = "adopt"

_BATCH = 500


def _no_progress(_done: int, _total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options for converting a database.

    `now` is the current time (UTC). A simulation that has not ended is stale without a heartbeat for `stale_after`.
    `encrypt` encrypts a private key. `find_obstacle` returns why nobody can sign in with a password hash, or None;
    `longest_password` is the maximum number of characters of a password. `progress` is called with the number of rows
    done and the total.
    """

    now: datetime
    encrypt: Callable[[str], str]
    find_obstacle: Callable[[str], str | None]
    longest_password: int
    stale_after: timedelta = timedelta(days=7)
    progress: Callable[[int, int], None] = _no_progress


@dataclass(slots=True)
class Work:
    """A database being converted. `old` and `new` are its tables by their common names."""

    connection: Connection
    options: Options
    report: Report
    old: Mapping[str, Table]
    new: Mapping[str, Table]
    placeholders: set[int] = field(default_factory=set)
    """Ids of simulations created as placeholders."""
    _done: int = 0
    _total: int = 0

    def decide(self, where: str, whose: str, what: str, why: str) -> None:
        """Add a decision to the report."""
        self.report.decisions.append(Decision(where, whose, what, why))

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows into a new table."""
        if rows:
            self.connection.execute(insert(self.new[table]), rows)

    def batches(self, query: Select[Any], key: ColumnElement[int]) -> Iterator[Sequence[Record]]:
        """Yield the rows of a query in order of their unique id `key`, in batches of limited size."""
        last = None
        while True:
            rest = query if last is None else query.where(key > last)
            rows = self.connection.execute(rest.order_by(key).limit(_BATCH)).all()
            if rows:
                yield rows
            if len(rows) < _BATCH:
                return
            last = rows[-1]._mapping[key]

    def next_id(self, table: str) -> int:
        """Return an id that is unused in both the old and the new table."""
        both = (self.old[table], self.new[table])
        return 1 + max(
            self.connection.execute(select(func.max(table_clause.c.id))).scalar() or 0 for table_clause in both
        )

    def expect(self, tables: Iterable[str]) -> None:
        """Count the rows for which `advance` will be called."""
        self._total = sum(self.size(self.old[table]) for table in tables)

    def advance(self) -> None:
        """Count one more row as done."""
        self._done += 1
        self.options.progress(self._done, self._total)

    def size(self, table: FromClause) -> int:
        """Return the number of rows of a table."""
        return self.connection.execute(select(func.count()).select_from(table)).scalar_one()

    def count_rows(self) -> None:
        """Set the result of the conversion in the report."""
        self.report.adopted = True
        self.report.rows = {name: self.size(table) for name, table in self.new.items()}


class Names:
    """Unique names: one that is taken becomes `name (2)`, `name (3)`, ..."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return the name, or its first variant that is not taken."""
        variants = (name if number == 1 else f"{name} ({number})" for number in count(1))
        free = next(variant for variant in variants if variant not in self._taken)
        self._taken.add(free)
        return free

"""What all steps share: the connection, the old and the new tables, the options, the report and the progress."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, func, insert, select

from yaptide.persistence.adoption.report import Decision, Report
from yaptide.persistence.engine import Record

#: In the history: who brought the states here.
ACTOR = "adopt"

_BATCH = 500


def _silent(_done: int, _total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to take a database over.

    `now` is the time of it (UTC). A simulation that has not ended counts as stale without a sign of life for
    `stale_after`. `encrypt` turns a private key in clear into what is stored. `progress` is called with the number of
    rows that are done and that there are.
    """

    now: datetime
    encrypt: Callable[[str], str]
    stale_after: timedelta = timedelta(days=7)
    progress: Callable[[int, int], None] = _silent


@dataclass(slots=True)
class Work:
    """One database being taken over. `old` and `new` are its tables by the name that both have in common."""

    connection: Connection
    options: Options
    report: Report
    old: Mapping[str, Table]
    new: Mapping[str, Table]
    placeholders: set[int] = field(default_factory=set)
    """Numbers of simulations that were made for rows whose simulation is gone."""
    _done: int = 0
    _total: int = 0

    def decide(self, where: str, whose: str, what: str, why: str) -> None:
        """Put a decision into the report."""
        self.report.decisions.append(Decision(where, whose, what, why))

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to one of our tables."""
        if rows:
            self.connection.execute(insert(self.new[table]), rows)

    def batches(self, query: Select[Any], key: ColumnElement[int]) -> Iterator[Sequence[Record]]:
        """The rows of a query by their unique number `key`, a bounded number at a time."""
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
        """A number that no row of either table `table` has."""
        both = (self.old[table], self.new[table])
        return 1 + max(self.connection.execute(select(func.max(found.c.id))).scalar() or 0 for found in both)

    def expect(self, tables: Iterable[str]) -> None:
        """Count the rows that `advance` will be called for."""
        self._total = sum(self.size(self.old[table]) for table in tables)

    def advance(self) -> None:
        """Tell that one more row is done."""
        self._done += 1
        self.options.progress(self._done, self._total)

    def size(self, table: FromClause) -> int:
        """How many rows a table has."""
        return self.connection.execute(select(func.count()).select_from(table)).scalar_one()

    def count_rows(self) -> None:
        """Note in the report that all is here, and how much."""
        self.report.adopted = True
        self.report.rows = {name: self.size(table) for name, table in self.new.items()}


class Names:
    """Names that have to differ: one that is taken already becomes `name (2)`, `name (3)`, ..."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The name itself or, if it is taken, the first of its variants that is not."""
        variants = (name if number == 1 else f"{name} ({number})" for number in count(1))
        free = next(variant for variant in variants if variant not in self._taken)
        self._taken.add(free)
        return free

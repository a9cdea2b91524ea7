"""How things are shown in a terminal. Data goes to standard output, everything said about it to standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from yaptide.domain.states import EntityState
from yaptide.domain.units import format_bytes as format_bytes

if TYPE_CHECKING:  # where little is installed, it cannot be imported
    from yaptide.services.simulations import Status

#: Names of simulations are long: a terminal narrower than this wraps the lines itself.
_WIDTH = 120

# With a height as well: without one, rich takes a terminal that knows no control codes for 80 columns wide.
out = Console(width=max(Console().width, _WIDTH), height=Console().height)
err = Console(stderr=True)

_COLOURS = {
    EntityState.COMPLETED: "green",
    EntityState.FAILED: "red",
    EntityState.CANCELED: "yellow",
    EntityState.RUNNING: "cyan",
}
_MOST_BARS = 16
#: JSON escapes control characters of 7 bits only; terminals know some of 8.
_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def print_message(text: str) -> None:
    """Tell what is going on."""
    err.print(escape_control(text), markup=False, highlight=False, soft_wrap=True)


def print_error(text: str) -> None:
    """Say in one line what went wrong."""
    err.print(
        f"Error: {escape_control(' '.join(text.split()))}", markup=False, highlight=False, style="red", soft_wrap=True
    )


def print_json(document: Any) -> None:
    """One JSON object on standard output; times as ISO 8601."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=datetime.isoformat)
    sys.stdout.write(text.translate(_ESCAPED) + "\n")


def print_text(title: str, text: str) -> None:
    """A text of many lines on standard output, below its title."""
    out.rule(Text(escape_control(title)))
    out.print(escape_control(text), markup=False, highlight=False, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table on standard output."""
    name, *rest = columns  # the name of a thing is what one copies: it is never cut short
    first = Column(name, no_wrap=True, overflow="ignore")
    table = Table(
        first,
        *rest,
        title=None if title is None else Text(escape_control(title)),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.show_header = any(columns)
    for row in rows:
        table.add_row(*map(_cell, row))
    out.print(table)


def _cell(value: object) -> Text:
    """What users call their things is shown as it is: it is no markup."""
    if isinstance(value, Text):
        return value
    return Text("" if value is None else escape_control(str(value)))


def escape_control(text: str) -> str:
    """A text that moves no cursor, but to the next line or column, and changes no colour, whoever wrote it."""
    return "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)


def print_facts(facts: dict[str, object], title: str) -> None:
    """Names and values, one a line."""
    print_table(("", ""), facts.items(), title)


def format_state(value: EntityState) -> Text:
    """A state in its colour."""
    return Text(str(value), style=_COLOURS.get(value, ""))


def format_time(value: datetime | None) -> str:
    """A time in the local time zone."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_duration(start: datetime | None, end: datetime | None) -> str:
    """The time between two times, without fractions of a second above ten."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    return f"{seconds:.1f} s" if seconds < 10 else str(timedelta(seconds=round(seconds)))


def format_count(count: int, noun: str) -> str:
    """How many there are of something."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def format_limit(count: int | None) -> str:
    """A number of bytes that may not be exceeded."""
    return "-" if count is None else format_bytes(count)


class Bars:
    """A progress bar for the whole simulation and one for each of its first tasks."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("primaries  {task.fields[state]}"),
            TimeElapsedColumn(),
            console=err,
            auto_refresh=err.is_terminal,  # elsewhere only the last picture is printed
            refresh_per_second=5,
        )
        self._bars: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, status: "Status") -> None:
        """Draw how far everything is."""
        tasks = status.tasks
        done = sum(task.simulated_primaries for task in tasks)
        self._draw(-1, "whole", done, sum(task.requested_primaries for task in tasks), status.simulation.job_state)
        for task in tasks[:_MOST_BARS]:
            name = f"task {task.task_id}"
            self._draw(task.task_id, name, task.simulated_primaries, task.requested_primaries, task.task_state)

    def _draw(self, key: int, name: str, done: int, total: int, value: EntityState) -> None:
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(name, total=total, state="")
        self._progress.update(self._bars[key], completed=done, total=total, state=format_state(value).markup)

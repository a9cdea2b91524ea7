"""Terminal output. Data goes to standard output, messages to standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from yaptide.domain.states import EntityState
from yaptide.domain.units import format_bytes as format_bytes
from yaptide_client.terminal import escape_control as escape_control, format_line

if TYPE_CHECKING:  # db_manage.py runs without the packages that this needs
    from yaptide.admin.targets import TaskProgress

#: Job ids are long: let a narrower terminal wrap the lines itself.
_WIDTH = 120

# Set the height too: without it, rich assumes 80 columns for terminals without control codes.
out = Console(width=max(Console().width, _WIDTH), height=Console().height)
err = Console(stderr=True)

_COLOURS = {
    EntityState.COMPLETED: "green",
    EntityState.FAILED: "red",
    EntityState.CANCELED: "yellow",
    EntityState.RUNNING: "cyan",
}
_MOST_BARS = 16
#: JSON escapes only the 7-bit control characters; terminals also interpret 8-bit ones.
_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def print_message(text: str) -> None:
    """Print a message to standard error."""
    err.print(escape_control(text), markup=False, highlight=False, soft_wrap=True)


def print_error(text: str) -> None:
    """Print an error to standard error, in one line."""
    err.print(f"Error: {format_line(text)}", markup=False, highlight=False, style="red", soft_wrap=True)


def print_json(document: Any) -> None:
    """Print a JSON object to standard output; times as ISO 8601."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=datetime.isoformat)
    sys.stdout.write(text.translate(_ESCAPED) + "\n")


def print_text(title: str, text: str) -> None:
    """Print a text of several lines below a title."""
    out.rule(Text(escape_control(title)))
    out.print(escape_control(text), markup=False, highlight=False, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table to standard output."""
    name, *rest = columns  # names are copied by users, so never truncate them
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
    """Return a value as plain text: names chosen by users must not be interpreted as markup."""
    if isinstance(value, Text):
        return value
    return Text("" if value is None else escape_control(str(value)))


def print_facts(facts: dict[str, object], title: str) -> None:
    """Print names and values, one pair per line."""
    print_table(("", ""), facts.items(), title)


def format_state(value: str) -> Text:
    """Return a state in its colour."""
    return Text(str(value), style=_COLOURS.get(EntityState(value), ""))


def read_time(text: str | None) -> datetime | None:
    """Return the time in a JSON object, or None."""
    return None if text is None else datetime.fromisoformat(text)


def format_time(value: datetime | None) -> str:
    """Return a time in the local time zone, or an empty string."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_duration(start: datetime | None, end: datetime | None) -> str:
    """Return the time between two times, without fractions of a second from 10 s."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    return f"{seconds:.1f} s" if seconds < 10 else str(timedelta(seconds=round(seconds)))


def format_name(name: str) -> str:
    """Return the name of a user; in quotes if it has blanks that a reader would not see."""
    return name if name == " ".join(name.split()) else repr(name)


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun in singular or plural."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def format_limit(count: int | None) -> str:
    """Return a limit in bytes, "-" for no limit."""
    return "-" if count is None else format_bytes(count)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on a terminal. Yields a function to call with what is done, its number, and the total."""
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    is_static = not err.is_terminal or err.is_dumb_terminal
    with Progress(*columns, console=err, transient=True, disable=is_static) as progress:
        bar = progress.add_task("", total=None)

        def show_progress(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)

        yield show_progress


class ProgressBars:
    """A progress bar for the simulation and one for each of its first tasks."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("primaries  {task.fields[state]}"),
            TimeElapsedColumn(),
            console=err,
            auto_refresh=err.is_terminal,  # print only the final state to a file
            refresh_per_second=5,
        )
        self._bars: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show_status(self, state: str, tasks: Sequence["TaskProgress"]) -> None:
        """Update all bars: `state` is that of the simulation."""
        done = sum(task.simulated_primaries for task in tasks)
        self._draw(-1, "total", done, sum(task.requested_primaries for task in tasks), state)
        for task in tasks[:_MOST_BARS]:
            name = f"task {task.task_id}"
            self._draw(task.task_id, name, task.simulated_primaries, task.requested_primaries, task.task_state)

    def _draw(self, key: int, name: str, done: int, total: int, value: str) -> None:
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(name, total=total, state="")
        self._progress.update(self._bars[key], completed=done, total=total, state=format_state(value).markup)

"""`yaptide db check`: whether everything in the store is as it has to be."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import err, escape_control, format_count, print_json, print_message, print_table
from yaptide.admin.store import connect_database
from yaptide.services import integrity
from yaptide.services.integrity import Finding, Watch

app = typer.Typer()


@app.command("check")
def check_store(
    as_json: AsJson = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without losing anything.")] = False,
) -> None:
    """Check all that is stored: tables, payloads, counts, states and histories. Exit code 1 if anything is wrong.

    It changes nothing without --repair, and may run while the database is in use. With --repair, exit code 1 says that
    something is left that cannot be mended.

    Example: yaptide db check --json
    """
    database = connect_database()
    with _bar() as watch:
        found = integrity.check_store(database, watch)
    left = found
    if repair and any(finding.repair for finding in found):
        integrity.repair_findings(database, found)
        left = integrity.check_store(database)
    marks = [_mark(finding, left, repair) for finding in found]
    if as_json:
        documents = [
            finding.document() | {"repaired": mark == "done"} for finding, mark in zip(found, marks, strict=True)
        ]
        print_json({"findings": documents, "left": len(left)})
    else:
        _print(found, marks)
        print_message(
            "Nothing is wrong"
            if not found
            else f"{format_count(len(found), 'finding')}, {len(left)} left"
            if repair
            else _advice(found)
        )
    raise typer.Exit(1 if left else 0)


def _mark(finding: Finding, left: list[Finding], repaired: bool) -> str:
    if finding.repair is None:
        return "no"
    gone = (finding.kind, finding.where) not in {(other.kind, other.where) for other in left}
    return "done" if repaired and gone else "possible"


def _print(found: list[Finding], marks: list[str]) -> None:
    """The names of simulations are long: what is wrong with them stands below."""
    if found:
        places = [Text(f"{escape_control(finding.where)}\n  {escape_control(finding.what)}") for finding in found]
        kinds = [finding.kind for finding in found]
        print_table(("kind", "repair", "where, and what is wrong"), zip(kinds, marks, places, strict=True))


def _advice(found: list[Finding]) -> str:
    possible = sum(finding.repair is not None for finding in found)
    return f"{format_count(len(found), 'finding')}; {possible} of them can be mended with: yaptide db check --repair"


@contextmanager
def _bar() -> Iterator[Watch]:
    """A bar that moves with the payloads, where there is a terminal to move it in."""
    columns = (TextColumn("payloads"), BarColumn(), MofNCompleteColumn())
    still = not err.is_terminal or err.is_dumb_terminal
    with Progress(*columns, console=err, transient=True, disable=still) as progress:
        task = progress.add_task("payloads", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

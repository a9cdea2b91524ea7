"""`yaptide db adopt`: take over a database of the existing YAPTIDE backend."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from yaptide.admin.display import err, print_json, print_message, print_table
from yaptide.domain.errors import InvalidInput
from yaptide.persistence.engine import Database
from yaptide.services import adoption
from yaptide.services.adoption import Report
from yaptide.settings import load_settings

app = typer.Typer()


@app.command("adopt")
def adopt_database(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Convert, report, then roll back.")] = False,
    stale_after: Annotated[
        float, typer.Option(min=0, help="Days without activity after which a simulation counts as stale.")
    ] = 7.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a database of the existing YAPTIDE backend to this schema, in place, all or nothing.

    Stop that backend and make a backup first. Every decision is reported. Running it again changes nothing.

    Example: yaptide db adopt --dry-run
    """
    from yaptide.services.secrets import Vault  # noqa: PLC0415 - few commands need cryptography

    settings = load_settings()
    database, limit = Database(settings.url), timedelta(days=stale_after)
    _check_file(database)
    with closing(database), _bar() as progress:
        vault = Vault(settings.secrets)
        report = adoption.adopt_database(database, vault, stale_after=limit, dry_run=dry_run, progress=progress)
    if as_json:
        print_json({"dry_run": dry_run, **asdict(report)})
    else:
        _show(report, dry_run=dry_run)


def _check_file(database: Database) -> None:
    """Raise InvalidInput if the SQLite file does not exist, because connecting would create it."""
    file = database.engine.url.database
    if database.is_sqlite and (file is None or not Path(file).is_file()):
        raise InvalidInput(f"No such database file: {file or ''}; check FLASK_SQLALCHEMY_DATABASE_URI")


def _show(report: Report, *, dry_run: bool) -> None:
    if not report.adopted:
        print_message("The database already has the schema of yaptide; nothing was changed")
        return
    rows = [(entry.where, entry.whose, entry.what, entry.why) for entry in report.decisions]
    print_table(("row", "user", "decision", "reason"), rows, "Decisions")
    print_table(("table", "rows"), report.rows.items(), "Rows after the conversion")
    kinds = Counter(entry.where.split()[0] for entry in report.decisions)
    summary = ", ".join(f"{count} about {kind}" for kind, count in kinds.items()) or "none"
    print_message(f"Decisions: {summary}")
    print_message("Dry run: nothing was changed" if dry_run else "Database converted")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    columns: tuple[Any, ...] = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("rows", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)

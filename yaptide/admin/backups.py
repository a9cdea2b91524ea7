"""`yaptide db backup`, `restore` and `verify`; `yaptide export` and `import`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from yaptide.admin.display import err, format_bytes, format_count, print_json, print_message, print_table
from yaptide.admin.store import configured_database, local_user, open_store
from yaptide.domain.errors import NotFound
from yaptide.persistence.engine import Database
from yaptide.services import archives, backups
from yaptide.services.backups import Report

#: Commands of `yaptide db`.
db = typer.Typer()
#: Commands of `yaptide`.
app = typer.Typer()

_NOT_IN_IT = (
    "Not in it: the settings and the keys in them or in the data folder (without these everybody signs in again, and "
    "stored SSH keys cannot be read), and outputs of tasks that are not merged yet"
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@db.command("backup")
def write_backup(file: File, as_json: AsJson = False) -> None:
    """Write everything in the database to a file, as it is at one moment, while others go on using it.

    The file can be restored into a database of either kind. It replaces a file of that name when it is whole.

    Example: yaptide db backup yaptide-2026-03-01.zip
    """
    with _bar() as watch:
        report = backups.write_backup(_existing(), file, watch)
    _show(file, report, as_json)
    print_message(f"Everything was written to {file}. Keep it as safe as the database. {_NOT_IN_IT}")


@db.command("restore")
def restore_backup(file: File, as_json: AsJson = False) -> None:
    """Fill an empty database from a backup, bring it up to date, and check every row.

    Example: FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://me@localhost/new yaptide db restore backup.zip
    """
    with _bar() as watch:
        report = backups.restore_backup(configured_database(), file, watch)
    _show(file, report, as_json)
    print_message(f"Restored and checked: {report.rows} rows of {len(report.tables)} tables. {_NOT_IN_IT}")


@db.command("verify")
def verify_backup(file: File, as_json: AsJson = False) -> None:
    """Check a backup without restoring it: every byte, every row, and all counts.

    Example: yaptide db verify yaptide-2026-03-01.zip
    """
    with _bar() as watch:
        report = backups.verify_backup(file, watch)
    _show(file, report, as_json)
    print_message(f"The backup is whole: {report.rows} rows of {len(report.tables)} tables")


@app.command("export")
def export_simulations(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB_ID...", help="Public names of the simulations.")],
    file: File,
    as_json: AsJson = False,
) -> None:
    """Write simulations that have ended, with everything about them, to a file for another installation.

    Example: yaptide export 20260301-100000-...DIRECT simulation.zip
    """
    with _bar() as watch:
        report = archives.export_simulations(open_store().backend, job_ids, file, watch)
    if as_json:
        print_json({"file": str(file), **msgspec.to_builtins(report)})
    print_message(
        f"Written to {file}: {format_count(len(report.simulations), 'simulation')} ({format_bytes(report.bytes)})"
    )


@app.command("import")
def import_simulations(
    file: File,
    user: Annotated[str, typer.Option("--user", help="Whose they become; default: you.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Add the simulations in an exported file, all or none. Those that are here already are left alone.

    Example: yaptide import simulation.zip --user alice
    """
    backend = open_store().backend
    name = user or local_user(backend, "").username
    with _bar() as watch:
        report = archives.import_simulations(backend, file, name, watch)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        rows = [(job_id, "imported") for job_id in report.imported] + [(job_id, "here") for job_id in report.skipped]
        print_table(("simulation", ""), rows)
    print_message(
        f"{len(report.imported)} simulations were imported for {report.user}, {len(report.skipped)} were here already"
    )


def _existing() -> Database:
    """The configured database; raises NotFound rather than make an SQLite file where there is none."""
    database = configured_database()
    file = database.engine.url.database
    if database.is_sqlite and file and not Path(file).exists():
        raise NotFound(f"There is no database file {file}")
    return database


def _show(file: Path, report: Report, as_json: bool) -> None:
    if as_json:
        tables = {name: {"rows": table.rows, "sha256": table.sha256} for name, table in report.tables.items()}
        print_json({"file": str(file), **msgspec.to_builtins(report), "tables": tables})
    else:
        print_table(("table", "rows"), [(name, table.rows) for name, table in report.tables.items()])
        print_message(
            f"Written by yaptide {report.yaptide}, schema revision {report.revision}, {format_bytes(report.bytes)}"
        )


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error that shows what is being done, and goes at the end."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("", total=None)

        def watch(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)

        yield watch

"""`yaptide db backup`, `restore` and `verify`; `yaptide export` and `import`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import format_bytes, format_count, print_json, print_message, print_table, progress_bar
from yaptide.admin.store import configured_database, local_user, open_store, require_file
from yaptide.services import archives, backups
from yaptide.services.backups import Report

#: Commands of `yaptide db`.
db = typer.Typer()
#: Commands of `yaptide`.
app = typer.Typer()

_NOT_INCLUDED = (
    "Not included: settings, keys (without the same keys all users must sign in again, and stored SSH keys cannot be "
    "decrypted), and task results that are not merged yet"
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup or archive file.")]


@db.command("backup")
def write_backup(file: File, as_json: AsJson = False) -> None:
    """Write a consistent snapshot of the whole database to a file, while the server keeps running.

    The backup can be restored to SQLite and to PostgreSQL. An existing file is replaced only when the new one is
    complete.

    Example: yaptide db backup yaptide-2026-03-01.zip
    """
    database = configured_database()
    require_file(database)
    with progress_bar() as show_progress:
        report = backups.write_backup(database, file, show_progress)
    _show(file, report, as_json)
    print_message(f"Backup written to {file}. Keep it as safe as the database. {_NOT_INCLUDED}")


@db.command("restore")
def restore_backup(file: File, as_json: AsJson = False) -> None:
    """Restore a backup into an empty database, upgrade it to this version, and verify every row.

    Example: FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://me@localhost/new yaptide db restore backup.zip
    """
    with progress_bar() as show_progress:
        report = backups.restore_backup(configured_database(), file, show_progress)
    _show(file, report, as_json)
    print_message(f"Restored and verified: {report.rows} rows of {len(report.tables)} tables. {_NOT_INCLUDED}")


@db.command("verify")
def verify_backup(file: File, as_json: AsJson = False) -> None:
    """Verify a backup without restoring it: checksums, rows and counts.

    Example: yaptide db verify yaptide-2026-03-01.zip
    """
    with progress_bar() as show_progress:
        report = backups.verify_backup(file, show_progress)
    _show(file, report, as_json)
    print_message(f"The backup is complete: {report.rows} rows of {len(report.tables)} tables")


@app.command("export")
def export_simulations(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB_ID...", help="Job ids of the simulations.")],
    file: File,
    as_json: AsJson = False,
) -> None:
    """Export finished simulations with all their data to a file for another installation.

    Example: yaptide export 20260301-100000-...DIRECT simulation.zip
    """
    with progress_bar() as show_progress:
        report = archives.export_simulations(open_store().backend, job_ids, file, show_progress)
    if as_json:
        print_json({"file": str(file), **msgspec.to_builtins(report)})
    print_message(
        f"Written to {file}: {format_count(len(report.simulations), 'simulation')} ({format_bytes(report.bytes)})"
    )


@app.command("import")
def import_simulations(
    file: File,
    user: Annotated[str, typer.Option("--user", help="New owner; default: you.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Import simulations from an exported file, all or none. Simulations that exist already are skipped.

    Example: yaptide import simulation.zip --user alice
    """
    backend = open_store().backend
    name = user or local_user(backend, "").username
    with progress_bar() as show_progress:
        report = archives.import_simulations(backend, file, name, show_progress)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        rows = [(job_id, "imported") for job_id in report.imported] + [(job_id, "exists") for job_id in report.skipped]
        print_table(("simulation", ""), rows)
    print_message(
        f"Imported {len(report.imported)} simulations for {report.user}; {len(report.skipped)} existed already"
    )


def _show(file: Path, report: Report, as_json: bool) -> None:
    if as_json:
        tables = {name: {"rows": table.rows, "sha256": table.sha256} for name, table in report.tables.items()}
        print_json({"file": str(file), **msgspec.to_builtins(report), "tables": tables})
    else:
        print_table(("table", "rows"), [(name, table.rows) for name, table in report.tables.items()])
        print_message(
            f"Written by yaptide {report.yaptide}, schema revision {report.revision}, {format_bytes(report.bytes)}"
        )

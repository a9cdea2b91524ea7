"""`yaptide db adopt`: take over a database of the existing YAPTIDE backend."""

from collections import Counter
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import format_bytes, print_json, print_message, print_table, progress_bar
from yaptide.admin.store import require_file
from yaptide.persistence.engine import Database
from yaptide.services import adoption
from yaptide.services.adoption import Report, Room
from yaptide.settings import load_settings

app = typer.Typer()


@app.command("adopt")
def adopt_database(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Convert, report, then roll back.")] = False,
    stale_after: Annotated[
        float, typer.Option(min=0, help="Days without activity after which a simulation counts as stale.")
    ] = 7.0,
    as_json: AsJson = False,
) -> None:
    """Convert a database of the existing YAPTIDE backend to this schema, in place, all or nothing.

    Stop that backend and make a backup first. Every decision is reported. Running it again changes nothing.

    Example: yaptide db adopt --dry-run
    """
    from yaptide.services.secrets import Vault  # noqa: PLC0415 - few commands need cryptography

    settings = load_settings()
    database, limit = Database(settings.url), timedelta(days=stale_after)
    require_file(database)
    with closing(database), progress_bar() as show_progress:
        show_room(adoption.measure_room(database))
        vault, progress = Vault(settings.secrets), partial(show_progress, "rows")
        report = adoption.adopt_database(database, vault, stale_after=limit, dry_run=dry_run, progress=progress)
    if as_json:
        print_json({"dry_run": dry_run, **asdict(report)})
    else:
        _show(report, dry_run=dry_run)


def show_room(room: Room) -> None:
    """Print how much additional disk space is needed at most, and how much is free."""
    free = "on the server" if room.free is None else f"({format_bytes(room.free)} are free)"
    print_message(f"Needs up to {format_bytes(room.needed)} of additional disk space {free}")


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

"""`yaptide purge`: remove what is old."""

from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson, Yes, ask_confirmation, parse_age, parse_states
from yaptide.admin.display import (
    format_bytes,
    format_count,
    format_state,
    format_time,
    print_json,
    print_message,
    print_table,
)
from yaptide.admin.store import connect_database
from yaptide.application import make_spool
from yaptide.persistence.engine import Record
from yaptide.services import retention
from yaptide.services.backend import utc_now
from yaptide.services.retention import Old
from yaptide.settings import load_settings

app = typer.Typer()


@app.command("purge")
def purge_simulations(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="What ended so long ago: 90d, 12h, 4w.")],
    states: Annotated[str, typer.Option(help="In one of these final states, separated by commas.")] = "FAILED,CANCELED",
    keep_inputs: Annotated[
        bool, typer.Option("--keep-inputs", help="Remove only results and log files; all the rest stays.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove simulations that ended long ago, after showing which.

    Example: yaptide purge --older-than 90d --states FAILED,CANCELED --dry-run
    """
    database = connect_database()
    which = Old(utc_now() - parse_age(older_than), parse_states(states), keep_inputs)
    found = retention.find_old(database, which)
    if not as_json:
        _print(found)
    removed: list[str] = []
    if found and not dry_run:
        ask_confirmation(f"Remove {_described(found, keep_inputs)}?", yes)
        removed = retention.purge_simulations(
            database, make_spool(load_settings()), which, [row.job_id for row in found]
        )
    gone = [row for row in found if row.job_id in set(removed)]
    if as_json:
        documents = [dict(row._mapping) | {"removed": row in gone} for row in found]
        print_json({"dry_run": dry_run, "keep_inputs": keep_inputs, "simulations": documents})
    elif dry_run or not found:
        print_message(f"Nothing was removed; to be removed: {_described(found, keep_inputs)}")
    else:
        print_message(f"Removed: {_described(gone, keep_inputs)}")


def _print(found: list[Record]) -> None:
    if found:
        rows = [
            (r.job_id, r.username, format_state(r.job_state), format_time(r.end_time), format_bytes(r.stored_bytes))
            for r in found
        ]
        print_table(("simulation", "user", "state", "ended", "stored"), rows)


def _described(rows: list[Record], keep_inputs: bool) -> str:
    count, total = format_count(len(rows), "simulation"), format_bytes(sum(row.stored_bytes for row in rows))
    return f"results and log files of {count} ({total} with the inputs)" if keep_inputs else f"{count} ({total})"

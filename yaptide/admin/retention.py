"""`yaptide purge`: remove old simulations."""

from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson, Yes, ask_confirmation, parse_states
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
from yaptide.domain.ages import parse_age
from yaptide.persistence.engine import Record
from yaptide.services import retention
from yaptide.services.backend import utc_now
from yaptide.services.retention import Old
from yaptide.settings import load_settings

app = typer.Typer()


@app.command("purge")
def purge_simulations(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Minimum age since the end: 90d, 12h, 4w.")],
    states: Annotated[str, typer.Option(help="Final states to remove, separated by commas.")] = "FAILED,CANCELED",
    keep_inputs: Annotated[
        bool, typer.Option("--keep-inputs", help="Remove only results and log files, keep the rest.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove simulations that ended long ago, after listing them.

    Example: yaptide purge --older-than 90d --states FAILED,CANCELED --dry-run
    """
    database = connect_database()
    criteria = Old(utc_now() - parse_age(older_than), parse_states(states), keep_inputs)
    candidates = retention.find_old(database, criteria)
    if not as_json:
        _print(candidates)
    removed: list[str] = []
    if candidates and not dry_run:
        ask_confirmation(f"Remove {_described(candidates, keep_inputs)}?", yes)
        removed = retention.purge_simulations(
            database, make_spool(load_settings()), criteria, [row.job_id for row in candidates]
        )
    removed_rows = [row for row in candidates if row.job_id in set(removed)]
    if as_json:
        documents = [dict(row._mapping) | {"removed": row in removed_rows} for row in candidates]
        print_json({"dry_run": dry_run, "keep_inputs": keep_inputs, "simulations": documents})
    elif dry_run or not candidates:
        print_message(f"Nothing was removed; would remove: {_described(candidates, keep_inputs)}")
    else:
        print_message(f"Removed: {_described(removed_rows, keep_inputs)}")


def _print(candidates: list[Record]) -> None:
    if candidates:
        rows = [
            (r.job_id, r.username, format_state(r.job_state), format_time(r.end_time), format_bytes(r.stored_bytes))
            for r in candidates
        ]
        print_table(("simulation", "user", "state", "ended", "stored"), rows)


def _described(rows: list[Record], keep_inputs: bool) -> str:
    count, total = format_count(len(rows), "simulation"), format_bytes(sum(row.stored_bytes for row in rows))
    return f"results and log files of {count} ({total} with the inputs)" if keep_inputs else f"{count} ({total})"

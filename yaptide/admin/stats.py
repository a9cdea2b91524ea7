"""`yaptide db stats`: how much there is, and whose it is."""

from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import format_bytes, format_limit as limited, format_state, print_json, print_table
from yaptide.admin.store import connect_database
from yaptide.services import stats as services
from yaptide.services.stats import Stats

app = typer.Typer()


@app.command("stats")
def show_stats(
    largest: Annotated[int, typer.Option(min=0, help="How many of the largest simulations to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show how much is stored: rows by table, bytes by kind of payload and by user, and the largest simulations.

    Example: yaptide db stats --largest 10
    """
    found = services.collect_stats(connect_database(), largest)
    if as_json:
        lists = {"payloads": found.payloads, "users": found.users, "largest": found.largest}
        documents = {name: [dict(row._mapping) for row in rows] for name, rows in lists.items()}
        print_json({"rows": found.rows, **documents, "disk_bytes": found.disk_bytes})
    else:
        _print(found)


def _print(found: Stats) -> None:
    print_table(("table", "rows"), [(table, f"{count:,}") for table, count in found.rows.items()])
    kinds = [
        (row.kind, f"{row.payloads:,}", format_bytes(row.stored_bytes), format_bytes(row.text_bytes))
        for row in found.payloads
    ]
    taken = sum(row.stored_bytes for row in found.payloads)
    print_table(("payloads", "number", "stored", "as text"), [*kinds, ("all", "", format_bytes(taken), "")])
    users = [
        (row.username, row.simulations, format_bytes(row.stored_bytes), limited(row.quota_bytes)) for row in found.users
    ]
    print_table(("user", "simulations", "stored", "quota"), users)
    largest = [
        (row.job_id, row.username, format_state(row.job_state), format_bytes(row.stored_bytes)) for row in found.largest
    ]
    print_table(("largest simulations", "user", "state", "stored"), largest)
    print_table(("on disk",), [(format_bytes(found.disk_bytes),)])

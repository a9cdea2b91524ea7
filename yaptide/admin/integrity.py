"""`yaptide db check`: verify the integrity of the store."""

from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import escape_control, format_count, print_json, print_message, print_table, progress_bar
from yaptide.admin.store import connect_database
from yaptide.services import integrity
from yaptide.services.integrity import Finding

app = typer.Typer()


@app.command("check")
def check_store(
    as_json: AsJson = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair findings that can be repaired without loss.")
    ] = False,
) -> None:
    """Check everything that is stored: tables, payloads, counts, states and histories. Exit code 1 on findings.

    Findings that db adopt kept on purpose and reported are shown as known; they do not count for the exit code.
    Changes nothing without --repair, and can run while the database is in use. With --repair, exit code 1 means that
    some findings remain.

    Example: yaptide db check --json
    """
    database = connect_database()
    with progress_bar() as show_progress:
        findings = integrity.check_store(database, partial(show_progress, "payloads"))
    remaining = findings
    if repair and any(finding.repair for finding in findings):
        integrity.repair_findings(database, findings)
        remaining = integrity.check_store(database)
    statuses = [_repair_status(finding, remaining, repair) for finding in findings]
    left = sum(not finding.acknowledged for finding in remaining)
    if as_json:
        documents = [
            finding.document() | {"repaired": status == "done"}
            for finding, status in zip(findings, statuses, strict=True)
        ]
        print_json({"findings": documents, "left": left})
    else:
        _print(findings, statuses)
        print_message(_summary(findings, left, is_repair=repair))
    raise typer.Exit(1 if left else 0)


def _repair_status(finding: Finding, remaining: list[Finding], is_repair: bool) -> str:
    if finding.repair is None:
        return "known" if finding.acknowledged else "no"
    repaired = (finding.kind, finding.where) not in {(other.kind, other.where) for other in remaining}
    return "done" if is_repair and repaired else "possible"


def _print(findings: list[Finding], statuses: list[str]) -> None:
    """Print the findings as a table; each description is below its location, because job ids are long."""
    if findings:
        places = [Text(f"{escape_control(finding.where)}\n  {escape_control(finding.what)}") for finding in findings]
        kinds = [finding.kind for finding in findings]
        print_table(("kind", "repair", "location and problem"), zip(kinds, statuses, places, strict=True))


def _summary(findings: list[Finding], left: int, *, is_repair: bool) -> str:
    known = sum(finding.acknowledged for finding in findings)
    note = f", and {known} known since db adopt" if known else ""
    new = [finding for finding in findings if not finding.acknowledged]
    if not new:
        return f"No findings{note}"
    if is_repair:
        return f"{format_count(len(new), 'finding')}, {left} remaining{note}"
    possible = sum(finding.repair is not None for finding in new)
    return f"{format_count(len(new), 'finding')}, {possible} repairable with: yaptide db check --repair{note}"

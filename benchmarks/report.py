"""Writes the measurements as a table, as JSON and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Row

Document = Mapping[str, Any]
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def make_table(rows: Sequence[Document]) -> Table:
    """Return a table of all rows."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("workload", overflow="fold", max_width=58)
    table.add_column("database")
    for name in ("ours", "p95", "limit", "p95", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("to reach")
    table.add_column("met")
    table.add_column("the limit", overflow="fold", max_width=48)
    for row in rows:
        table.add_row(*format_cells(row))
    return table


def format_cells(row: Document) -> list[str]:
    """Return the cells of a row: workload, database, medians and p95 (ours, limit), ratio, goal, met, limit."""
    unit = "B" if str(row["goal"]).endswith("MB") or "memory" in row["name"] else "s"
    times = [
        format_value(samples[part], unit) if samples else ""
        for samples in (row["ours"], row["limit"])
        for part in ("median", "p95")
    ]
    return [row["name"], row["database"], *times, _ratio(row), row["goal"] or "", _met(row), row.get("beside", "")]


def _ratio(row: Document) -> str:
    if row["ratio"] is None:
        return ""
    return f"{row['value']:.0%}" if "%" in (row["goal"] or "") else f"{row['ratio']:.2f}x"


def format_value(value: float, unit: str) -> str:
    """Return a value with three digits and a suitable unit."""
    if unit == "B":
        return f"{value / 1e6:.0f} MB"
    scales = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
    scale, name = next((pair for pair in scales if value >= pair[0]), scales[-1])
    return f"{value / scale:.3g} {name}"


def summarize_rows(rows: Sequence[Document]) -> str:
    """Return how many rows meet their goal."""
    with_goal = [row for row in rows if row["met"] is not None]
    return f"{sum(row['met'] for row in with_goal)} of {len(with_goal)} rows are met"


def print_report(document: Document) -> None:
    """Print a run."""
    console = Console(width=210, highlight=False)
    console.print(make_table(document["rows"]))
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    console.print(f"\n{machine}", soft_wrap=True)
    began, ended = document["load"]
    console.print(f"revision {document['revision']}, {document['date']}, load {began:.2f} before, {ended:.2f} after")
    if document["busy"]:
        console.print("The machine was BUSY with other programs: only ratios are meaningful")
    console.print(summarize_rows(document["rows"]))


def format_markdown(document: Document) -> str:
    """Return a run as Markdown for docs/performance.md: the machine, a summary, and all rows."""
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    began, ended = document["load"]
    busy = " **The machine was busy with other programs: only ratios are meaningful.**" if document["busy"] else ""
    lines = [
        f"Revision {document['revision']}, {document['date']}, load {began:.2f} before and {ended:.2f} after.{busy}",
        f"Machine: {machine}.",
        "",
        f"**{summarize_rows(document['rows'])}**",
        "",
        "| workload | database | ours | p95 | limit | p95 | ratio | to reach | met | the limit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(format_cells(row))} |" for row in document["rows"])])


def write_into(text: str, document: Document) -> str:
    """Return a Markdown text with its measurements replaced by those of this run."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return f"{before}{begin}\n\n{format_markdown(document)}\n\n{end}{after}"


def save_report(document: Document, folder: Path) -> None:
    """Write `bench.json`, `bench.txt` and `bench.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    with (folder / "bench.txt").open("w") as file:
        console = Console(file=file, width=210, highlight=False)
        console.print(make_table(document["rows"]))
        console.print(summarize_rows(document["rows"]))
    plot_rows(document["rows"], folder / "bench.png")


def plot_rows(rows: Sequence[Document], path: Path) -> None:
    """Plot every row's value relative to its bound: rows left of the line meet it."""
    import matplotlib as mpl  # noqa: PLC0415 - importing matplotlib is slow

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    shown = [row for row in rows if row["reached"] is not None][::-1]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(shown)), layout="constrained")
    colours = ["tab:green" if row["met"] else "tab:red" for row in shown]
    axes.barh(
        [f"{row['name']} ({row['database']})" for row in shown],
        [max(row["reached"], 0) for row in shown],
        color=colours,
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("measured / to reach (1 or less: met)")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def compare_runs(before: Document, after: Document) -> Table:
    """Return a table of two runs: our time relative to the limit, before and after."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (
        "workload",
        "database",
        f"ours, {before['revision']}",
        f"ours, {after['revision']}",
        "ratio",
        "then",
        "change",
        "met",
        "then",
    ):
        table.add_column(name, justify="left" if name in ("workload", "database") else "right")
    old = {(row["name"], row["database"]): row for row in before["rows"]}
    for row in after["rows"]:
        was = old.get((row["name"], row["database"]))
        if was is None:
            continue
        unit = "B" if "memory" in row["name"] else "s"
        first, second = (run["ratio"] or run["ours"]["median"] for run in (was, row))
        table.add_row(
            *(row["name"], row["database"]),
            *(format_value(was["ours"]["median"], unit), format_value(row["ours"]["median"], unit)),
            *(f"{was['ratio']:.2f}" if was["ratio"] else "", f"{row['ratio']:.2f}" if row["ratio"] else ""),
            *(f"{second / first - 1:+.0%}", _met(was), _met(row)),
        )
    return table


def _met(row: Document) -> str:
    return {True: "yes", False: "NO", None: ""}[row["met"]]


def format_progress(row: Row) -> str:
    """Return a row in one line, for progress output."""
    document = row.document()
    unit = "B" if "memory" in row.name else "s"
    limit = f", limit {format_value(document['limit']['median'], unit)}" if document["limit"] else ""
    verdict = f"  {_ratio(document)} {row.goal.text}: {'met' if row.met else 'NOT met'}" if row.goal else ""
    return f"{row.name} [{row.database}]: {format_value(document['ours']['median'], unit)}{limit}{verdict}"

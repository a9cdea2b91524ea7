"""The figures as people and programs read them: a table, JSON, a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Row

Document = Mapping[str, Any]
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def table(rows: Sequence[Document]) -> Table:
    """All rows."""
    found = Table(box=None, header_style="bold", pad_edge=False)
    found.add_column("workload", overflow="fold", max_width=58)
    found.add_column("database")
    for name in ("ours", "p95", "limit", "p95", "ratio"):
        found.add_column(name, justify="right")
    found.add_column("to reach")
    found.add_column("met")
    found.add_column("the limit", overflow="fold", max_width=48)
    for row in rows:
        found.add_row(*cells(row))
    return found


def cells(row: Document) -> list[str]:
    """A row: workload, database, median and p95 of ours and the limit's, ratio, what to reach, whether, the limit."""
    unit = "B" if str(row["goal"]).endswith("MB") or "memory" in row["name"] else "s"
    times = [
        told(each[part], unit) if each else "" for each in (row["ours"], row["limit"]) for part in ("median", "p95")
    ]
    return [row["name"], row["database"], *times, _ratio(row), row["goal"] or "", _met(row), row.get("beside", "")]


def _ratio(row: Document) -> str:
    if row["ratio"] is None:
        return ""
    return f"{row['value']:.0%}" if "%" in (row["goal"] or "") else f"{row['ratio']:.2f}x"


def told(value: float, unit: str) -> str:
    """A number with three digits and a unit that fits."""
    if unit == "B":
        return f"{value / 1e6:.0f} MB"
    scales = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
    scale, name = next((pair for pair in scales if value >= pair[0]), scales[-1])
    return f"{value / scale:.3g} {name}"


def summary(rows: Sequence[Document]) -> str:
    """How many rows are met."""
    with_goal = [row for row in rows if row["met"] is not None]
    return f"{sum(row['met'] for row in with_goal)} of {len(with_goal)} rows are met"


def show(document: Document) -> None:
    """Print everything."""
    console = Console(width=210, highlight=False)
    console.print(table(document["rows"]))
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    console.print(f"\n{machine}", soft_wrap=True)
    began, ended = document["load"]
    console.print(f"revision {document['revision']}, {document['date']}, load {began:.2f} before, {ended:.2f} after")
    if document["busy"]:
        console.print("The machine was BUSY with something else: compare ratios, and not times")
    console.print(summary(document["rows"]))


def markdown(document: Document) -> str:
    """The run as docs/performance.md has it: the machine, what is met, and all rows."""
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    began, ended = document["load"]
    busy = " **The machine was busy with something else: compare ratios, and not times.**" if document["busy"] else ""
    lines = [
        f"Revision {document['revision']}, {document['date']}, load {began:.2f} before and {ended:.2f} after.{busy}",
        f"Machine: {machine}.",
        "",
        f"**{summary(document['rows'])}**",
        "",
        "| workload | database | ours | p95 | limit | p95 | ratio | to reach | met | the limit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(cells(row))} |" for row in document["rows"])])


def write_into(text: str, document: Document) -> str:
    """A text of Markdown with the figures of this run in the place of those it has."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return f"{before}{begin}\n\n{markdown(document)}\n\n{end}{after}"


def save(document: Document, folder: Path) -> None:
    """Write `bench.json`, `bench.txt` and `bench.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    with (folder / "bench.txt").open("w") as file:
        console = Console(file=file, width=210, highlight=False)
        console.print(table(document["rows"]))
        console.print(summary(document["rows"]))
    plot(document["rows"], folder / "bench.png")


def plot(rows: Sequence[Document], path: Path) -> None:
    """How far every row is from its bound: what is left of the line is met."""
    import matplotlib as mpl  # noqa: PLC0415 - it takes long to import

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


def compare(before: Document, after: Document) -> Table:
    """What a change did: our time in that of the limit, before and after."""
    found = Table(box=None, header_style="bold", pad_edge=False)
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
        found.add_column(name, justify="left" if name in ("workload", "database") else "right")
    old = {(row["name"], row["database"]): row for row in before["rows"]}
    for row in after["rows"]:
        was = old.get((row["name"], row["database"]))
        if was is None:
            continue
        unit = "B" if "memory" in row["name"] else "s"
        first, second = (each["ratio"] or each["ours"]["median"] for each in (was, row))
        found.add_row(
            *(row["name"], row["database"], told(was["ours"]["median"], unit), told(row["ours"]["median"], unit)),
            *(f"{was['ratio']:.2f}" if was["ratio"] else "", f"{row['ratio']:.2f}" if row["ratio"] else ""),
            *(f"{second / first - 1:+.0%}", _met(was), _met(row)),
        )
    return found


def _met(row: Document) -> str:
    return {True: "yes", False: "NO", None: ""}[row["met"]]


def progress(row: Row) -> str:
    """A row in one line, as soon as it is measured."""
    document = row.document()
    unit = "B" if "memory" in row.name else "s"
    limit = f", limit {told(document['limit']['median'], unit)}" if document["limit"] else ""
    verdict = f"  {_ratio(document)} {row.goal.text}: {'met' if row.met else 'NOT met'}" if row.goal else ""
    return f"{row.name} [{row.database}]: {told(document['ours']['median'], unit)}{limit}{verdict}"

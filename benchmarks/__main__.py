"""Measure, print and store results: see docs/performance.md."""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console

from benchmarks import machine, report
from benchmarks.context import Context
from benchmarks.history import CACHE
from benchmarks.workloads import ALL

_HERE = Path(__file__).parent
_DOCUMENT = _HERE.parent / "docs" / "performance.md"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ALL), help="measure only this subject; repeatable")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds, to check that everything works"
    )
    parser.add_argument("--results", type=Path, help="output folder; default: benchmarks/results for a full run")
    parser.add_argument("--compare", type=Path, nargs=2, metavar="JSON", help="compare two earlier runs")
    options = parser.parse_args()
    if options.compare:
        before, after = (orjson.loads(path.read_bytes()) for path in options.compare)
        Console(width=190, highlight=False).print(report.compare_runs(before, after))
        return
    if machine.is_busy():
        print(f"The machine is busy (load {machine.read_load():.2f}): only ratios are meaningful", file=sys.stderr)
    document = measure_subjects(options.only or list(ALL), options.quick)
    report.print_report(document)
    is_full = not options.quick and not options.only
    report.save_report(document, options.results or (_HERE / "results" if is_full else CACHE / "results"))
    if is_full and not options.results:
        _DOCUMENT.write_text(report.write_into(_DOCUMENT.read_text(), document))


def measure_subjects(subjects: list[str], quick: bool) -> dict[str, object]:
    """Measure all rows of these subjects."""
    load_before, busy = machine.read_load(), machine.is_busy()
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yaptide-bench-")))
        # The server must run the code of this checkout, whatever is installed.
        variables = {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'client'}"} if Path("yaptide").is_dir() else {}
        context = Context(folder, quick, variables, stack)
        for subject in subjects:
            for row in ALL[subject].rows(context):
                print(report.format_progress(row), file=sys.stderr)
                rows.append(row.document())
        description = machine.describe_machine(folder)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "revision": os.environ.get("YAPTIDE_BENCH_REVISION") or machine.find_revision(),
        "quick": quick,
        "machine": description,
        "load": [load_before, machine.read_load()],
        "busy": busy,
        "rows": rows,
    }


if __name__ == "__main__":
    main()

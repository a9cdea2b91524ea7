"""Measure, print, keep: see docs/performance.md."""

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
    """Run from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ALL), help="measure this subject; can be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: to see that everything works")
    parser.add_argument("--results", type=Path, help="folder for what is kept; default: benchmarks/results for all")
    parser.add_argument("--compare", type=Path, nargs=2, metavar="JSON", help="compare two earlier runs")
    chosen = parser.parse_args()
    if chosen.compare:
        before, after = (orjson.loads(path.read_bytes()) for path in chosen.compare)
        Console(width=190, highlight=False).print(report.compare(before, after))
        return
    if machine.is_busy():
        print(f"The machine is busy (load {machine.load():.2f}): compare ratios, and not times", file=sys.stderr)
    document = measure(chosen.only or list(ALL), chosen.quick)
    report.show(document)
    whole = not chosen.quick and not chosen.only
    report.save(document, chosen.results or (_HERE / "results" if whole else CACHE / "results"))
    if whole and not chosen.results:
        _DOCUMENT.write_text(report.write_into(_DOCUMENT.read_text(), document))


def measure(subjects: list[str], quick: bool) -> dict[str, object]:
    """Every row of these subjects."""
    began, busy = machine.load(), machine.is_busy()
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yaptide-bench-")))
        # A server of the same checkout as this program, whichever is installed.
        variables = {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'client'}"} if Path("yaptide").is_dir() else {}
        context = Context(folder, quick, variables, stack)
        for subject in subjects:
            for row in ALL[subject].rows(context):
                print(report.progress(row), file=sys.stderr)
                rows.append(row.document())
        described = machine.described(folder)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "revision": os.environ.get("YAPTIDE_BENCH_REVISION") or machine.revision(),
        "quick": quick,
        "machine": described,
        "load": [began, machine.load()],
        "busy": busy,
        "rows": rows,
    }


if __name__ == "__main__":
    main()

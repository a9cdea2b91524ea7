"""The benchmarks work: a subject is measured, in a few rounds of small sizes, and what is written can be read."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.support.processes import installation

ROOT = Path(__file__).parents[2]
DEADLINE = 600.0


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks`."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=DEADLINE)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a quick run."""
    installation()
    folder = tmp_path_factory.mktemp("benchmarks")
    done = bench("--quick", "--only", "reports", "--results", folder)
    assert done.returncode == 0, done.stderr
    (folder / "out").write_text(done.stdout)
    return folder


def test_a_subject_is_measured_on_both_databases(results: Path) -> None:
    document = orjson.loads((results / "bench.json").read_bytes())
    assert document["machine"]["cores"] >= 1
    rows = document["rows"]
    assert len({(row["name"], row["database"]) for row in rows}) == len(rows)
    for said in ("POST /tasks,", "POST /tasks/list"):
        assert {row["database"] for row in rows if said in row["name"]} == {"SQLite", "PostgreSQL"}, said
    for row in rows:
        assert row["ours"]["median"] >= 0
        assert (row["goal"] is None) == (row["met"] is None)


def test_it_says_in_one_line_how_many_rows_are_met(results: Path) -> None:
    rows = orjson.loads((results / "bench.json").read_bytes())["rows"]
    met = [row["met"] for row in rows if row["met"] is not None]
    for text in (results / "out", results / "bench.txt"):
        assert text.read_text().splitlines()[-1] == f"{sum(met)} of {len(met)} rows are met"
    assert (results / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_two_runs_are_compared(results: Path) -> None:
    done = bench("--compare", results / "bench.json", results / "bench.json")
    assert done.returncode == 0, done.stderr
    assert "+0%" in done.stdout

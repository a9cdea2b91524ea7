"""Mutation testing: counts how many small bugs, inserted one at a time, a module's unit tests find (`make mutate`).

Each module is tested by its own unit tests alone, `tests/unit/FOLDER/test_MODULE.py`. Cosmic Ray inserts the bugs in a
copy of the checkout, including code that runs at import, such as conditions of queries, and decorated functions.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome

ROOT = Path(__file__).parents[2]
#: Modules for the table in docs/reliability.md. `domain/formats.py` only renames functions of the client.
GROUPS = {
    "domain": [
        *sorted(
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "yaptide/domain").glob("[!_]*.py")
            if path.name != "formats.py"
        ),
        "yaptide/platforms/batch/schedulers/slurm/options.py",
    ],
    "transitions": ["yaptide/persistence/queries/transitions.py", "yaptide/services/lifecycle.py"],
    "tasks": ["yaptide/persistence/queries/tasks.py", "yaptide/services/tasks.py"],
    "results": [f"yaptide/services/results{part}.py" for part in ("", "_storage", "_upload")],
    "sessions": ["yaptide/services/sessions.py"],
    "tokens": ["yaptide/services/tokens.py"],
}
LOWEST_SCORE = 0.85

# Every operator is replaced only by similar ones. Other replacements, such as `**` for `-`, mostly raise a TypeError,
# which any test finds, so they would only raise the score. `|` is almost always part of an annotation.
_BINARY = "Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Div|Pow_Mul|BitAnd_BitOr"
_UNARY = "USub_UAdd|Delete_Not|Delete_Invert"
_COMPARISON = "Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is"
_LEFT_OUT = [
    f"core/ReplaceBinaryOperator_(?!({_BINARY})$)",
    f"core/ReplaceUnaryOperator_(?!({_UNARY})$)",
    f"core/ReplaceComparisonOperator_(?!({_COMPARISON}|In_NotIn|NotIn_In)$)",
]
_BIN = Path(sys.executable).parent
_PYTEST = (
    "-x -q --tb=no --no-header -p no:cacheprovider -p pytest_socket -p _hypothesis_pytestplugin "
    "-p tests.support.fixtures --confcutdir=tests/unit --hypothesis-profile=mutation"
)


@dataclass(frozen=True)
class Outcome:
    """Results of a module: number of inserted bugs, bugs that its tests missed, and duration in seconds."""

    module: str
    inserted: int
    missed: Sequence[str]
    seconds: float

    @property
    def detected(self) -> int:
        """Number of bugs that the tests detected."""
        return self.inserted - len(self.missed)


def tests_of(module: str) -> str:
    """Return the file with the unit tests of a module."""
    path = Path(module).relative_to("yaptide")
    return str(Path("tests/unit", path.parent, f"test_{path.name}"))


def run_mutants(module: str) -> Outcome:
    """Insert all bugs into a module, one after the other, in a copy of the checkout.

    A bug that makes the tests take five times as long counts as detected.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(Path(folder) / "checkout")
        session = Path(folder) / "session.sqlite"
        command = f"{shlex.quote(sys.executable)} -m pytest {_PYTEST} {tests_of(module)}"
        start = time.monotonic()
        _run(copy, *shlex.split(command))
        limit = 10 + 5 * (time.monotonic() - start)
        config = Path(folder) / "config.toml"
        config.write_text(_CONFIG.format(*map(json.dumps, (module, limit, command, _LEFT_OUT))))
        _run(copy, str(_BIN / "cosmic-ray"), "init", str(config), str(session))
        _run(copy, str(_BIN / "cr-filter-operators"), str(session), str(config))
        _run(copy, str(_BIN / "cosmic-ray"), "exec", str(config), str(session))
        inserted, missed = _read(session)
    return Outcome(module, inserted, missed, time.monotonic() - begun)


_CONFIG = """
[cosmic-ray]
module-path = {}
timeout = {}
excluded-modules = []
test-command = {}
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = {}
"""


def _copied(copy: Path) -> Path:
    listed = _run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    # Compile modules with checked hashes: two bugs within a second could give files of the same age and size.
    compiled = (
        "compileall",
        "-q",
        "--invalidation-mode",
        "checked-hash",
        "yaptide",
        "tests/support",
        "tests/conftest.py",
    )
    _run(copy, sys.executable, "-m", *compiled)
    return copy


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    """Return variables that make the copy's modules, and only the required pytest plugins, importable."""
    path = os.pathsep.join((str(folder), str(folder / "client")))
    return {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _read(session: Path) -> tuple[int, list[str]]:
    inserted, missed = 0, []
    with use_db(session) as database:
        results = dict(database.results)
        for item in database.work_items:
            result = results[item.job_id]
            if result.worker_outcome is WorkerOutcome.SKIPPED:
                continue
            inserted += 1
            if result.test_outcome is not TestOutcome.KILLED:
                missed += [_described(mutation, result.diff) for mutation in item.mutations]
    return inserted, sorted(missed)


def _described(mutation: object, diff: str) -> str:
    lines = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    line, _ = mutation.start_pos
    return f"{mutation.module_path}:{line:04}: {mutation.operator_name.removeprefix('core/')}: {' '.join(lines)[:200]}"


def summarize_group(group: str, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], int, int]:
    """Return the outcomes of a group, and the numbers of inserted and of detected bugs."""
    own = [outcome for outcome in outcomes if outcome.module in GROUPS[group] and outcome.inserted]
    return own, sum(outcome.inserted for outcome in own), sum(outcome.detected for outcome in own)


def format_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines of the table in docs/reliability.md."""
    yield "| modules | bugs inserted | found by their tests | score |"
    yield "| --- | --- | --- | --- |"
    for group in GROUPS:
        own, inserted, detected = summarize_group(group, outcomes)
        if inserted:
            names = ", ".join(f"`{outcome.module.removeprefix('yaptide/')}`" for outcome in own)
            yield f"| {group}: {names} | {inserted} | {detected} | {detected / inserted:.0%} |"


def main() -> int:
    """Test all modules, or the given ones; return 1 if too many bugs were missed in a group."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="e.g. yaptide/services/tasks.py; default: all")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    # Longest first, so that the processes end at about the same time.
    every = sorted((m for group in GROUPS.values() for m in group), key=lambda m: -(ROOT / m).stat().st_size)
    for module in options.modules or every:
        if not (ROOT / tests_of(module)).is_file():
            parser.error(f"{module} has no unit tests: {tests_of(module)} is missing")
    outcomes = []
    with ThreadPoolExecutor(options.processes) as pool:
        for outcome in pool.map(run_mutants, options.modules or every):
            line = f"{outcome.module}: {outcome.detected} of {outcome.inserted} found, {outcome.seconds:.0f} s"
            sys.stdout.writelines(f"{text}\n" for text in (line, *outcome.missed))
            sys.stdout.flush()
            outcomes.append(outcome)
    sys.stdout.writelines(f"{line}\n" for line in ("", *format_table(outcomes)))
    scores = [(inserted, detected) for _, inserted, detected in (summarize_group(group, outcomes) for group in GROUPS)]
    return int(any(detected < LOWEST_SCORE * inserted for inserted, detected in scores))


if __name__ == "__main__":
    sys.exit(main())

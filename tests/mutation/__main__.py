"""Mutation testing: how many small bugs, planted one at a time, the unit tests of a module find (`make mutate`).

Each module is judged by its own unit tests alone, `tests/unit/FOLDER/test_MODULE.py`. Cosmic Ray plants the bugs, in a
copy of the checkout: also in what runs at import, such as the conditions of queries, and in decorated functions.
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
#: What is asked for in docs/reliability.md, and the modules that do it.
GROUPS = {
    "domain": [
        *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "yaptide/domain").glob("[!_]*.py")),
        "yaptide/platforms/batch/schedulers/slurm/options.py",
    ],
    "transitions": ["yaptide/persistence/queries/transitions.py", "yaptide/services/lifecycle.py"],
    "tasks": ["yaptide/persistence/queries/tasks.py", "yaptide/services/tasks.py"],
    "results": ["yaptide/services/results.py"],
    "sessions": ["yaptide/services/sessions.py"],
}
LOWEST_SCORE = 0.85

# Every operator is replaced by what it is most easily mistaken for. All the others, such as `**` for a `-`, mostly end
# in a TypeError, which any test finds: they would only raise the score. `|` stands in annotations nearly always.
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
    """How many bugs were planted in a module, those that its tests have not found, and how long it took, seconds."""

    module: str
    planted: int
    missed: Sequence[str]
    seconds: float

    @property
    def found(self) -> int:
        """How many were found."""
        return self.planted - len(self.missed)


def tests_of(module: str) -> str:
    """The file with the unit tests of a module."""
    path = Path(module).relative_to("yaptide")
    return str(Path("tests/unit", path.parent, f"test_{path.name}"))


def judge(module: str) -> Outcome:
    """Plant all bugs in a module, one after the other, in a copy of the checkout.

    Whatever takes five times as long as the tests of the unharmed module has been found.
    """
    begun = time.monotonic()
    if not (ROOT / tests_of(module)).is_file():
        raise SystemExit(f"{module} has no unit tests of its own: {tests_of(module)} is missing")
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(Path(folder) / "checkout")
        session = Path(folder) / "session.sqlite"
        command = f"{shlex.quote(sys.executable)} -m pytest {_PYTEST} {tests_of(module)}"
        unharmed = time.monotonic()
        _run(copy, *shlex.split(command))
        limit = 10 + 5 * (time.monotonic() - unharmed)
        config = Path(folder) / "config.toml"
        config.write_text(_CONFIG.format(*map(json.dumps, (module, limit, command, _LEFT_OUT))))
        _run(copy, str(_BIN / "cosmic-ray"), "init", str(config), str(session))
        _run(copy, str(_BIN / "cr-filter-operators"), str(session), str(config))
        _run(copy, str(_BIN / "cosmic-ray"), "exec", str(config), str(session))
        planted, missed = _read(session)
    return Outcome(module, planted, missed, time.monotonic() - begun)


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
    # Compiled modules that are told by their text: two bugs in one second may leave files of one age and size.
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
    """Not the checkout's modules, but those of the copy; and only the plugins of pytest that are needed."""
    path = os.pathsep.join((str(folder), str(folder / "client")))
    return {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _read(session: Path) -> tuple[int, list[str]]:
    planted, missed = 0, []
    with use_db(session) as database:
        results = dict(database.results)
        for item in database.work_items:
            result = results[item.job_id]
            if result.worker_outcome is WorkerOutcome.SKIPPED:
                continue
            planted += 1
            if result.test_outcome is not TestOutcome.KILLED:
                missed += [_described(mutation, result.diff) for mutation in item.mutations]
    return planted, sorted(missed)


def _described(mutation: object, diff: str) -> str:
    lines = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    line, _ = mutation.start_pos
    return f"{mutation.module_path}:{line:04}: {mutation.operator_name.removeprefix('core/')}: {' '.join(lines)[:200]}"


def score(group: str, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], int, int]:
    """The modules of a group that were judged, the bugs that were planted in them, and those that were found."""
    own = [outcome for outcome in outcomes if outcome.module in GROUPS[group] and outcome.planted]
    return own, sum(outcome.planted for outcome in own), sum(outcome.found for outcome in own)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The scores as docs/reliability.md has them."""
    yield "| modules | bugs planted | found by their tests | score |"
    yield "| --- | --- | --- | --- |"
    for group in GROUPS:
        own, planted, found = score(group, outcomes)
        if planted:
            names = ", ".join(f"`{outcome.module.removeprefix('yaptide/')}`" for outcome in own)
            yield f"| {group}: {names} | {planted} | {found} | {found / planted:.0%} |"


def main() -> int:
    """Judge all modules, or those that are named; 1 if too much was missed in a group."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as yaptide/services/tasks.py; default: all")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    # The longest first, so that the processes end together.
    every = sorted((m for group in GROUPS.values() for m in group), key=lambda m: -(ROOT / m).stat().st_size)
    outcomes = []
    with ThreadPoolExecutor(options.processes) as pool:
        for outcome in pool.map(judge, options.modules or every):
            told = f"{outcome.module}: {outcome.found} of {outcome.planted} found, {outcome.seconds:.0f} s"
            sys.stdout.writelines(f"{line}\n" for line in (told, *outcome.missed))
            sys.stdout.flush()
            outcomes.append(outcome)
    sys.stdout.writelines(f"{line}\n" for line in ("", *table(outcomes)))
    scores = [(planted, found) for _, planted, found in (score(group, outcomes) for group in GROUPS)]
    return int(any(found < LOWEST_SCORE * planted for planted, found in scores))


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.stress.errors`: checks merged standard errors against the scatter of many MCsquare tasks.

Tasks of a beam into water, and of one into a body with bone, lung and air, are merged in groups of 10 and of 20. Each
merged value is compared with the mean of all tasks of the other half, which replaces a long run:

    ratio     sum((x - m)^2) / sum(SE^2 + SE_m^2)                        goal: 0.9 to 1.1
    beyond    fraction of |x - m| / sqrt(SE^2 + SE_m^2) beyond the 99 % point of Student's t, with one degree of
              freedom less than the group has tasks                      goal: at most 1.5 %

in bands of the dose, relative to its maximum, over all values with an error. Their uncertainties are determined from
the scatter between groups, because the values of a group are correlated. A row with too large an uncertainty is
printed, but not judged; a row that misses the goal by less than two standard errors is unclear. `--folder` keeps the
results of tasks for the next run.

python -m tests.stress.errors                               complete: ten minutes on two processors
python -m tests.stress.errors --folder errors --tasks 800   a third, can be continued
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.processes import installation
from yaptide.domain.estimators import Page
from yaptide.domain.merging import merge_pages
from yaptide.domain.splitting import task_seeds
from yaptide.persistence import task_outputs
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.mcsquare.sample import water_sample

Doubles = NDArray[np.float64]

#: Relative to the maximum dose. Values in the lowest band are printed only, because few particles arrive there.
BANDS = ((0.0, 0.001), (0.001, 0.1), (0.1, 0.5), (0.5, 1.01))
JUDGED = BANDS[1:]
#: The 99 % point of Student's t, two-sided, by the number of tasks in a group.
CRITICAL = {10: 3.2498, 20: 2.8609}
MOST_BEYOND = 0.015
#: Maximum uncertainties of the two quantities; otherwise the row is printed, but not judged.
TELLING_RATIO, TELLING_BEYOND = 0.05, 0.0025


@dataclass(frozen=True)
class Case:
    """Input files, and primaries per task. `joined` tasks are also analysed as if they were one."""

    name: str
    files: dict[str, str]
    primaries: int
    joined: Sequence[int]


@dataclass(frozen=True)
class Row:
    """Results for a band: the fraction of values with an error, and both quantities with their uncertainties."""

    fraction: float
    ratio: float
    ratio_error: float
    beyond: float
    beyond_error: float

    @property
    def verdict(self) -> str:
        """Whether the errors are correct, if this can be determined."""
        if not self.fraction:
            return "none"
        if self.ratio_error > TELLING_RATIO or self.beyond_error > TELLING_BEYOND:
            return "too few"
        away, above = abs(self.ratio - 1) - 0.1, self.beyond - MOST_BEYOND
        if away > 2 * self.ratio_error or above > 2 * self.beyond_error:
            return "WRONG"
        return "ok" if away <= 0 and above <= 0 else "unclear"

    def __str__(self) -> str:
        """Return the numbers for a line of the table."""
        if not self.fraction:
            return f"{'0.0%':>7}"
        ratio, beyond = f"{self.ratio:.2f} ± {self.ratio_error:.2f}", f"{self.beyond:.2%} ± {self.beyond_error:.2%}"
        return f"{self.fraction:7.1%}  {ratio:11}  {beyond:13}"


def main() -> int:
    """Print the table; return 1 if anything in it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2400, help="tasks of each case")
    parser.add_argument("--folder", type=Path, help="folder that keeps results of tasks for the next run")
    options = parser.parse_args()
    verdicts = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in make_cases():
            paths = run_tasks(case, options.tasks, (options.folder or Path(temporary)) / case.name)
            for line, verdict in make_table(case, paths):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
                verdicts.append(verdict)
    return 1 if "WRONG" in verdicts else 0


def make_cases() -> tuple[Case, ...]:
    """Return spread-out Bragg peaks, which have many values in the upper bands."""
    block = water_sample()
    block["ct.txt"] = "grid 15 50 15\nspacing 8 4 8\n"
    block["plan.txt"] = _planned(block["plan.txt"], [(0, 0)])
    body = dict(block)
    body["ct.txt"] = (
        "grid 20 50 20\nspacing 6 4 6\nfill -1000\n"  # air around
        "box 12 108 40 180 12 108  0\n"
        "box 12 108 156 168 12 108  900\n"  # bone
        "box 12 60 104 132 12 108  -700\n"  # lung
    )
    body["plan.txt"] = _planned(block["plan.txt"], [(-3, -3), (3, -3), (-3, 3), (3, 3)])
    return Case("water", block, 3200, (1, 5)), Case("body", body, 3200, (1, 5))


def _planned(plan: str, spots: Sequence[tuple[int, int]]) -> str:
    """Return the plan with these spots in five layers, whose weights give a plateau of about 4 cm."""
    layers = ((100, 10), (96, 4), (92, 3), (88, 2.5), (84, 2))
    head = plan.partition("###NumberOfControlPoints")[0] + f"###NumberOfControlPoints\n{len(layers)}\n\n"
    points = "".join(
        f"#SPOTS-DESCRIPTION\n####ControlPointIndex\n{number}\n####Energy (MeV)\n{energy}\n####NbOfScannedSpots\n"
        f"{len(spots)}\n####X Y Weight\n" + "".join(f"{x} {y} {weight}\n" for x, y in spots)
        for number, (energy, weight) in enumerate(layers, 1)
    )
    return head + points


def run_tasks(case: Case, tasks: int, folder: Path) -> list[Path]:
    """Simulate the tasks that `folder` does not contain yet; return the files of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    installation()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(_simulate, case, folder), task_seeds(1, tasks)))


def _simulate(case: Case, folder: Path, seed: int) -> Path:
    path, simulator = folder / f"{seed}.npz", MCsquare()
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        simulator.prepare(case.files, case.primaries, seed, work)
        command = simulator.command(installation(), work)
        with (work / OUTPUT_LOG).open("wb") as log:
            done = subprocess.run(
                ["nice", *command.arguments],
                cwd=work,
                env={**os.environ, **command.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=600,
            )
        output = simulator.read(work, done.returncode)
    partial_path = path.with_suffix(".part")
    with partial_path.open("wb") as file:
        task_outputs.write_output(file, output)
    return partial_path.rename(path)


def make_table(case: Case, paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield lines of the table with their verdicts."""
    yield f"\n{case.name}, {len(paths)} tasks of {case.primaries} primaries", ""
    yield f"{'page':16} {'tasks x primaries':>18} {'dose, % of max.':>16} {'given':>7}  {'ratio':11}  {'beyond':13}", ""
    for ending, name in ((" grid", "grid"), ("", "depth curve")):
        doses, lets = (_values(paths, quantity + ending) for quantity in ("Dose", "LET"))
        for joined, size in itertools.product(case.joined, CRITICAL):
            long = _joined(doses, lets, joined)
            if len(long[0]) < 4 * size:
                continue
            for quantity, weighted in (("Dose", False), ("LET", True)):
                for band, row in compare_groups(*long, size, weighted=weighted):
                    verdict = row.verdict if band in JUDGED else ""
                    edges = " to ".join(f"{100 * edge:g}" for edge in band)
                    size_of_tasks = f"{size} x {joined * case.primaries}"
                    yield f"{quantity + ' ' + name:16} {size_of_tasks:>18} {edges:>16} {row}  {verdict}", verdict


def _values(paths: Sequence[Path], name: str) -> Doubles:
    """Return the values of an estimator's page in all tasks, shape (tasks, values)."""
    estimators = (next(e for e in task_outputs.read_output(path) if e.name == name) for path in paths)
    return np.array([estimator.pages[0].values for estimator in estimators], dtype=np.float64)


def _joined(doses: Doubles, lets: Doubles, joined: int) -> tuple[Doubles, Doubles]:
    """Return the results of tasks `joined` times as long."""
    shape = len(doses) // joined, joined, -1
    doses, lets = (values[: shape[0] * joined].reshape(shape) for values in (doses, lets))
    dose, weighted = doses.mean(axis=1), (doses * lets).mean(axis=1)
    return dose, np.divide(weighted, dose, out=np.zeros_like(dose), where=dose > 0)


def compare_groups(
    doses: Doubles, lets: Doubles, size: int, *, weighted: bool
) -> Iterator[tuple[tuple[float, float], Row]]:
    """Merge groups of `size` tasks, and compare LET (`weighted`) or else dose with the other half of the tasks."""
    half = len(doses) // 2
    differences, errors, weights = [], [], []
    for half_of_groups, reference_half in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        reference, its_error = _merged(doses[reference_half], lets[reference_half] if weighted else None)
        for first in range(0, len(doses[half_of_groups]) - size + 1, size):
            group = slice(first, first + size)
            mean, error = _merged(doses[half_of_groups][group], lets[half_of_groups][group] if weighted else None)
            differences.append(mean - reference)
            errors.append(np.hypot(error, its_error))
            weights.append(doses[reference_half].mean(axis=0))
    difference, error, weight = (np.array(rows) for rows in (differences, errors, weights))
    for low, high in BANDS:
        inside = (weight >= low * weight.max()) & (weight < high * weight.max()) & (weight > 0)
        yield (low, high), _row(difference, error, inside, CRITICAL[size])


def _merged(doses: Doubles, lets: Doubles | None) -> tuple[Doubles, Doubles]:
    """Return mean and standard error of tasks, as merged by yaptide."""
    pages = (
        Page(0, "page", "", (), dose if lets is None else lets[task], weights=None if lets is None else dose)
        for task, dose in enumerate(doses)
    )
    page = merge_pages(pages, [1000] * len(doses))
    assert page.errors is not None
    return page.values, page.errors


def _row(difference: Doubles, error: Doubles, inside: NDArray[np.bool_], critical: float) -> Row:
    """Return both quantities over the values of all groups (first index) that are `inside` a band."""
    has_error = inside & np.isfinite(error)
    if not has_error.any():
        return Row(0.0, np.nan, np.nan, np.nan, np.nan)
    squares, variances = (np.where(has_error, values**2, 0.0).sum(axis=1) for values in (difference, error))
    beyond = (has_error & (np.abs(difference) > critical * np.nan_to_num(error))).sum(axis=1)
    ratio, part = _quotient(squares, variances), _quotient(beyond, has_error.sum(axis=1))
    return Row(float(has_error.sum() / inside.sum()), *ratio, *part)


def _quotient(above: NDArray[Any], below: NDArray[Any]) -> tuple[float, float]:
    """Return the quotient of two sums, and its standard error from the scatter of both."""
    quotient = above.sum() / below.sum()
    return float(quotient), float(np.sqrt(((above - quotient * below) ** 2).sum()) / below.sum())


if __name__ == "__main__":
    sys.exit(main())

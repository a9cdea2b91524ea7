"""`python -m tests.stress.errors`: MCsquare, merged many times, shows whether standard errors are what they say.

Tasks of a beam into water, and of one into a body with bone, lung and air, are merged in groups of 10 and of 20. Each
merged value is compared with the mean of all tasks of the other half, which serves as the long run:

    ratio     sum((x - m)^2) / sum(SE^2 + SE_m^2)                          wanted: 0.9 to 1.1
    beyond    how many |x - m| / sqrt(SE^2 + SE_m^2) are beyond the 99 % point of Student's t with as many degrees of
              freedom as there are tasks in a group, less one              wanted: 1.5 % at most

in bands of the dose, as part of its maximum, over all values whose error is given. How far both are known shows the
scatter between groups, as the values of one group depend on each other. A row that cannot tell is printed, and not
judged; one that is outside by less than two of its standard errors is unclear. `--folder` keeps what the tasks have
left: the next run looks at it again.

python -m tests.stress.errors                               all of it: ten minutes of two processors
python -m tests.stress.errors --folder errors --tasks 800   a third of it, to be gone on with
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

#: Parts of the largest dose. Below, where hardly anything arrives, is shown only.
BANDS = ((0.0, 0.001), (0.001, 0.1), (0.1, 0.5), (0.5, 1.01))
JUDGED = BANDS[1:]
#: The 99 % point of Student's t, two-sided, by the number of tasks in a group.
CRITICAL = {10: 3.2498, 20: 2.8609}
MOST_BEYOND = 0.015
#: What the figures must be known to, or else the row is printed and not judged.
TELLING_RATIO, TELLING_BEYOND = 0.05, 0.0025


@dataclass(frozen=True)
class Case:
    """Input files, and how many primaries a task has. `joined` tasks are also looked at as if they were one."""

    name: str
    files: dict[str, str]
    primaries: int
    joined: Sequence[int]


@dataclass(frozen=True)
class Row:
    """What was found for one band: the part of values with an error, and the two figures with their uncertainties."""

    given: float
    ratio: float
    ratio_error: float
    beyond: float
    beyond_error: float

    @property
    def verdict(self) -> str:
        """Whether the errors are right, as far as that can be told."""
        if not self.given:
            return "none"
        if self.ratio_error > TELLING_RATIO or self.beyond_error > TELLING_BEYOND:
            return "too few"
        away, above = abs(self.ratio - 1) - 0.1, self.beyond - MOST_BEYOND
        if away > 2 * self.ratio_error or above > 2 * self.beyond_error:
            return "WRONG"
        return "ok" if away <= 0 and above <= 0 else "unclear"

    def __str__(self) -> str:
        """The figures of a line of the table."""
        if not self.given:
            return f"{'0.0%':>7}"
        ratio, beyond = f"{self.ratio:.2f} ± {self.ratio_error:.2f}", f"{self.beyond:.2%} ± {self.beyond_error:.2%}"
        return f"{self.given:7.1%}  {ratio:11}  {beyond:13}"


def main() -> int:
    """Print the table; 1 if anything in it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2400, help="of each case")
    parser.add_argument("--folder", type=Path, help="where outputs of tasks are kept, and found again")
    options = parser.parse_args()
    verdicts = []
    with tempfile.TemporaryDirectory() as aside:
        for case in cases():
            paths = run(case, options.tasks, (options.folder or Path(aside)) / case.name)
            for line, verdict in table(case, paths):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
                verdicts.append(verdict)
    return 1 if "WRONG" in verdicts else 0


def cases() -> tuple[Case, ...]:
    """Spread-out Bragg peaks, so that the upper bands hold many values."""
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
    """The plan with these spots in five layers, whose weights make a plateau of about 4 cm."""
    layers = ((100, 10), (96, 4), (92, 3), (88, 2.5), (84, 2))
    head = plan.partition("###NumberOfControlPoints")[0] + f"###NumberOfControlPoints\n{len(layers)}\n\n"
    points = "".join(
        f"#SPOTS-DESCRIPTION\n####ControlPointIndex\n{number}\n####Energy (MeV)\n{energy}\n####NbOfScannedSpots\n"
        f"{len(spots)}\n####X Y Weight\n" + "".join(f"{x} {y} {weight}\n" for x, y in spots)
        for number, (energy, weight) in enumerate(layers, 1)
    )
    return head + points


def run(case: Case, tasks: int, folder: Path) -> list[Path]:
    """Simulate the tasks that `folder` does not hold yet; the files of all of them."""
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
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        task_outputs.write_output(file, output)
    return aside.rename(path)


def table(case: Case, paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Lines of the table, each with its verdict."""
    yield f"\n{case.name}, {len(paths)} tasks of {case.primaries} primaries", ""
    yield f"{'page':16} {'tasks x primaries':>18} {'dose, % of max.':>16} {'given':>7}  {'ratio':11}  {'beyond':13}", ""
    for ending, name in ((" grid", "grid"), ("", "depth curve")):
        doses, lets = (_values(paths, quantity + ending) for quantity in ("Dose", "LET"))
        for joined, size in itertools.product(case.joined, CRITICAL):
            long = _joined(doses, lets, joined)
            if len(long[0]) < 4 * size:
                continue
            for quantity, weighted in (("Dose", False), ("LET", True)):
                for band, row in compare(*long, size, weighted=weighted):
                    verdict = row.verdict if band in JUDGED else ""
                    edges = " to ".join(f"{100 * edge:g}" for edge in band)
                    size_of_tasks = f"{size} x {joined * case.primaries}"
                    yield f"{quantity + ' ' + name:16} {size_of_tasks:>18} {edges:>16} {row}  {verdict}", verdict


def _values(paths: Sequence[Path], name: str) -> Doubles:
    """The values of an estimator's page in all tasks, shape (tasks, values)."""
    estimators = (next(e for e in task_outputs.read_output(path) if e.name == name) for path in paths)
    return np.array([estimator.pages[0].values for estimator in estimators], dtype=np.float64)


def _joined(doses: Doubles, lets: Doubles, joined: int) -> tuple[Doubles, Doubles]:
    """What tasks `joined` times as long would have left."""
    shape = len(doses) // joined, joined, -1
    doses, lets = (values[: shape[0] * joined].reshape(shape) for values in (doses, lets))
    dose, weighted = doses.mean(axis=1), (doses * lets).mean(axis=1)
    return dose, np.divide(weighted, dose, out=np.zeros_like(dose), where=dose > 0)


def compare(doses: Doubles, lets: Doubles, size: int, *, weighted: bool) -> Iterator[tuple[tuple[float, float], Row]]:
    """Merge groups of `size` tasks, and hold LET (`weighted`) or else dose against the other half of the tasks."""
    half = len(doses) // 2
    differences, errors, weights = [], [], []
    for here, there in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        reference, its_error = _merged(doses[there], lets[there] if weighted else None)
        for first in range(0, len(doses[here]) - size + 1, size):
            group = slice(first, first + size)
            mean, error = _merged(doses[here][group], lets[here][group] if weighted else None)
            differences.append(mean - reference)
            errors.append(np.hypot(error, its_error))
            weights.append(doses[there].mean(axis=0))
    difference, error, weight = (np.array(rows) for rows in (differences, errors, weights))
    for low, high in BANDS:
        inside = (weight >= low * weight.max()) & (weight < high * weight.max()) & (weight > 0)
        yield (low, high), _row(difference, error, inside, CRITICAL[size])


def _merged(doses: Doubles, lets: Doubles | None) -> tuple[Doubles, Doubles]:
    """Mean and standard error of tasks, as yaptide merges them."""
    pages = (
        Page(0, "page", "", (), dose if lets is None else lets[task], weights=None if lets is None else dose)
        for task, dose in enumerate(doses)
    )
    page = merge_pages(pages, [1000] * len(doses))
    assert page.errors is not None
    return page.values, page.errors


def _row(difference: Doubles, error: Doubles, inside: NDArray[np.bool_], critical: float) -> Row:
    """Both figures over the values of all groups (the first index) that are `inside` a band."""
    given = inside & np.isfinite(error)
    if not given.any():
        return Row(0.0, np.nan, np.nan, np.nan, np.nan)
    squares, variances = (np.where(given, values**2, 0.0).sum(axis=1) for values in (difference, error))
    beyond = (given & (np.abs(difference) > critical * np.nan_to_num(error))).sum(axis=1)
    ratio, part = _quotient(squares, variances), _quotient(beyond, given.sum(axis=1))
    return Row(float(given.sum() / inside.sum()), *ratio, *part)


def _quotient(above: NDArray[Any], below: NDArray[Any]) -> tuple[float, float]:
    """The sum of one by that of the other, and its standard error from the scatter of both."""
    quotient = above.sum() / below.sum()
    return float(quotient), float(np.sqrt(((above - quotient * below) ** 2).sum()) / below.sum())


if __name__ == "__main__":
    sys.exit(main())

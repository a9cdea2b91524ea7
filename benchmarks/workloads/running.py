"""From input to results: `yaptide run` compared with MCsquare alone on the same cores."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.context import Context
from benchmarks.measuring import Goal, Row, in_turns
from benchmarks.store import Store
from tests.support.processes import beam, installation
from yaptide.domain.splitting import split_primaries, task_seeds
from yaptide.simulators.mcsquare import MCsquare
from yaptide_client.files import read_folder

_TASKS = 4
_DEADLINE = 3600
_BESIDE = "MCsquare alone, as many at once as there are cores"


def rows(context: Context) -> Iterator[Row]:
    """Measure it on each database."""
    each = context.size(100_000, 500)
    source = beam(context.folder / "input", primaries=_TASKS * each, energy=150.0, grid=(40, 200, 40))
    turns = count()
    for store in context.stores():
        samples = in_turns(
            context.rounds(5, 1),
            partial(_ours, store, source),
            lambda: _alone(context.folder / f"alone-{next(turns)}", source, _TASKS * each),
            warm=0 if context.quick else 1,
        )
        name = f"yaptide run, {_TASKS} tasks of {each:,} primaries"
        yield Row(
            name, store.kind, *samples, Goal("overhead", 0.05), "MCsquare alone, as many at once as there are cores"
        )


def _ours(store: Store, source: Path) -> None:
    done = store.place.run("run", source, "--tasks", _TASKS, "--user", "bench", deadline=_DEADLINE)
    if done.code:
        raise RuntimeError(done.err)


def _alone(folder: Path, source: Path, primaries: int) -> None:
    """Run the same tasks, as many at once as there are cores."""
    code, files = MCsquare(), read_folder(source)
    installed = installation()

    def run(number: int, share: int, seed: int) -> None:
        place = folder / str(number)
        place.mkdir(parents=True)
        code.prepare(files, share, seed, place)
        command = code.command(installed, place)
        with (place / "output.log").open("wb") as log:
            subprocess.run(
                command.arguments,
                cwd=place,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=_DEADLINE,
            )

    checked = code.check(files)
    shares = split_primaries(primaries, _TASKS, checked.quantum)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, range(_TASKS), shares, task_seeds(checked.seed, _TASKS)))

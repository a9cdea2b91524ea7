"""TOPAS: its sources with their numbers of histories, and the seed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from yaptide.domain.errors import InvalidInput
from yaptide.domain.estimators import TaskOutput
from yaptide.editor.project import Project
from yaptide.simulators.base import OUTPUT_LOG, Checked, Command, Converted, InputFiles, Installation, ProgressRule
from yaptide.simulators.licensed import LicensedProgram, Written, read_task, write_task
from yaptide.simulators.outputs import output_of_quantity
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import BASE64, filled_lines
from yaptide.simulators.topas.conversion import convert_project
from yaptide.simulators.topas.output_names import check_output_names
from yaptide.simulators.topas.parameters import LONGEST_NAME, Chain, read_chain
from yaptide.simulators.topas.sample import SAMPLE

_OURS = re.compile(r"(?:[a-z]+:)?(?:ts|so)/\S+", re.IGNORECASE)
_TASK = "yaptide_task.txt"
_END = r"^TOPAS run sequence complete"
_NO_RESULTS = 'no results could be read: add a scorer, Sc/<scorer>/Quantity, with OutputType = "csv"'
#: Parameters that would let TOPAS wait for a key.
_PAUSES = ("Ts/PauseBeforeInit", "Ts/PauseBeforeSequence", "Ts/PauseBeforeQuit")
_SCORER = re.compile(r"sc/([^/]+)/quantity")
_SOURCE = re.compile(r"so/([^/]+)/(?:type|numberofhistoriesinrun|numberofhistoriesinrandomjob)")
_TIMES = "tf/numberofsequentialtimes"
_RANDOM_TIMES = "tf/randomizetimedistribution"
_SEED = "ts/seed"
_TRUE = {'"true"', '"t"', '"1"'}


class Topas(LicensedProgram):
    """TOPAS (OpenTOPAS), installed by the site: the program is `topas`, with its data sets.

    A task is a parameter file that includes the user's, and sets histories, seed and threads.
    `yaptide.simulators.base.Simulator` describes the methods.
    """

    name = "topas"
    title = "TOPAS"
    progress_rule: ProgressRule | None = ProgressRule(OUTPUT_LOG, 8192, r"History:[ \t]*(\d+)", _END, counted=True)
    expected_range = 157.7  # mm: CSDA range of 150 MeV protons in water (PSTAR)

    def recognises(self, files: InputFiles) -> bool:
        """Return whether a text file sets a parameter of the simulation (Ts/) or of a source (So/)."""
        return any(
            _OURS.match(line.words[0])
            for name, text in files.items()
            if not name.endswith(BASE64)
            for line in filled_lines(name, text)
        )

    def check(self, files: InputFiles) -> Checked:
        """Check the primaries of all sources, over all times, and the seed (Ts/Seed); raise InvalidInput."""
        chain = read_chain(files)
        if _TASK in files:
            raise InvalidInput(f"{_TASK} is the name of the parameter file of every task: give the file another name")
        check_output_names(chain)
        times, what = _count_times(chain)
        histories = _count_all_histories(chain, what)
        primaries = times * sum(histories.values())
        if not 1 <= primaries <= MOST_PRIMARIES:
            raise _explain(
                chain,
                f"so/{min(histories)}/{what.lower()}",
                f"all sources together must have 1 to {MOST_PRIMARIES} primaries, not {primaries}",
            )
        why = "" if _may_write_tables(chain) else f"{chain.job}: {_NO_RESULTS}"
        return Checked(primaries, quantum=times, seed=_find_seed(chain) or draw_seed(), no_results=why)

    def output_of(self, file_name: str, outputs: Sequence[str]) -> int | None:
        """Match by name; the file of a later quantity is called like output, number and quantity."""
        return output_of_quantity(file_name, outputs)

    def convert(self, project: Project) -> Converted:
        """Convert a project of the web editor; raise InvalidInput for what cannot be simulated."""
        return convert_project(project)

    def sample(self) -> InputFiles:
        """Return 150 MeV protons in water."""
        return SAMPLE

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write the files, and the parameter file of the task."""
        chain = read_chain(files)
        times, what = _count_times(chain)
        shares = share_histories(_count_all_histories(chain, what), primaries // times)
        integers = {f"So/{source}/{what}": share for source, share in shares.items()}
        integers |= {"Ts/Seed": seed, "Ts/NumberOfThreads": 1}
        integers |= {"Ts/ShowHistoryCountAtInterval": max(1, primaries // times // 100)}
        lines = [f"includeFile = {chain.job}"]
        lines += [f"{_typed(chain, name, 'i')} = {value}" for name, value in integers.items()]
        lines += [f'{_typed(chain, name, "b")} = "False"' for name in _PAUSES]
        outputs = _scorer_files(chain)
        written = [f"{name}.*" for name in outputs]
        write_task({**files, _TASK: "\n".join(lines) + "\n"}, primaries, outputs, folder, written)

    def command(self, installation: Installation, folder: Path) -> Command:
        """Return the program and the parameter file of the task."""
        self.require_reader()
        return Command((str(installation.program), _TASK), {})

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Return an estimator for each table, named like its file; raise SimulationFailed."""
        self.require_end(folder, exit_code, (OUTPUT_LOG,), _END)
        task = read_task(folder)
        paths = [path for path in sorted(folder.rglob("*.csv")) if path.name not in task.inputs]
        written = [Written(path.stem, path.stem, path) for path in paths]
        self.require_outputs(task.outputs, written)
        return self.read_files(written, folder, task.primaries)


def share_histories(histories: Mapping[str, int], total: int) -> dict[str, int]:
    """Return `total` histories split over sources in the proportions of `histories`, by the largest remainders."""
    whole = sum(histories.values())
    shares = {source: total * count // whole for source, count in histories.items()}
    by_remainder = sorted(histories, key=lambda source: (-(total * histories[source] % whole), source))
    for source in by_remainder[: total - sum(shares.values())]:
        shares[source] += 1
    return shares


def _count_all_histories(chain: Chain, what: str) -> dict[str, int]:
    """Return the histories at one time by source, which has its name as written; raise InvalidInput."""
    sources = sorted({match[1] for name in chain.names() if (match := _SOURCE.fullmatch(name))})
    if not sources:
        raise InvalidInput(f"{chain.job}: no source has a number of primaries: i:So/<source>/{what} is missing")
    return {source: _count_histories(chain, source, what) for source in sources}


def _typed(chain: Chain, name: str, kind: str) -> str:
    """Return a parameter with the type that the files give it: TOPAS does not accept another one."""
    parameter = chain.find(name.lower())
    written = parameter.line.words[0].partition(":")[0] if parameter and ":" in parameter.line.words[0] else kind
    return f"{written}:{parameter.name if parameter and len(parameter.name) < LONGEST_NAME else name}"


def _scorer_files(chain: Chain) -> list[str]:
    """Return the names, without ending, of the tables that scorers certainly write."""
    names = []
    for key in sorted(chain.names()):
        match = _SCORER.fullmatch(key)
        parameter = chain.find(key)
        if not match or parameter is None or parameter.value.lower().strip('"') == "phasespace":
            continue
        own = {part: _literal(chain, f"sc/{match[1]}/{part}") for part in ("outputtype", "outputfile", "active")}
        file_name = parameter.name.split("/")[1] if own["outputfile"] is None else own["outputfile"]
        if own["active"] is None and own["outputtype"] in {None, "csv"} and file_name:
            names.append(file_name)
    return names


def _may_write_tables(chain: Chain) -> bool:
    """Return whether there is a scorer that does not certainly write something else than a table."""
    for match in filter(None, map(_SCORER.fullmatch, chain.names())):
        kind = _literal(chain, f"sc/{match[1]}/outputtype")
        if (_literal(chain, match[0]) or "").lower() != "phasespace" and (kind is None or kind.lower() in {"", "csv"}):
            return True
    return False


def _literal(chain: Chain, name: str) -> str | None:
    """Return a string parameter; None if there is none, empty if it refers to others."""
    parameter = chain.find(name)
    if parameter is None:
        return None
    match = re.fullmatch(r'"([^"]*)"', parameter.value.strip())
    return match[1] if match else ""


def _count_times(chain: Chain) -> tuple[int, str]:
    """Return how often the sources run, and which parameter has their histories."""
    random_times = chain.find(_RANDOM_TIMES)
    if random_times and random_times.value.lower() in _TRUE:
        return 1, "NumberOfHistoriesInRandomJob"
    times = chain.integer(_TIMES)
    if times is None or not 1 <= times <= MOST_PRIMARIES:
        raise _explain(chain, _TIMES, f"Tf/NumberOfSequentialTimes must be 1 or more, not {times}")
    return times, "NumberOfHistoriesInRun"


def _count_histories(chain: Chain, source: str, what: str) -> int:
    """Return the histories of a source at one time; raise InvalidInput if they are not in the files."""
    name = f"so/{source}/{what.lower()}"
    histories = chain.integer(name)
    if histories is None:
        raise _explain(
            chain,
            f"so/{source}/type",
            f"the source has no number of primaries, which yaptide must know: add i:So/{source[:80]}/{what} = number",
        )
    if histories < 0:
        raise _explain(chain, name, f"{what} must be 0 or more, not {histories}")
    return histories


def _find_seed(chain: Chain) -> int:
    """Return the seed; 0 if there is none."""
    seed = chain.integer(_SEED) if chain.find(_SEED) else 0
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise _explain(chain, _SEED, f"Ts/Seed must be between 0 and {LARGEST_SEED}, not {seed}")
    return seed


def _explain(chain: Chain, name: str, why: str) -> InvalidInput:
    """Return an error about a parameter, at the line that sets it."""
    parameter = chain.find(name)
    return parameter.line.make_error(why) if parameter else InvalidInput(f"{chain.job}: {why}")

"""TOPAS: its sources with their numbers of histories, and the seed."""

import re

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Project
from yaptide.simulators.base import Checked, Converted, InputFiles
from yaptide.simulators.external import External
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import BASE64, filled_lines
from yaptide.simulators.topas.conversion import convert_project
from yaptide.simulators.topas.parameters import Chain, read_chain

_OURS = re.compile(r"(?:[a-z]+:)?(?:ts|so)/\S+", re.IGNORECASE)
_SOURCE = re.compile(r"so/([^/]+)/(?:type|numberofhistoriesinrun|numberofhistoriesinrandomjob)")
_TIMES = "tf/numberofsequentialtimes"
_RANDOM_TIMES = "tf/randomizetimedistribution"
_SEED = "ts/seed"
_TRUE = {'"true"', '"t"', '"1"'}


class Topas(External):
    """TOPAS, run by external workers."""

    name = "topas"
    title = "TOPAS"

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
        times, what = _count_times(chain)
        sources = sorted({match[1] for name in chain.names() if (match := _SOURCE.fullmatch(name))})
        if not sources:
            raise InvalidInput(f"{chain.job}: no source has a number of primaries: i:So/<source>/{what} is missing")
        primaries = times * sum(_count_histories(chain, source, what) for source in sources)
        if not 1 <= primaries <= MOST_PRIMARIES:
            raise _explain(
                chain,
                f"so/{sources[0]}/{what.lower()}",
                f"all sources together must have 1 to {MOST_PRIMARIES} primaries, not {primaries}",
            )
        return Checked(primaries, quantum=times, seed=_find_seed(chain) or draw_seed())

    def convert(self, project: Project) -> Converted:
        """Convert a project of the web editor; raise InvalidInput for what cannot be simulated."""
        return convert_project(project)


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

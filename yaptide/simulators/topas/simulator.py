"""TOPAS: parameter files, ``type:Group/Name = value``, with comments after ``#``."""

import re
from collections.abc import Iterator

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked, InputFiles
from yaptide.simulators.external import External
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import Line, filled_lines

_ENDING = ".txt"
_OURS = re.compile(r"(?:[a-z]+:)?(?:ts|so)/\S+", re.IGNORECASE)
_HISTORIES = re.compile(r"so/[^/]+/numberofhistoriesinrun")


class Topas(External):
    """TOPAS, run by external workers."""

    name = "topas"
    title = "TOPAS"

    def recognises(self, files: InputFiles) -> bool:
        """Return whether a .txt file sets a parameter of the simulation (Ts/) or of a source (So/)."""
        return any(
            _OURS.match(line.words[0])
            for name, text in files.items()
            if name.endswith(_ENDING)
            for line in filled_lines(name, text)
        )

    def check(self, files: InputFiles) -> Checked:
        """Check the primaries of all sources (NumberOfHistoriesInRun) and the seed (Ts/Seed); raise InvalidInput."""
        parameters = dict(_parameters(files))
        histories = [parameter for name, parameter in parameters.items() if _HISTORIES.fullmatch(name)]
        if not histories:
            raise InvalidInput("No source has a number of primaries: i:So/<source>/NumberOfHistoriesInRun is missing")
        primaries = sum(line.parse_integer(1, line.words[0], 0, MOST_PRIMARIES) for line in histories)
        if not 1 <= primaries <= MOST_PRIMARIES:
            raise histories[0].make_error(
                f"all sources together must have 1 to {MOST_PRIMARIES} primaries, not {primaries}"
            )
        seed = parameters["ts/seed"].parse_integer(1, "Ts/Seed", 0, LARGEST_SEED) if "ts/seed" in parameters else 0
        return Checked(primaries, quantum=1, seed=seed or draw_seed())


def _parameters(files: InputFiles) -> Iterator[tuple[str, Line]]:
    """Yield parameter names in lower case without their type, each with a line of (name, value)."""
    for file, text in files.items():
        for line in filled_lines(file, text) if file.endswith(_ENDING) else ():
            name, equals, value = " ".join(line.words).partition("=")
            if equals:
                name = name.strip().rpartition(":")[2]
                yield name.lower(), Line(file, line.number, (name, *value.split()))

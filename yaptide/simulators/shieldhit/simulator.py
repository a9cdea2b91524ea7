"""SHIELD-HIT12A: transport of ions, with four input files; ``beam.dat`` has a keyword and its values in each line."""

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked, InputFiles
from yaptide.simulators.external import External, require_files
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, drawn_seed
from yaptide.simulators.text import filled_lines

_BEAM = "beam.dat"
_FILES = (_BEAM, "mat.dat", "geo.dat", "detect.dat")


class ShieldHit(External):
    """SHIELD-HIT12A, run elsewhere."""

    name = "shieldhit"
    title = "SHIELD-HIT12A"

    def recognises(self, files: InputFiles) -> bool:
        """Whether there is a beam.dat."""
        return _BEAM in files

    def check(self, files: InputFiles) -> Checked:
        """All four files, and in beam.dat the primaries (NSTAT) and the seed (RNDSEED); raises InvalidInput."""
        require_files(files, _FILES, self.title)
        keywords = {line.words[0].upper(): line for line in filled_lines(_BEAM, files[_BEAM], comment="!#*")}
        if "NSTAT" not in keywords:
            raise InvalidInput(f"{_BEAM}: the number of primaries, NSTAT, is missing")
        primaries = keywords["NSTAT"].integer(1, "NSTAT", 1, MOST_PRIMARIES)
        seed = keywords["RNDSEED"].integer(1, "RNDSEED", 0, LARGEST_SEED) if "RNDSEED" in keywords else 0
        return Checked(primaries, quantum=1, seed=seed or drawn_seed())

"""SHIELD-HIT12A: ion transport, with four input files; lines of ``beam.dat`` are a keyword and its values."""

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import Checked, InputFiles
from yaptide.simulators.external import External, require_files
from yaptide.simulators.runs import LARGEST_SEED, MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import filled_lines

_BEAM = "beam.dat"
_FILES = (_BEAM, "mat.dat", "geo.dat", "detect.dat")


class ShieldHit(External):
    """SHIELD-HIT12A, run by external workers."""

    name = "shieldhit"
    title = "SHIELD-HIT12A"

    def recognises(self, files: InputFiles) -> bool:
        """Return whether there is a beam.dat."""
        return _BEAM in files

    def check(self, files: InputFiles) -> Checked:
        """Check the four files, and the primaries (NSTAT) and seed (RNDSEED) in beam.dat; raise InvalidInput."""
        require_files(files, _FILES, self.title)
        keywords = {line.words[0].upper(): line for line in filled_lines(_BEAM, files[_BEAM], comment="!#*")}
        if "NSTAT" not in keywords:
            raise InvalidInput(f"{_BEAM}: the number of primaries, NSTAT, is missing")
        primaries = keywords["NSTAT"].parse_integer(1, "NSTAT", 1, MOST_PRIMARIES)
        seed = keywords["RNDSEED"].parse_integer(1, "RNDSEED", 0, LARGEST_SEED) if "RNDSEED" in keywords else 0
        return Checked(primaries, quantum=1, seed=seed or draw_seed())

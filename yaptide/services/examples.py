"""The example that comes with yaptide."""

from pathlib import Path

from yaptide.services.simulations import Submission
from yaptide.simulators import COMMON
from yaptide_client.files import read_folder

#: Folder of input files: a proton beam of 150 MeV in water.
EXAMPLE = Path(__file__).parents[1] / "examples" / "proton-150MeV-water"


def example_submission() -> Submission:
    """Return the example, to be submitted."""
    return Submission(COMMON, None, EXAMPLE.name, read_folder(EXAMPLE))

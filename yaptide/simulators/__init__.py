"""The Monte Carlo codes that yaptide knows, by name."""

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.base import InputFiles, Simulator
from yaptide.simulators.fluka import Fluka
from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.shieldhit import ShieldHit
from yaptide.simulators.topas import Topas

_KNOWN: tuple[Simulator, ...] = (MCsquare(), ShieldHit(), Fluka(), Topas())

#: Every simulator by its `sim_type`, in the order in which they are asked whether they recognise an input.
SIMULATORS: dict[str, Simulator] = {known.name: known for known in _KNOWN}

#: `sim_type` of input files whose simulator the sender does not know.
COMMON = "common"


def simulator(name: str) -> Simulator:
    """The simulator called `name`; raises InvalidInput, with the names there are, for an unknown one."""
    if name not in SIMULATORS:
        raise InvalidInput(f"There is no simulator {name[:40]!r}: choose one of {', '.join(SIMULATORS)}")
    return SIMULATORS[name]


def resolve(name: str, files: InputFiles) -> Simulator:
    """As `simulator`, but ``common`` stands for the one that recognises `files`; raises InvalidInput if none does."""
    if name != COMMON:
        return simulator(name)
    for known in SIMULATORS.values():
        if known.recognises(files):
            return known
    titles = ", ".join(known.title for known in SIMULATORS.values())
    raise InvalidInput(f"These files look like the input of none of {titles}")

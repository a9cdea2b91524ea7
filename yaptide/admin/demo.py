"""`yaptide demo`: the whole system on one example, in a minute."""

from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import say
from yaptide.admin.opening import local_user, opened
from yaptide.admin.simulations import draw, executing, follow, print_summary
from yaptide.client.files import read_folder
from yaptide.domain.states import EntityState
from yaptide.services import simulations
from yaptide.services.simulations import Submission
from yaptide.simulators import simulator

app = typer.Typer()

_SIMULATOR = "mcsquare"


@app.command()
def demo(
    path: Annotated[Path, typer.Argument(help="Folder of input files.")] = Path("examples/proton-150MeV-water"),
    png: Annotated[Path, typer.Option(help="Where to draw the dose.")] = Path("demo.png"),
) -> None:
    """Install MCsquare if it is missing, and simulate a proton beam in water as 4 tasks.

    Example: yaptide demo
    """
    at = opened()
    simulator(_SIMULATOR).install(at.settings.simulators_dir, say)
    submission = Submission(_SIMULATOR, 4, path.resolve().name, read_folder(path))
    with executing(at, _SIMULATOR) as backend:
        job_id = simulations.submit(backend, local_user(backend, ""), submission).job_id
        status = follow(backend, job_id)
    print_summary(backend, job_id)
    if status.simulation.job_state is not EntityState.COMPLETED:
        raise typer.Exit(1)
    draw(backend, job_id, png)

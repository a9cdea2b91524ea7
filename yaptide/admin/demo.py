"""`yaptide demo`: the whole system on one example, in a minute."""

from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import say
from yaptide.admin.opening import opened
from yaptide.admin.simulations import draw, print_summary, run_to_the_end
from yaptide.client.files import read_folder
from yaptide.domain.states import EntityState
from yaptide.services.simulations import Submission
from yaptide.simulators import COMMON, resolve

app = typer.Typer()


@app.command()
def demo(
    path: Annotated[Path, typer.Argument(help="Folder of input files.")] = Path("examples/proton-150MeV-water"),
    png: Annotated[Path, typer.Option(help="Where to draw the dose.")] = Path("demo.png"),
) -> None:
    """Install the simulator of the example, if it is missing, and simulate a proton beam in water as 4 tasks.

    Example: yaptide demo
    """
    at = opened()
    files = read_folder(path)
    code = resolve(COMMON, files)
    code.install(at.settings.simulators_dir, say)
    submission = Submission(code.name, 4, path.resolve().name, files)
    job_id, status = run_to_the_end(at, submission, "")
    print_summary(at.backend, job_id)
    if status.simulation.job_state is not EntityState.COMPLETED:
        raise typer.Exit(1)
    draw(at.backend, job_id, png)

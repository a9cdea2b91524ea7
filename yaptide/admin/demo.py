"""`yaptide demo`: the whole system on one example, in a minute; `yaptide example` gives its input files."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import print_message
from yaptide.admin.simulations import draw_results, print_summary, run_to_the_end
from yaptide.admin.store import open_store
from yaptide.domain.errors import Conflict, NotConfigured
from yaptide.domain.states import EntityState
from yaptide.services.simulations import Submission
from yaptide.simulators import COMMON, resolve_simulator
from yaptide_client.files import read_folder

app = typer.Typer()

#: A proton beam in water.
EXAMPLE = Path(__file__).parents[1] / "examples" / "proton-150MeV-water"


@app.command("demo")
def run_demo(
    path: Annotated[
        Path | None, typer.Argument(help="Folder of input files; default: the example.", show_default=False)
    ] = None,
    png: Annotated[Path, typer.Option(help="Where to draw the dose.")] = Path("demo.png"),
) -> None:
    """Install the simulator of the example, if it is missing, and simulate a proton beam in water as 4 tasks.

    Example: yaptide demo
    """
    at = open_store()
    folder = path or EXAMPLE
    files = read_folder(folder)
    code = resolve_simulator(COMMON, files)
    code.install(at.settings.simulators_dir, print_message)
    submission = Submission(code.name, 4, folder.resolve().name, files)
    job_id, status = run_to_the_end(at, submission, "")
    print_summary(at.backend, job_id)
    if status.simulation.job_state is not EntityState.COMPLETED:
        raise typer.Exit(1)
    try:
        draw_results(at.backend, job_id, png)
    except NotConfigured as missing:
        print_message(f"No picture: {missing}")


@app.command("example")
def write_example(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")] = Path(EXAMPLE.name),
) -> None:
    """Write the input files of an example into a new folder: a proton beam of 150 MeV in water.

    Example: yaptide example proton-150MeV-water
    """
    try:
        shutil.copytree(EXAMPLE, folder, copy_function=shutil.copyfile)
    except FileExistsError:
        raise Conflict(f"{folder} is there already; choose another name") from None
    print_message(f"Run it with: yaptide run {folder}")

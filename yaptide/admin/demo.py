"""`yaptide demo` runs an example end to end in a minute; `yaptide example` writes its input files."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import print_message
from yaptide.admin.local import LocalTarget
from yaptide.admin.simulations import draw_results, print_summary, run_to_end
from yaptide.admin.store import open_store
from yaptide.admin.targets import Request
from yaptide.domain.errors import Conflict, NotConfigured
from yaptide.domain.states import EntityState
from yaptide.services.examples import EXAMPLE
from yaptide.simulators import COMMON, resolve_simulator
from yaptide_client.files import read_folder

app = typer.Typer()


@app.command("demo")
def run_demo(
    path: Annotated[
        Path | None, typer.Argument(help="Folder of input files; default: the example.", show_default=False)
    ] = None,
    png: Annotated[Path, typer.Option(help="Output file for the plot of the dose.")] = Path("demo.png"),
) -> None:
    """Simulate a proton beam in water as 4 tasks. Installs the simulator if it is missing.

    Example: yaptide demo
    """
    store = open_store()
    folder = path or EXAMPLE
    files = read_folder(folder)
    code = resolve_simulator(COMMON, files)
    code.install(store.settings.simulators_dir, print_message)
    target = LocalTarget(store)
    job_id, state = run_to_end(target, Request(folder, 4, code.name))
    print_summary(target, job_id)
    if state != EntityState.COMPLETED:
        raise typer.Exit(1)
    try:
        draw_results(target, job_id, png)
    except NotConfigured as missing:
        print_message(f"No plot: {missing}")


@app.command("example")
def write_example(
    folder: Annotated[Path, typer.Argument(help="Folder to create.")] = Path(EXAMPLE.name),
) -> None:
    """Write example input files into a new folder: a 150 MeV proton beam in water.

    Example: yaptide example proton-150MeV-water
    """
    try:
        shutil.copytree(EXAMPLE, folder, copy_function=shutil.copyfile)
    except FileExistsError:
        raise Conflict(f"{folder} exists already: choose another name") from None
    print_message(f"Run it with: yaptide run {folder}")

"""`yaptide simulators`: which Monte Carlo codes are installed, and installing them."""

from typing import Annotated

import typer

from yaptide.admin.display import print_json, print_table, say
from yaptide.domain.errors import NotConfigured
from yaptide.settings import load
from yaptide.simulators import known_simulators, simulator

app = typer.Typer(help="Install simulators, and see which there are.", no_args_is_help=True)


@app.command("list")
def listing(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the simulators, with the version of those installed here.

    Example: yaptide simulators list
    """
    folder = load().simulators_dir
    found = []
    for known in known_simulators():
        entry: dict[str, str | None] = {"name": known.name, "title": known.title, "version": None, "program": None}
        try:
            installation = known.installation(folder)
            entry |= {"version": installation.version, "program": str(installation.program), "note": None}
        except NotConfigured as error:
            entry["note"] = str(error)
        found.append(entry)
    if as_json:
        print_json({"simulators": found})
    else:
        rows = [(entry["name"], entry["title"], entry["version"] or "-", entry["note"]) for entry in found]
        print_table(("name", "simulator", "version", "note"), rows)


@app.command()
def install(name: Annotated[str, typer.Argument(help="Its name, such as mcsquare.")]) -> None:
    """Fetch a simulator and prove it by a run. One that is installed and works is kept.

    Example: yaptide simulators install mcsquare
    """
    installation = simulator(name).install(load().simulators_dir, say)
    say(f"{simulator(name).title} {installation.version}: {installation.program}")

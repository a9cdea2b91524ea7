"""`yaptide simulators`: which Monte Carlo codes are installed on this machine, installing them, pointing to them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import print_facts, print_json, print_message, print_table
from yaptide.domain.errors import YaptideError
from yaptide.settings import load_settings
from yaptide.simulators import get_simulator, list_names
from yaptide.simulators.base import Simulator

app = typer.Typer(help="Install simulators, point to them, and see which there are.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="CODE", help="Its name, such as mcsquare.")]


@app.command("list")
def list_simulators(as_json: AsJson = False) -> None:
    """List the simulators, with the version of those installed here.

    Example: yaptide simulators list
    """
    found = [_entry(name) for name in list_names()]
    if as_json:
        print_json({"simulators": found})
    else:
        rows = [(entry["name"], entry["title"], entry["version"] or "-", entry["note"]) for entry in found]
        print_table(("name", "simulator", "version", "note"), rows)


def _entry(name: str) -> dict[str, Any]:
    """What is known of a simulator on this machine; one that is broken says so, and hides no other."""
    entry: dict[str, Any] = dict.fromkeys(("title", "version", "program", "digest", "note"))
    try:
        code = get_simulator(name)
        entry["title"] = code.title
        found = code.installation(load_settings().simulators_dir)
        entry |= {"version": found.version, "program": str(found.program), "digest": found.digest}
    except YaptideError as error:
        entry["note"] = str(error)
    return {"name": name, **entry}


@app.command("show")
def show_simulator(name: Name, as_json: AsJson = False) -> None:
    """Show what a simulator takes and can do, and where its program is on this machine.

    Example: yaptide simulators show mcsquare
    """
    code = get_simulator(name)
    found = {**_entry(name), **_abilities(code)}
    if as_json:
        print_json(found)
        return
    facts = {key: ", ".join(value) if isinstance(value, list) else value for key, value in found.items()}
    print_facts({key: value for key, value in facts.items() if value not in (None, "")}, code.title)


def _abilities(code: Simulator) -> dict[str, Any]:
    return {
        "projects": code.takes_projects,
        "clusters": code.progress_rule is not None,
        "particles": list(code.limits.particles),
        "quantities": list(code.limits.quantities),
    }


@app.command("install")
def install_simulator(name: Name) -> None:
    """Fetch a simulator and prove it by a run. One that is installed and works is kept.

    Example: yaptide simulators install mcsquare
    """
    installation = get_simulator(name).install(load_settings().simulators_dir, print_message)
    print_message(f"{get_simulator(name).title} {installation.version}: {installation.program}")


@app.command("add")
def add_simulator(
    name: Name,
    program: Annotated[Path, typer.Option(help="Where the program is on this machine.", show_default=False)],
) -> None:
    """Point to a program of your own: it has to run a sample whose result is known, and is used from then on.

    Its version and digest are kept: if the program is changed, it is not used until it is added again.

    Example: yaptide simulators add mcsquare --program /opt/mcsquare/MCsquare
    """
    installation = get_simulator(name).add(load_settings().simulators_dir, program, print_message)
    print_message(f"{get_simulator(name).title} {installation.version}: {installation.program}")

"""`yaptide simulators`: list, install and add the Monte Carlo codes of this machine."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import print_facts, print_json, print_message, print_table
from yaptide.domain.errors import InvalidInput, YaptideError
from yaptide.settings import load_settings
from yaptide.simulators import get_simulator, list_names
from yaptide.simulators.base import Simulator
from yaptide.simulators.programs import RangedProgram

app = typer.Typer(help="List, install and add simulators.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="CODE", help="Name of the simulator, e.g. mcsquare.")]


@app.command("list")
def list_simulators(as_json: AsJson = False) -> None:
    """List the simulators, with the versions installed on this machine.

    Example: yaptide simulators list
    """
    entries = [_entry(name) for name in list_names()]
    if as_json:
        print_json({"simulators": entries})
    else:
        rows = [(entry["name"], entry["title"], entry["version"] or "-", entry["note"]) for entry in entries]
        print_table(("name", "simulator", "version", "note"), rows)


def _entry(name: str) -> dict[str, Any]:
    """Return what is known of a simulator on this machine; a broken one does not hide the others."""
    entry: dict[str, Any] = dict.fromkeys(("title", "version", "program", "digest", "note"))
    try:
        code = get_simulator(name)
        entry["title"] = code.title
        installation = code.installation(load_settings().simulators_dir)
        entry |= {"version": installation.version, "program": str(installation.program), "digest": installation.digest}
    except YaptideError as error:
        entry["note"] = str(error)
    return {"name": name, **entry}


@app.command("show")
def show_simulator(name: Name, as_json: AsJson = False) -> None:
    """Show what a simulator supports, and where its program is on this machine.

    Example: yaptide simulators show mcsquare
    """
    code = get_simulator(name)
    document = {**_entry(name), **_abilities(code)}
    if as_json:
        print_json(document)
        return
    facts = {key: ", ".join(value) if isinstance(value, list) else value for key, value in document.items()}
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
    """Download and install a simulator, and run it to verify that it works. A working installation is kept.

    Example: yaptide simulators install mcsquare
    """
    installation = get_simulator(name).install(load_settings().simulators_dir, print_message)
    print_message(f"{get_simulator(name).title} {installation.version}: {installation.program}")


@app.command("add")
def add_simulator(
    name: Name,
    program: Annotated[Path, typer.Option(help="Path of the program on this machine.", show_default=False)],
) -> None:
    """Use a program of your own. It must pass a test run with a known result, and is used from then on.

    Its version and digest are stored: after a change of the program, it is not used until it is added again.

    Example: yaptide simulators add mcsquare --program /opt/mcsquare/MCsquare
    """
    installation = get_simulator(name).add(load_settings().simulators_dir, program, print_message)
    print_message(f"{get_simulator(name).title} {installation.version}: {installation.program}")


@app.command("test")
def compare_range(name: Name, as_json: AsJson = False) -> None:
    """Run the sample of a simulator with the program of this machine, and compare the range with the known one.

    The sample is a beam of 150 MeV protons in water. The exit code is 1 if the range differs.

    Example: yaptide simulators test fluka
    """
    code = get_simulator(name)
    if not isinstance(code, RangedProgram):
        raise InvalidInput(f"{code.title} has no sample whose range is known")
    installation = code.installation(load_settings().simulators_dir)
    begun = time.monotonic()
    measured = code.measure_range(code.run_sample(installation))
    document = {
        "name": code.name,
        "version": installation.version,
        "program": str(installation.program),
        "digest": installation.digest,
        "ok": abs(measured - code.expected_range) <= code.tolerance,
        "range_mm": round(measured, 3),
        "expected_mm": code.expected_range,
        "tolerance_mm": code.tolerance,
        "seconds": round(time.monotonic() - begun, 1),
    }
    if as_json:
        print_json(document)
    else:
        print_facts(document, f"{code.title}: 150 MeV protons in water")
    if not document["ok"]:
        raise typer.Exit(1)

"""The `yaptide` command: assembles the groups of commands."""

from typing import Annotated

import typer

from yaptide import __version__
from yaptide.admin import (
    administration,
    adopt,
    backups,
    clusters,
    convert,
    database,
    demo,
    doctor,
    integrity,
    keys,
    logins,
    retention,
    secrets,
    serving,
    simulations,
    simulators,
    stats,
    tokens,
    users,
)
from yaptide.admin.display import out
from yaptide.admin.entry import new_app, run_command

app = new_app(
    "yaptide",
    "Run particle-therapy Monte Carlo simulations as parallel tasks and store everything about them.\n\n"
    "Example: yaptide demo",
)
for group in (serving.app, simulations.app, convert.app, demo.app, doctor.app, backups.app, retention.app, logins.app):
    app.registered_commands += group.registered_commands
for group in (integrity.app, stats.app, adopt.app, backups.db):
    database.app.registered_commands += group.registered_commands
administration.simulations.registered_commands += keys.app.registered_commands
app.add_typer(database.app, name="db")
app.add_typer(users.app, name="users")
app.add_typer(tokens.app, name="tokens")
app.add_typer(administration.simulations, name="simulations")
app.add_typer(administration.tasks, name="tasks")
app.add_typer(clusters.app, name="clusters")
app.add_typer(simulators.app, name="simulators")
app.add_typer(secrets.app, name="secrets")


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"yaptide {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def set_up(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Define the options of `yaptide` itself."""


def main() -> None:
    """Run the `yaptide` command."""
    run_command(app)


if __name__ == "__main__":
    main()

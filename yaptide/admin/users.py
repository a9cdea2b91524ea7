"""`yaptide users`: local users."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import print_json, print_table, say
from yaptide.admin.opening import opened
from yaptide.domain.errors import InvalidInput
from yaptide.services import users

app = typer.Typer(help="Add, change and remove users.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="User name.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="Read the password from this file (- for standard input) instead of asking."),
]


@app.command("list")
def listing(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List all users.

    Example: yaptide users list
    """
    found = users.listing(opened().backend)
    if as_json:
        print_json({"users": found})
    else:
        rows = [(user["username"], user["auth_provider"], user["simulations"]) for user in found]
        print_table(("user", "signs in as", "simulations"), rows)


@app.command()
def add(name: Name, password_file: PasswordFile = None) -> None:
    """Add a user. The password is asked for.

    Example: yaptide users add alice
    """
    users.check_name(name)
    users.register(opened().backend, name, _password(password_file))
    say(f"User {name} was added")


@app.command()
def passwd(name: Name, password_file: PasswordFile = None) -> None:
    """Give a user another password, and end their sessions.

    Example: yaptide users passwd alice --password-file secret.txt
    """
    users.set_password(opened().backend, name, _password(password_file))
    say(f"User {name} has a new password")


@app.command()
def remove(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a user with all their simulations.

    Example: yaptide users remove alice
    """
    backend = opened().backend
    count = next((user["simulations"] for user in users.listing(backend) if user["username"] == name), 0)
    if not yes:
        typer.confirm(f"Remove {name} and {count} simulations with all their results?", abort=True, err=True)
    users.remove(backend, name)
    say(f"User {name} and {count} simulations were removed")


def _password(file: Path | None) -> str:
    if file is None:
        asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    if not text.strip("\n"):
        raise InvalidInput("The password is empty")
    return text.rstrip("\r\n")

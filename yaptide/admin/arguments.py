"""Options and arguments that several commands share, and parsers of passwords, sizes and states."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import print_message
from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import EntityState
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for ending, base in (("b", 1000), ("", 1000), ("ib", 1024))
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)")
_MAX_SIZE = 2**63 - 1

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")]
JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="Job id of the simulation.")]
UserName = Annotated[str, typer.Argument(metavar="NAME", help="User name.")]
States = Annotated[str, typer.Option(help="Only these states, separated by commas.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, help="Maximum number of rows.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="Read the password from this file (- for standard input) instead of asking."),
]
PasswordGiven = Annotated[
    str | None,
    typer.Option(
        "--password-on-command-line",
        metavar="PASSWORD",
        help="The password itself. Every user of this machine can see it.",
    ),
]


def _check_provider(provider: str) -> str:
    if provider not in ("", YAPTIDE_USER, KEYCLOAK_USER):
        raise typer.BadParameter(f"{YAPTIDE_USER} or {KEYCLOAK_USER}")
    return provider


Provider = Annotated[
    str,
    typer.Option(
        metavar="PROVIDER",
        help=f"{YAPTIDE_USER} or {KEYCLOAK_USER}; needed only if both have a user of this name.",
        callback=_check_provider,
        show_default=False,
    ),
]


def ask_password(file: Path | None, password_argument: str | None) -> str:
    """Return the password from the command line or a file, or prompt for it twice without echo."""
    if password_argument is not None:
        print_message("Warning: other users can read the command line; use --password-file or the prompt")
        return password_argument
    if file is None:
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return password
    text = (sys.stdin.read() if str(file) == "-" else file.read_text()).rstrip("\r\n")
    if not text:
        raise InvalidInput("The password is empty")
    return text


def ask_confirmation(question: str, yes: bool) -> None:
    """Ask for confirmation unless `yes` is set; abort the command if the answer is no."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def parse_size(text: str) -> int | None:
    """Return the bytes of a size such as ``5GB``, ``1.5 TB``, ``200MiB`` or ``1000``; None for ``none``."""
    if text.lower() == "none":
        return None
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS or float(match[1]) * _UNITS[match[2]] > _MAX_SIZE:
        raise InvalidInput(f"Invalid size {text!r}: use e.g. 5GB, 200MiB or none")
    whole = match[1].isdigit()
    return int(match[1]) * _UNITS[match[2]] if whole else round(float(match[1]) * _UNITS[match[2]])


def parse_states(text: str) -> tuple[EntityState, ...]:
    """Return the states in a text such as ``FAILED,CANCELED``; raise InvalidInput for an unknown state."""
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in EntityState.__members__]
    if unknown:
        raise InvalidInput(f"Unknown state {unknown[0]!r}: use {', '.join(EntityState)}")
    return tuple(EntityState(name) for name in names)

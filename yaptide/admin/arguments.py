"""What several commands are told: how to ask for passwords, sizes, ages and states, and whether to go on."""

import re
import sys
from datetime import timedelta
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
_AGES = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_MAX_SIZE = 2**63 - 1

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="Public name of the simulation.")]
UserName = Annotated[str, typer.Argument(metavar="NAME", help="User name.")]
States = Annotated[str, typer.Option(help="Only those in these states, separated by commas.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="Read the password from this file (- for standard input) instead of asking."),
]
PasswordGiven = Annotated[
    str | None,
    typer.Option(
        "--password-on-command-line",
        metavar="PASSWORD",
        help="Take it from here, where everybody on this machine can see it.",
    ),
]


def _known(provider: str) -> str:
    if provider not in ("", YAPTIDE_USER, KEYCLOAK_USER):
        raise typer.BadParameter(f"{YAPTIDE_USER} or {KEYCLOAK_USER}")
    return provider


Provider = Annotated[
    str,
    typer.Option(
        metavar="PROVIDER",
        help=f"{YAPTIDE_USER} or {KEYCLOAK_USER}, where both have a user of this name.",
        callback=_known,
        show_default=False,
    ),
]


def ask_password(file: Path | None, given: str | None) -> str:
    """A password: from a file, from the command line if it has to be, otherwise asked for twice and not shown."""
    if given is not None:
        print_message("Warning: others can see what is on a command line; use --password-file, or let it be asked for")
        return given
    if file is None:
        asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    text = (sys.stdin.read() if str(file) == "-" else file.read_text()).rstrip("\r\n")
    if not text:
        raise InvalidInput("The password is empty")
    return text


def ask_confirmation(question: str, yes: bool) -> None:
    """Go on only if the answer is yes, or was given beforehand."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def parse_size(text: str) -> int | None:
    """Bytes of a size such as ``5GB``, ``1.5 TB``, ``200MiB`` or ``1000``; None for ``none``. Raises InvalidInput."""
    if text.lower() == "none":
        return None
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in _UNITS or float(found[1]) * _UNITS[found[2]] > _MAX_SIZE:
        raise InvalidInput(f"{text!r} is no size; examples: 5GB, 200MiB, none")
    whole = found[1].isdigit()
    return int(found[1]) * _UNITS[found[2]] if whole else round(float(found[1]) * _UNITS[found[2]])


def parse_age(text: str) -> timedelta:
    """The time that ``90d``, ``12h`` or ``4w`` means; raises InvalidInput."""
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _AGES or len(number) > 5:
        raise InvalidInput(f"{text!r} is no age; examples: 90d, 12h, 4w")
    return int(number) * _AGES[unit]


def parse_states(text: str) -> tuple[EntityState, ...]:
    """The states in ``FAILED,CANCELED``; raises InvalidInput for one that there is not."""
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in EntityState.__members__]
    if unknown:
        raise InvalidInput(f"{unknown[0]} is no state; there are {', '.join(EntityState)}")
    return tuple(EntityState(name) for name in names)

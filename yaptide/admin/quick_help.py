"""Help, version and completion from a description of all commands, since loading the commands takes a second.

`make docs` makes `commands.json`, the description, from the commands; a test compares them.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, NoReturn

import typer

from yaptide import __version__

FILE = Path(__file__).with_name("commands.json")
COMPLETE = "_YAPTIDE_COMPLETE"


class _OnlyTheyKnowError(Exception):
    """Raised for what has to be asked of the commands themselves."""


def answer_quickly(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Print what a command line asks for if that is help, the version or a completion; False if it is not answered."""
    if COMPLETE in variables:
        return _complete()
    if list(words) == ["--version"]:
        text = f"yaptide {__version__}"
    elif "--help" in words or "-h" in words:
        text = _help_text(json.loads(FILE.read_bytes()), list(words))
    else:
        return False
    if text:
        sys.stdout.write(f"{text}\n")
    return bool(text)


def _help_text(described: Mapping[str, Any], words: list[str]) -> str:
    """Help of the command that words name; nothing if it is not all that they ask for."""
    while words and words[0] in described.get("commands", ()):
        described, words = described["commands"][words[0]], words[1:]
    is_asked = "commands" not in described or words[0] in ("--help", "-h")
    return str(described["help"]) if is_asked and "--" not in words else ""


def _complete() -> bool:
    """Print completions and exit; False if they depend on more than the names of commands and options."""
    with suppress(_OnlyTheyKnowError):
        _group(json.loads(FILE.read_bytes()))(prog_name="yaptide")
    return False


def _group(described: Mapping[str, Any]) -> typer.Typer:
    """Commands that are complete but for what they do."""
    app = typer.Typer(help=described["short"])
    app.callback()(_with_options(described))
    for name, below in described["commands"].items():
        if "commands" in below:
            app.add_typer(_group(below), name=name)
        else:
            app.command(name, help=below["short"])(_with_options(below, words=list[str]))
    return app


def _with_options(described: Mapping[str, Any], **arguments: type) -> Callable[..., None]:
    """A function whose parameters are options, and arguments of which nothing is known."""

    def command(**_: Any) -> None:
        raise _OnlyTheyKnowError

    options = {
        f"option{number}": typer.Option(
            None, *names.split(), help=text, autocompletion=_values if takes_value else None
        )
        for number, (names, (text, takes_value)) in enumerate(described["options"].items())
    }
    types = [str if takes_value else bool for _, takes_value in described["options"].values()]
    defaults = options | {name: typer.Argument(None, autocompletion=_values) for name in arguments}
    command.__annotations__ = dict(zip(options, types, strict=True)) | arguments
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=command.__annotations__[name])
        for name, default in defaults.items()
    ]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def _values() -> NoReturn:
    raise _OnlyTheyKnowError

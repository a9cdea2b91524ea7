"""Prints help, version and completions from a description of all commands, because importing them takes a second.

`make docs` generates `commands.json`, the description, from the commands; a test compares them.
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


class _NeedsCommandsError(Exception):
    """The answer needs the commands themselves."""


def answer_quickly(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Print help, version or completions if the command line asks for them; return False if it does not."""
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


def _help_text(description: Mapping[str, Any], words: list[str]) -> str:
    """Return the help of the command that the words name; empty if they ask for more than help."""
    while words and words[0] in description.get("commands", ()):
        description, words = description["commands"][words[0]], words[1:]
    is_requested = "commands" not in description or words[0] in ("--help", "-h")
    return str(description["help"]) if is_requested and "--" not in words else ""


def _complete() -> bool:
    """Print completions and exit; return False if they depend on more than names of commands and options."""
    with suppress(_NeedsCommandsError):
        _group(json.loads(FILE.read_bytes()))(prog_name="yaptide")
    return False


def _group(description: Mapping[str, Any]) -> typer.Typer:
    """Return an app with the names, options and help of the commands, but no behaviour."""
    app = typer.Typer(help=description["short"])
    app.callback()(_with_options(description))
    for name, subcommand in description["commands"].items():
        if "commands" in subcommand:
            app.add_typer(_group(subcommand), name=name)
        else:
            app.command(name, help=subcommand["short"])(_with_options(subcommand, words=list[str]))
    return app


def _with_options(description: Mapping[str, Any], **arguments: type) -> Callable[..., None]:
    """Return a function with these options as parameters; `arguments` have no known values."""

    def command(**_: Any) -> None:
        raise _NeedsCommandsError

    options = {
        f"option{number}": typer.Option(
            None, *names.split(), help=text, autocompletion=_values if takes_value else None
        )
        for number, (names, (text, takes_value)) in enumerate(description["options"].items())
    }
    types = [str if takes_value else bool for _, takes_value in description["options"].values()]
    defaults = options | {name: typer.Argument(None, autocompletion=_values) for name in arguments}
    command.__annotations__ = dict(zip(options, types, strict=True)) | arguments
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=command.__annotations__[name])
        for name, default in defaults.items()
    ]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def _values() -> NoReturn:
    raise _NeedsCommandsError

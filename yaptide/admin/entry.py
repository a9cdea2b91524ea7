"""Runs a command line: errors become one line and an exit code.

Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

import getpass
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from yaptide.admin.display import print_error
from yaptide.domain.errors import YaptideError


def new_app(name: str, text: str) -> typer.Typer:
    """Return a typer app with plain help and plain errors, the same in every terminal."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_command(app: typer.Typer, translate: Callable[[list[str]], list[str]] = list) -> None:
    """Run the command given on the command line; print errors of yaptide without a traceback.

    `translate` returns the words of the command line to be used instead of those that were given.
    """
    _set_user_name()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        sys.argv[1:] = translate(sys.argv[1:])
        _run_and_flush(app)
    except YaptideError as error:
        print_error(str(error))
        sys.exit(1)
    except BrokenPipeError:  # the reader of the pipe, e.g. head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what Python flushes at exit
        sys.exit(0)
    except OSError as error:
        print_error(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(1)


def _set_user_name() -> None:
    """Set a user name and home for a user id without a passwd entry, as in a container.

    Libraries look them up, too, and fail.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def _run_and_flush(app: typer.Typer) -> None:
    """Run the app and re-raise BrokenPipeError, which typer turns into exit code 1."""
    try:
        app()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        sys.stdout.flush()
        raise

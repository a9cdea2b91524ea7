"""How a command line of ours begins and ends: errors become one line and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

import getpass
import logging
import os
import sys
from pathlib import Path

import typer

from yaptide.admin.display import print_error
from yaptide.domain.errors import YaptideError


def new_app(name: str, text: str) -> typer.Typer:
    """An app of ours, with plain help and plain errors, the same in every terminal."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_command(app: typer.Typer) -> None:
    """Run the command that the arguments name: no traceback for what yaptide refuses on purpose."""
    _have_a_name()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        _run_and_flush(app)
    except YaptideError as error:
        print_error(str(error))
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does it want what is left at the end
        sys.exit(0)
    except OSError as error:
        print_error(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(1)


def _have_a_name() -> None:
    """Give a user id that the system knows nothing of, as in a container, a name and a home as containers do.

    Libraries ask for them, too, and fail.
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
    """Run it, with a pipe that was closed as the error that it is: typer would end by exit code 1."""
    try:
        app()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        sys.stdout.flush()
        raise

"""The `yaptide` command: puts the groups together and turns errors into one line and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

import logging
import sys

import typer

from yaptide.admin import database, demo, serving, simulations, simulators, users
from yaptide.admin.display import complain
from yaptide.domain.errors import YaptideError

app = typer.Typer(
    name="yaptide",
    help="Run particle-therapy Monte Carlo simulations as parallel tasks, and keep everything about them.\n\n"
    "Example: yaptide run examples/proton-150MeV-water --tasks 4",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (serving.app, simulations.app, demo.app):
    app.registered_commands += group.registered_commands
app.add_typer(database.app, name="db")
app.add_typer(users.app, name="users")
app.add_typer(simulators.app, name="simulators")


def main() -> None:
    """Entry point: no traceback for what yaptide refuses on purpose."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        app()
    except YaptideError as error:
        complain(str(error))
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()

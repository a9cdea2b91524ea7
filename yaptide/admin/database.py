"""`yaptide db`: the tables of the database."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.display import out, print_json, print_message
from yaptide.admin.store import configured_database
from yaptide.domain.errors import InvalidInput
from yaptide.persistence import schema
from yaptide.persistence.diagram import class_diagram

app = typer.Typer(
    help="Look after the database: its tables, what is in it, and whether all of it is sound.", no_args_is_help=True
)


@app.command("upgrade")
def upgrade_tables() -> None:
    """Make the tables, or bring them up to date. Nothing is lost; a database that is not ours is left alone.

    Example: FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://me@localhost/yaptide yaptide db upgrade
    """
    database = configured_database()
    before = schema.schema_condition(database)
    schema.upgrade_tables(database)
    done = "was up to date" if before is schema.Condition.CURRENT else "is up to date now"
    print_message(f"The database {done}: revision {schema.HEAD}")


@app.command("current")
def show_revision(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which revision the tables have, and which this version of yaptide works on.

    Example: yaptide db current
    """
    database = configured_database()
    found = schema.schema_condition(database)
    with database.reading() as connection:
        revision = schema.read_revision(connection)
    if as_json:
        print_json({"revision": revision, "head": schema.HEAD, "condition": found.value})
    else:
        out.print(f"{revision or 'no tables'} ({found.value}); this version works on {schema.HEAD}")


@app.command("url")
def show_url(
    show_password: Annotated[bool, typer.Option("--show-password", help="Do not hide the password.")] = False,
) -> None:
    """Print the database's URL.

    Example: yaptide db url
    """
    out.print(configured_database().engine.url.render_as_string(hide_password=not show_password))


class Format(StrEnum):
    """Kinds of diagrams."""

    MERMAID = "mermaid"
    SVG = "svg"
    PNG = "png"


@app.command("diagram")
def show_diagram(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where to write it; default: standard output.", show_default=False),
    ] = None,
    kind: Annotated[Format, typer.Option("--format", help="Text for mermaid, or a picture.")] = Format.MERMAID,
) -> None:
    """Draw the tables as they are in the code: fields with types, inheritance, and how many belong to how many.

    Example: yaptide db diagram --format svg database.svg
    """
    if kind is Format.MERMAID:
        content = class_diagram().encode()
    else:
        from yaptide.admin import diagram  # noqa: PLC0415 - matplotlib takes longer to import than all the rest

        content = diagram.draw_diagram(kind)
    if file is not None:
        file.write_bytes(content)
    elif kind is Format.PNG and sys.stdout.isatty():
        raise InvalidInput("A picture is nothing for a terminal: give a file to write it to")
    else:
        sys.stdout.buffer.write(content)

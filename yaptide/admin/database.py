"""`yaptide db`: administer the database."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.adopt import show_room
from yaptide.admin.arguments import AsJson
from yaptide.admin.display import out, print_json, print_message
from yaptide.admin.store import configured_database
from yaptide.domain.errors import InvalidInput
from yaptide.persistence import schema
from yaptide.persistence.diagram import class_diagram
from yaptide.services.adoption import measure_room

app = typer.Typer(help="Manage the database: schema, contents, integrity, backups.", no_args_is_help=True)


@app.command("upgrade")
def upgrade_tables() -> None:
    """Create the tables, or upgrade them to this version. Data is kept; foreign databases are not touched.

    Stop all servers on this database first.

    Example: FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://me@localhost/yaptide yaptide db upgrade
    """
    database = configured_database()
    before = schema.schema_condition(database)
    if before is schema.Condition.BEHIND and database.is_sqlite:
        show_room(measure_room(database))
    schema.upgrade_tables(database)
    if before is schema.Condition.CURRENT:
        print_message(f"The database is up to date: revision {schema.HEAD}")
    else:
        print_message(f"Upgraded the database to revision {schema.HEAD}")


@app.command("current")
def show_revision(as_json: AsJson = False) -> None:
    """Show the revision of the database and the revision that this version of yaptide needs.

    Example: yaptide db current
    """
    database = configured_database()
    condition = schema.schema_condition(database)
    with database.reading() as connection:
        revision = schema.read_revision(connection)
    if as_json:
        print_json({"revision": revision, "head": schema.HEAD, "condition": condition.value})
    else:
        out.print(f"{revision or 'no tables'} ({condition.value}); this version needs {schema.HEAD}")


@app.command("url")
def show_url(
    show_password: Annotated[bool, typer.Option("--show-password", help="Do not hide the password.")] = False,
) -> None:
    """Print the URL of the database.

    Example: yaptide db url
    """
    out.print(configured_database().engine.url.render_as_string(hide_password=not show_password))


class Format(StrEnum):
    """Format of a diagram."""

    MERMAID = "mermaid"
    SVG = "svg"
    PNG = "png"


@app.command("diagram")
def show_diagram(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Output file; default: standard output.", show_default=False),
    ] = None,
    kind: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.MERMAID,
) -> None:
    """Draw the tables defined in the code: columns with types, inheritance, and relations with cardinality.

    Example: yaptide db diagram --format svg database.svg
    """
    if kind is Format.MERMAID:
        content = class_diagram().encode()
    else:
        from yaptide.admin import diagram  # noqa: PLC0415 - importing matplotlib is slow

        content = diagram.draw_diagram(kind)
    if file is not None:
        file.write_bytes(content)
    elif kind is Format.PNG and sys.stdout.isatty():
        raise InvalidInput("PNG output needs a file name")
    else:
        sys.stdout.buffer.write(content)

"""`yaptide db`: the tables of the database."""

import atexit
from typing import Annotated

import typer

from yaptide.admin.display import out, print_json, say
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.settings import load

app = typer.Typer(
    help="Look after the database: its tables, what is in it, and whether all of it is sound.", no_args_is_help=True
)


def _database() -> Database:
    settings = load()
    if not settings.database_uri:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.url)
    atexit.register(database.close)
    return database


@app.command()
def upgrade() -> None:
    """Make the tables, or bring them up to date. Nothing is lost; a database that is not ours is left alone.

    Example: FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://me@localhost/yaptide yaptide db upgrade
    """
    database = _database()
    before = schema.condition(database)
    schema.upgrade(database)
    done = "was up to date" if before is schema.Condition.CURRENT else "is up to date now"
    say(f"The database {done}: revision {schema.HEAD}")


@app.command()
def current(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which revision the tables have, and which this version of yaptide works on.

    Example: yaptide db current
    """
    database = _database()
    found = schema.condition(database)
    with database.reading() as connection:
        revision = schema.revision(connection)
    if as_json:
        print_json({"revision": revision, "head": schema.HEAD, "condition": found.value})
    else:
        out.print(f"{revision or 'no tables'} ({found.value}); this version works on {schema.HEAD}")


@app.command()
def url(
    show_password: Annotated[bool, typer.Option("--show-password", help="Do not hide the password.")] = False,
) -> None:
    """Print the database's URL.

    Example: yaptide db url
    """
    out.print(_database().engine.url.render_as_string(hide_password=not show_password))

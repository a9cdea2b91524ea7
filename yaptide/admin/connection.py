"""How administration gets at the database: with its URL in the environment, and nothing else."""

import atexit
import os
from pathlib import Path

from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import passwords

VARIABLE = "FLASK_SQLALCHEMY_DATABASE_URI"
LEAST_PASSWORD = "YAPTIDE_MIN_PASSWORD_LENGTH"  # noqa: S105 - the name of a setting


def connect_database() -> Database:
    """The database that the environment or, where yaptide is installed as a whole, its settings name.

    Its tables are left as they are: raises Conflict unless they are those that this version works on, NotFound for an
    SQLite file that is not there. Only the embedded system's own file, which nobody had to name, is made on first use.
    """
    url = os.environ.get(VARIABLE)
    database = Database(url) if url else _of_settings()
    atexit.register(database.close)  # a server notes every client that leaves without a word
    _check_file(database)
    schema.require_current(database)
    return database


def _of_settings() -> Database:
    try:
        from yaptide.settings import load_settings  # noqa: PLC0415 - where little is installed, it cannot be imported
    except ModuleNotFoundError:
        raise InvalidInput(f"Set {VARIABLE} to the URL of the database") from None
    settings = load_settings()
    if settings.database_uri:
        return Database(settings.url)
    settings.make_data_dir()
    database = Database(settings.url)
    schema.upgrade_tables(database)
    return database


def least_password() -> int:
    """Characters of a new password at least, by the environment or the settings; raises InvalidInput."""
    try:
        from yaptide.settings import load_settings  # noqa: PLC0415 - see _of_settings
    except ModuleNotFoundError:
        given = os.environ.get(LEAST_PASSWORD, str(passwords.LEAST))
        if not (given.isascii() and given.isdigit() and len(given) < 5):
            raise InvalidInput(f"The setting {LEAST_PASSWORD} has to be a number of characters") from None
        return int(given)
    return load_settings().min_password_length


def _check_file(database: Database) -> None:
    """SQLite would make a file of the wrong name, and then say that it is empty."""
    name = database.engine.url.database or ""
    if database.is_sqlite and not database.in_memory and not name.startswith("file:") and not Path(name).is_file():
        raise NotFound(f"There is no database file {name}; check {VARIABLE}, or make it with: yaptide db upgrade")

"""How commands open the database: alone, which works where little is installed, or with the services on it."""

import atexit
import getpass
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.services import passwords, users
from yaptide.services.backend import Backend
from yaptide.services.users import User

if TYPE_CHECKING:
    from yaptide.settings import Settings

VARIABLE = "FLASK_SQLALCHEMY_DATABASE_URI"
LEAST_PASSWORD = "YAPTIDE_MIN_PASSWORD_LENGTH"  # noqa: S105 - the name of a setting


@dataclass(frozen=True, slots=True)
class Opened:
    """The settings, and the services on a database that is up to date."""

    settings: "Settings"
    backend: Backend


def open_store() -> Opened:
    """Open the configured database; raises Conflict if its tables are not current."""
    from yaptide import logs  # noqa: PLC0415 - where little is installed, these cannot be imported
    from yaptide.application import make_backend, prepare_database  # noqa: PLC0415
    from yaptide.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    logs.configure_logging(settings.log_format, settings.log_level)
    backend = make_backend(settings)
    atexit.register(backend.database.close)  # a server notes every client that leaves without a word
    prepare_database(backend)
    return Opened(settings, backend)


def configured_database() -> Database:
    """The configured database, whatever tables it has or has not."""
    from yaptide.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    if not settings.database_uri:
        settings.make_data_dir()
    database = Database(settings.url)
    atexit.register(database.close)
    return database


def connect_database() -> Database:
    """The database that the environment or, where yaptide is installed as a whole, its settings name.

    Its tables are left as they are: raises Conflict unless they are those that this version works on, NotFound for an
    SQLite file that is not there. Only the embedded system's own file, which nobody had to name, is made on first use.
    """
    url = os.environ.get(VARIABLE)
    database = Database(url) if url else _of_settings()
    atexit.register(database.close)
    _check_file(database)
    schema.require_current(database)
    return database


def _of_settings() -> Database:
    try:
        from yaptide.settings import load_settings  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        raise InvalidInput(f"Set {VARIABLE} to the URL of the database") from None
    settings = load_settings()
    if settings.database_uri:
        return Database(settings.url)
    settings.make_data_dir()
    database = Database(settings.url)
    schema.upgrade_tables(database)
    return database


def _check_file(database: Database) -> None:
    """SQLite would make a file of the wrong name, and then say that it is empty."""
    name = database.engine.url.database or ""
    if database.is_sqlite and not database.in_memory and not name.startswith("file:") and not Path(name).is_file():
        raise NotFound(f"There is no database file {name}; check {VARIABLE}, or make it with: yaptide db upgrade")


def least_password() -> int:
    """Characters of a new password at least, by the environment or the settings; raises InvalidInput."""
    try:
        from yaptide.settings import load_settings  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        given = os.environ.get(LEAST_PASSWORD, str(passwords.LEAST))
        if not (given.isascii() and given.isdigit() and len(given) < 5):
            raise InvalidInput(f"The setting {LEAST_PASSWORD} has to be a number of characters") from None
        return int(given)
    return load_settings().min_password_length


def local_user(backend: Backend, name: str) -> User:
    """The user to act as: the one named, otherwise the one who is signed in to this machine (made if need be).

    Raises NotFound for a name that nobody has: it is more likely mistyped than meant to be a new user's.
    """
    if not name:
        return users.ensure_user(backend, getpass.getuser())
    user = users.find_user(backend, name)
    if user is None:
        raise NotFound(f"There is no local user {name!r}; add one with: yaptide users add {shlex.quote(name)}")
    return user

"""Opens the database for commands: alone, which needs few packages, or with the services."""

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
    """The settings, and the services on an up-to-date database."""

    settings: "Settings"
    backend: Backend


def open_store() -> Opened:
    """Open the configured database with the services; raise Conflict if its tables are not current."""
    from yaptide import logs  # noqa: PLC0415 - db_manage.py runs without their dependencies
    from yaptide.application import make_backend, prepare_database  # noqa: PLC0415
    from yaptide.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    logs.configure_logging(settings.log_format, settings.log_level)
    backend = make_backend(settings)
    atexit.register(backend.database.close)  # PostgreSQL logs clients that disconnect without closing
    prepare_database(backend)
    return Opened(settings, backend)


def configured_database() -> Database:
    """Return the configured database without checking its tables."""
    from yaptide.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    if not settings.database_uri:
        settings.make_data_dir()
    database = Database(settings.url)
    atexit.register(database.close)
    return database


def connect_database() -> Database:
    """Return the database in the environment variable or, with yaptide fully installed, in the settings.

    Raises Conflict if its tables are not those of this version, NotFound if its SQLite file does not exist. Only the
    default file of the embedded system is created on first use.
    """
    url = os.environ.get(VARIABLE)
    database = Database(url) if url else _of_settings()
    atexit.register(database.close)
    require_file(database)
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


def require_file(database: Database) -> None:
    """Raise NotFound for a missing file, which SQLite would create and report as empty."""
    name = database.engine.url.database or ""
    if database.is_sqlite and not database.in_memory and not name.startswith("file:") and not Path(name).is_file():
        raise NotFound(f"No such database file: {name}; check {VARIABLE}, or create it with: yaptide db upgrade")


def least_password() -> int:
    """Return the minimum length of new passwords from the environment or the settings; raise InvalidInput."""
    try:
        from yaptide.settings import load_settings  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        value = os.environ.get(LEAST_PASSWORD, str(passwords.LEAST))
        if not (value.isascii() and value.isdigit() and len(value) < 5):
            raise InvalidInput(f"The setting {LEAST_PASSWORD} must be a number of characters") from None
        return int(value)
    return load_settings().min_password_length


def local_user(backend: Backend, name: str) -> User:
    """Return the named user, or without a name the user of this machine, who is added if needed.

    Raises NotFound for an unknown name, which is probably a typing error.
    """
    if not name:
        return users.ensure_user(backend, getpass.getuser())
    user = users.find_user(backend, name)
    if user is None:
        raise NotFound(f"No such local user: {name!r}; add one with: yaptide users add {shlex.quote(name)}")
    return user

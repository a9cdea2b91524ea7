"""How a command gets at the database and the services."""

import atexit
import getpass
import shlex
from dataclasses import dataclass

from yaptide import logs
from yaptide.application import make_backend, prepare_database
from yaptide.domain.errors import NotFound
from yaptide.persistence.engine import Database
from yaptide.services import users
from yaptide.services.backend import Backend
from yaptide.services.users import User
from yaptide.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Opened:
    """The settings, and the services on a database that is up to date."""

    settings: Settings
    backend: Backend


def open_store() -> Opened:
    """Open the configured database; raises Conflict if its tables are not current."""
    settings = load_settings()
    logs.configure_logging(settings.log_format, settings.log_level)
    backend = make_backend(settings)
    atexit.register(backend.database.close)  # a server notes every client that leaves without a word
    prepare_database(backend)
    return Opened(settings, backend)


def configured_database() -> Database:
    """The configured database, whatever tables it has or has not."""
    settings = load_settings()
    if not settings.database_uri:
        settings.make_data_dir()
    database = Database(settings.url)
    atexit.register(database.close)
    return database


def local_user(backend: Backend, name: str) -> User:
    """The user to act as: the one named, otherwise the one who is signed in to this machine (made if need be).

    Raises NotFound for a name that nobody has: it is more likely mistyped than meant to be a new user's.
    """
    if not name:
        return users.ensure_user(backend, getpass.getuser())
    found = users.find_user(backend, name)
    if found is None:
        raise NotFound(f"There is no local user {name!r}; add one with: yaptide users add {shlex.quote(name)}")
    return found

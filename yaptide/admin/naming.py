"""Names of simulations on the command line: a beginning that only one of them has is enough, and shells complete it."""

from contextlib import closing
from pathlib import Path

from yaptide.domain.errors import Conflict, YaptideError
from yaptide.persistence.engine import Database
from yaptide.services import simulations
from yaptide.settings import load_settings

_MOST = 10
_MOST_COMPLETED = 100


def find_job(database: Database, beginning: str) -> str:
    """The name of the simulation that begins so; if there is none, what was asked for.

    Raises Conflict with the names if there are several and none of them is exactly that.
    """
    names = [name for name, _ in simulations.find_names(database, beginning, _MOST + 1)] if beginning else []
    if not names or beginning in names:
        return beginning
    if len(names) > 1:
        listed = ", ".join(names[:_MOST]) + (" and more" if len(names) > _MOST else "")
        raise Conflict(f"Several simulations begin with {beginning!r}: {listed}")
    return names[0]


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """Names that begin so, with titles, for a shell; nothing if there is no database, and none is made."""
    try:
        database = Database(load_settings().url)
        file = database.engine.url.database or ""
        if database.is_sqlite and not Path(file).is_file():
            return []
        with closing(database):
            return simulations.find_names(database, incomplete, _MOST_COMPLETED)
    except (YaptideError, OSError):
        return []

"""Abbreviated job ids on the command line: a unique prefix is enough, and shells complete it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from yaptide.domain.errors import Conflict, YaptideError
from yaptide.persistence.engine import Database
from yaptide.services import simulations
from yaptide.settings import load_settings

_MOST = 10
_MOST_COMPLETED = 100


def find_job(database: Database, prefix: str) -> str:
    """Return the job id with this prefix, or `prefix` itself if there is none.

    Raises Conflict with the candidates if several simulations match and none matches exactly.
    """
    names = [name for name, _ in simulations.find_names(database, prefix, _MOST + 1)] if prefix else []
    return choose_job(names, prefix)


def choose_job(names: Sequence[str], prefix: str) -> str:
    """Return the only one of the job ids `names` that begin with `prefix`, or `prefix` if there is none.

    Raises Conflict with the candidates if there are several, and none equals `prefix`.
    """
    if not names or prefix in names:
        return prefix
    if len(names) > 1:
        listed = ", ".join(names[:_MOST]) + (" and more" if len(names) > _MOST else "")
        raise Conflict(f"Ambiguous: several simulations begin with {prefix!r}: {listed}")
    return names[0]


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """Return job ids with this prefix and their titles for a shell; nothing if there is no database."""
    try:
        database = Database(load_settings().url)
        file = database.engine.url.database or ""
        if database.is_sqlite and not Path(file).is_file():
            return []
        with closing(database):
            return simulations.find_names(database, incomplete, _MOST_COMPLETED)
    except (YaptideError, OSError):
        return []

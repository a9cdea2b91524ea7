"""Whether this installation can do its work, one check for each thing it needs."""

import errno
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yaptide.disk import TOO_LITTLE_FREE, has_free_space
from yaptide.domain.errors import NotConfigured, YaptideError
from yaptide.persistence import schema
from yaptide.persistence.engine import PROBE_TIMEOUT
from yaptide.persistence.schema import Condition
from yaptide.services import runners
from yaptide.services.backend import Backend

_TABLES = {
    Condition.EMPTY: "there are none yet",
    Condition.BEHIND: "they were made by an older version",
    Condition.FOREIGN: "they were not made by this version of yaptide",
}


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, whether it is as it should be, and if not, what is wrong and what an operator can do.

    The `message` may be shown to anybody; the `remedy` may name hosts and folders.
    """

    name: str
    ok: bool
    message: str = "ok"
    remedy: str = ""


def run_checks(backend: Backend) -> list[Check]:
    """All checks; they take a few seconds at most, and change nothing."""
    return [*_database(backend), _storage(backend.data_dir)]


def check_simulators(backend: Backend, others: Sequence[Check]) -> list[Check]:
    """Whether something is there that runs what is submitted; without it the server is as ready as ever.

    None if one of the `others` says that the database cannot tell.
    """
    if not all(check.ok for check in others):
        return []
    names = {row.sim_type for row in runners.list_programs(backend)} | backend.foreign_workers
    if names:
        return [Check("simulators", True, ", ".join(sorted(names)))]
    message = "nothing that could run a simulation is there: submissions are refused, and what was accepted waits"
    remedy = "look at the logs of `yaptide up` and of workers; `yaptide simulators list` tells what is here"
    return [Check("simulators", False, message, remedy)]


def _database(backend: Backend) -> list[Check]:
    try:
        with backend.database.probe() as connection:
            found = schema.condition_on(connection)
    except NotConfigured as error:
        return _unusable("it is there, and cannot be used", str(error))
    except YaptideError as error:
        remedy = f"Start it, or mend FLASK_SQLALCHEMY_DATABASE_URI. What was heard of it: {error}"
        return _unusable(f"it does not answer within {PROBE_TIMEOUT} s", remedy)
    current = found is Condition.CURRENT
    tables = Check("tables", True) if current else Check("tables", False, _TABLES[found], "yaptide db upgrade")
    return [Check("database", True), tables]


def _unusable(message: str, remedy: str) -> list[Check]:
    tables = "nobody can tell while the database does not answer"
    return [Check("database", False, message, remedy), Check("tables", False, tables, remedy)]


def _storage(data_dir: Path) -> Check:
    """Whether something can be left in the data folder, or in the folder where it will be made."""
    folder = next(found for found in (data_dir, *data_dir.absolute().parents) if found.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # it never has a name that others could take for a result
            file.write(b"room?")
        enough = has_free_space(folder)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        return Check("storage", False, f"the data folder cannot be written to: {reason}", f"Mend {folder}: {reason}")
    if not enough:
        return Check("storage", False, TOO_LITTLE_FREE, f"Make room where {folder} is: {TOO_LITTLE_FREE}")
    return Check("storage", True)

"""Readiness of this installation: one check for each requirement."""

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
    Condition.EMPTY: "there are no tables",
    Condition.BEHIND: "the tables were created by an older version",
    Condition.FOREIGN: "the tables were not created by this version of yaptide",
}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check: what is wrong, and what an administrator can do.

    The `message` may be shown to anyone; the `remedy` may contain hosts and folders.
    """

    name: str
    ok: bool
    message: str = "ok"
    remedy: str = ""


def run_checks(backend: Backend) -> list[Check]:
    """Run all checks; they take a few seconds at most, and change nothing."""
    return [*_database(backend), _storage(backend.data_dir)]


def check_simulators(backend: Backend, others: Sequence[Check]) -> list[Check]:
    """Check whether a runner can run submissions; without one the server is ready nevertheless.

    Returns no check if one of the `others` says that the database is not available.
    """
    if not all(check.ok for check in others):
        return []
    names = {row.sim_type for row in runners.list_programs(backend)} | backend.foreign_workers
    if names:
        return [Check("simulators", True, ", ".join(sorted(names)))]
    message = "no executor, worker or cluster can run simulations: submissions are rejected, accepted ones wait"
    remedy = "check the logs of `yaptide up` and of workers; see also: yaptide simulators list"
    return [Check("simulators", False, message, remedy)]


def _database(backend: Backend) -> list[Check]:
    try:
        with backend.database.probe() as connection:
            condition = schema.condition_on(connection)
    except NotConfigured as error:
        return _unusable("the database cannot be used", str(error))
    except YaptideError as error:
        remedy = f"Start it, or check FLASK_SQLALCHEMY_DATABASE_URI. Its error: {error}"
        return _unusable(f"the database does not respond within {PROBE_TIMEOUT} s", remedy)
    current = condition is Condition.CURRENT
    tables = Check("tables", True) if current else Check("tables", False, _TABLES[condition], "yaptide db upgrade")
    return [Check("database", True), tables]


def _unusable(message: str, remedy: str) -> list[Check]:
    tables = "cannot check tables: the database does not respond"
    return [Check("database", False, message, remedy), Check("tables", False, tables, remedy)]


def _storage(data_dir: Path) -> Check:
    """Check whether the data folder, or the folder where it will be created, is writable and has free space."""
    folder = next(candidate for candidate in (data_dir, *data_dir.absolute().parents) if candidate.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name, so that it is not mistaken for a result
            file.write(b"room?")
        enough = has_free_space(folder)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        return Check("storage", False, f"the data folder is not writable: {reason}", f"Check {folder}: {reason}")
    if not enough:
        return Check("storage", False, TOO_LITTLE_FREE, f"Free disk space for {folder}: {TOO_LITTLE_FREE}")
    return Check("storage", True)

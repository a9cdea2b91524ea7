"""Taking over a database of the older YAPTIDE backend."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from yaptide.domain.errors import Conflict, Contended, StorageFull
from yaptide.persistence import adoption
from yaptide.persistence.adoption import Report as Report
from yaptide.persistence.engine import Database
from yaptide.services import passwords
from yaptide.services.backend import utc_now
from yaptide.services.passwords import Match

if TYPE_CHECKING:
    from yaptide.services.secrets import Vault


@dataclass(frozen=True, slots=True)
class Room:
    """Disk space that taking over needs, and the free space (None: on a server, where it is not known); in bytes."""

    needed: int
    free: int | None


def measure_room(database: Database) -> Room:
    """Return how much additional disk space is needed while the old and the new tables exist beside each other."""
    with database.reading() as connection:
        if not database.is_sqlite:
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
            return Room(2 * size, None)  # the new tables, and the server's log of them
        size = connection.exec_driver_sql("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        needed = (2 if mode == "wal" else 1) * size.scalar_one()
    file = Path(database.engine.url.database or "")
    return Room(needed, shutil.disk_usage(file.parent).free)


def _check_room(database: Database) -> None:
    room = measure_room(database)
    if room.free is not None and room.free < room.needed:
        needed, free = (f"{size / 1e6:,.0f} MB" for size in (room.needed, room.free))
        message = f"Taking over needs {needed} of free disk space, but only {free} are free. Nothing was changed"
        raise StorageFull(message)


class _RolledBack(Exception):
    """Rolls back the transaction of a dry run."""

    def __init__(self, report: Report) -> None:
        self.report = report


def adopt_database(
    database: Database,
    vault: "Vault",
    *,
    stale_after: timedelta,
    dry_run: bool,
    progress: Callable[[int, int], None],
) -> Report:
    """Convert the database, all or nothing; a `dry_run` does the same and rolls back.

    A yaptide database is left unchanged. A simulation that has not ended is stale without a heartbeat for
    `stale_after`; `progress` gets the numbers of rows done and in total. Raises Conflict if the database cannot be
    taken over, NotConfigured if it has private keys and `vault` has no key to encrypt them, StorageFull if the disk of
    an SQLite file is too full.
    """
    _check_room(database)
    options = adoption.Options(utc_now(), vault.encrypt, _find_obstacle, passwords.MAX_PASSWORD, stale_after, progress)
    try:
        with database.migrating() as connection:
            report = adoption.adopt_database(connection, options)
            if dry_run:
                raise _RolledBack(report)  # noqa: TRY301 - only an error rolls back
    except _RolledBack as end:
        return end.report
    except Contended as error:
        raise Conflict(
            "Another program is writing to the database; this one has changed nothing. Stop the old backend, "
            "or wait until another yaptide db adopt has ended"
        ) from error
    except DBAPIError as error:
        first = str(error.orig).strip().partition("\n")[0]
        raise Conflict(f"The database cannot be taken over: {first}. Nothing was changed") from error
    return report


def _find_obstacle(password_hash: str) -> str | None:
    """Return why nobody can sign in with a password hash, or None."""
    if not passwords.is_supported(password_hash):
        return "its password hash is of a kind that is not supported"
    if passwords.verify_password(password_hash, "") is not Match.NONE:
        return "its password is empty"
    return None

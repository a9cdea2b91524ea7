"""The schema version: create and upgrade the tables, and refuse to work on any other version.

The Alembic revisions are in `yaptide/persistence/migrations/versions`. Alembic is imported only when a migration runs.
"""

from enum import Enum
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from yaptide.domain.errors import Conflict
from yaptide.persistence.engine import Database

#: The revision that this code needs.
HEAD = "0012"

MIGRATIONS = Path(__file__).parent / "migrations"


class Condition(Enum):
    """The schema of a database relative to this code."""

    EMPTY = "empty"
    CURRENT = "current"
    BEHIND = "behind"
    FOREIGN = "foreign"


def read_revision(connection: Connection) -> str | None:
    """Return the revision of the tables, or None if no migration has run."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def schema_condition(database: Database) -> Condition:
    """Return the condition of the schema of `database`."""
    with database.reading() as connection:
        return condition_on(connection)


def condition_on(connection: Connection) -> Condition:
    """Return the condition of the schema of the database of a connection."""
    revision = read_revision(connection)
    if revision is None:
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return Condition.FOREIGN if tables else Condition.EMPTY
    if revision == HEAD:
        return Condition.CURRENT
    return Condition.BEHIND if revision in known_revisions() else Condition.FOREIGN


def known_revisions() -> list[str]:
    """Return all revisions from the first to `HEAD`."""
    return sorted(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def upgrade_tables(database: Database, target: str = HEAD) -> None:
    """Create the tables, or upgrade them to `target`; a current database is left unchanged.

    Raises Conflict if the database has foreign tables or was created by a newer version, or if other processes of
    yaptide are connected to tables that have to be upgraded.
    """
    condition = schema_condition(database)
    if condition is Condition.FOREIGN:
        raise _foreign()
    if condition is Condition.CURRENT and target == HEAD:
        return
    try:
        with database.migrating(alone=condition is Condition.BEHIND) as connection:
            migrate_tables(connection, target)
    except Conflict:
        if target != HEAD or schema_condition(database) is not Condition.CURRENT:
            raise  # otherwise the other process has upgraded them meanwhile


def downgrade_tables(database: Database, target: str) -> None:
    """Downgrade the tables to revision `target` (``base``: remove them)."""
    with database.migrating() as connection:
        migrate_tables(connection, target, back=True)


def migrate_tables(connection: Connection, target: str, *, back: bool = False) -> None:
    """Upgrade the tables to revision `target`, or downgrade if `back`, in a running transaction of `migrating`."""
    from alembic import command  # noqa: PLC0415 - 0.1 s that only migrations need
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    (command.downgrade if back else command.upgrade)(config, target)


def require_current(database: Database) -> None:
    """Raise Conflict, with the command that fixes it, unless the tables are current."""
    condition = schema_condition(database)
    if condition is Condition.FOREIGN:
        raise _foreign()
    if condition is not Condition.CURRENT:
        state = "is empty" if condition is Condition.EMPTY else "was created by an older version"
        raise Conflict(f"The database {state}. Upgrade it with: yaptide db upgrade")


def schema_differences(database: Database) -> list[str]:
    """Return the differences between tables and models as text; empty if there are none."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415

    from yaptide.persistence.models import Base  # noqa: PLC0415

    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]


def _foreign() -> Conflict:
    return Conflict(
        "This database was not created by this version of yaptide: it has other tables or a newer schema. "
        "Nothing was changed; check FLASK_SQLALCHEMY_DATABASE_URI. (To take over the database of an older YAPTIDE "
        "backend: yaptide db adopt)"
    )

"""The version of the tables: making them, bringing them up to date, and refusing to work on any other.

Alembic's revisions are in `yaptide/persistence/migrations/versions`. It is imported only when a migration runs.
"""

from enum import Enum
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from yaptide.domain.errors import Conflict
from yaptide.persistence.engine import Database

#: The revision that this code works on.
HEAD = "0009"

MIGRATIONS = Path(__file__).parent / "migrations"


class Condition(Enum):
    """How a database stands to this code."""

    EMPTY = "empty"
    CURRENT = "current"
    BEHIND = "behind"
    FOREIGN = "foreign"


def read_revision(connection: Connection) -> str | None:
    """The revision of the tables, or None where no migration ever ran."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def schema_condition(database: Database) -> Condition:
    """How `database` stands to this code."""
    with database.reading() as connection:
        return condition_on(connection)


def condition_on(connection: Connection) -> Condition:
    """How the database of a connection stands to this code."""
    found = read_revision(connection)
    if found is None:
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return Condition.FOREIGN if tables else Condition.EMPTY
    if found == HEAD:
        return Condition.CURRENT
    return Condition.BEHIND if found in known_revisions() else Condition.FOREIGN


def known_revisions() -> list[str]:
    """All revisions from the first to `HEAD`."""
    return sorted(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def upgrade_tables(database: Database, target: str = HEAD) -> None:
    """Make the tables, or bring them to `target`; a database that is there already is left as it is.

    Raises Conflict if the database holds something that is not ours or was made by a newer version.
    """
    found = schema_condition(database)
    if found is Condition.FOREIGN:
        raise _foreign()
    if found is Condition.CURRENT and target == HEAD:
        return
    with database.migrating() as connection:
        migrate_tables(connection, target)


def downgrade_tables(database: Database, target: str) -> None:
    """Take the tables back to revision `target` (``base``: remove them)."""
    with database.migrating() as connection:
        migrate_tables(connection, target, back=True)


def migrate_tables(connection: Connection, target: str, *, back: bool = False) -> None:
    """Bring the tables forward to revision `target`, or `back` to it, in a running transaction of `migrating`."""
    from alembic import command  # noqa: PLC0415 - 0.1 s that only a migration has to pay
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    (command.downgrade if back else command.upgrade)(config, target)


def require_current(database: Database) -> None:
    """Raise Conflict, with the command that mends it, unless the tables are those this code works on."""
    found = schema_condition(database)
    if found is Condition.FOREIGN:
        raise _foreign()
    if found is not Condition.CURRENT:
        state = "is empty" if found is Condition.EMPTY else "was made by an older version"
        raise Conflict(f"The database {state}. Bring it up to date with: yaptide db upgrade")


def schema_differences(database: Database) -> list[str]:
    """What distinguishes the tables from the models, in words; empty if nothing does."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415

    from yaptide.persistence.models import Base  # noqa: PLC0415

    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]


def _foreign() -> Conflict:
    return Conflict(
        "This database was not made by this version of yaptide: it holds other tables or a newer schema. "
        "Nothing was changed; check FLASK_SQLALCHEMY_DATABASE_URI. (One of an older YAPTIDE backend is taken over by: "
        "yaptide db adopt)"
    )

"""The tables themselves: the old ones are renamed and finally dropped, migrations create the new ones."""

from collections.abc import Mapping

from sqlalchemy import Connection, Index, MetaData, Table, func, literal, select, text
from sqlalchemy.types import NullType

from yaptide.persistence.adoption.legacy import COLUMNS, list_tables
from yaptide.persistence.schema import migrate_tables

#: The revision into which rows are copied: the first with payloads of pages at the end of their rows, so that SQLite
#: need not hold them in memory. Later migrations then run as on any other yaptide database; one drops the counts.
_COPIED_INTO = "0003"
_NOT_FILLED = ("alembic_version", "SimulationCount")

_PREFIX = "adopted_"

#: Indexes and sequences of the old tables. Their names must be unique like those of tables, and new ones may be the
#: same.
_NAMED = text(
    """
    SELECT entry.oid, entry.relname, entry.relkind::text
    FROM pg_class entry
    JOIN (
        SELECT indexrelid AS oid, indrelid AS owner FROM pg_index
        UNION SELECT objid, refobjid FROM pg_depend WHERE deptype IN ('a', 'i') AND classid = 'pg_class'::regclass
    ) AS part ON part.oid = entry.oid
    JOIN pg_class owner ON owner.oid = part.owner
    WHERE owner.relnamespace = current_schema()::regnamespace
        AND owner.relkind = 'r' AND owner.relname = ANY(:tables) AND entry.relkind IN ('i', 'S')
    """
)
_KINDS = {"i": "INDEX", "S": "SEQUENCE"}

#: Columns by which the rows of a parent are found; old databases have no indexes on them.
_INDEXED = (
    ("Input", "simulation_id"),
    ("Logfiles", "simulation_id"),
    ("Estimator", "simulation_id"),
    ("Page", "estimator_id"),
    ("Task", "simulation_id"),
)


def put_aside(connection: Connection) -> dict[str, Table]:
    """Rename the old tables with their indexes and sequences; return them by their old names."""
    if connection.dialect.name == "postgresql":
        for number, name, kind in connection.execute(_NAMED, {"tables": list(COLUMNS)}).all():
            _rename(connection, _KINDS[kind], name, f"{_PREFIX}{number}")
    for table in COLUMNS:
        _rename(connection, "TABLE", table, _PREFIX + table)
    if "alembic_version" in list_tables(connection):  # not one of another schema in the search path
        connection.execute(text("DROP TABLE alembic_version"))
    return {table: _old_table(connection, _PREFIX + table) for table in COLUMNS}


def make_ours(connection: Connection) -> dict[str, Table]:
    """Create the new tables with the first migrations; return them by name."""
    migrate_tables(connection, _COPIED_INTO)
    names = sorted(list_tables(connection).difference(_NOT_FILLED))
    ours = [name for name in names if not name.startswith(_PREFIX)]
    # Read from the database: the models are those of the newest revision.
    return {name: Table(name, MetaData(), autoload_with=connection, resolve_fks=False) for name in ours}


def bring_up_to_date(connection: Connection) -> None:
    """Apply the later migrations."""
    migrate_tables(connection, "head")


def index_children(connection: Connection, old: Mapping[str, Table]) -> None:
    """Add indexes, so that the children of a row are found without scanning a table of payloads for each."""
    for table, column in _INDEXED:
        Index(f"{_PREFIX}ix_{table}", old[table].c[column]).create(connection)


def set_sequences(connection: Connection, old: Mapping[str, Table], new: Mapping[str, Table]) -> None:
    """Make PostgreSQL continue after the ids of the old tables, so that no id is reused."""
    if connection.dialect.name != "postgresql":
        return
    for name, table in new.items():
        sequence = _sequence(connection, table)
        if sequence is not None:
            largest = connection.execute(select(func.max(table.c.id))).scalar() or 0
            last_generated = _last_given(connection, old[name]) if name in old else 0
            if last := max(largest, last_generated):
                connection.execute(select(func.setval(literal(sequence), last)))


def drop_staged(connection: Connection, old: Mapping[str, Table]) -> None:
    """Drop the old tables, children first; on SQLite, overwrite the unencrypted private keys, and only those.

    Overwriting all would copy every page of the old tables to the journal before.
    """
    for name in reversed(list(old)):
        if connection.dialect.name == "sqlite":
            connection.execute(text(f"PRAGMA secure_delete = {'ON' if name == 'KeycloakUser' else 'OFF'}"))
        old[name].drop(connection)


def _old_table(connection: Connection, name: str) -> Table:
    table = Table(name, MetaData(), autoload_with=connection, resolve_fks=False)
    if connection.dialect.name == "sqlite":
        # Any SQLite column may hold any type: read the values unchanged.
        for column in table.columns:
            column.type = NullType()
    return table


def _rename(connection: Connection, kind: str, name: str, new_name: str) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    connection.execute(text(f"ALTER {kind} {quote(name)} RENAME TO {quote(new_name)}"))


def _sequence(connection: Connection, table: Table) -> str | None:
    if "id" not in table.c:
        return None
    quoted = connection.dialect.identifier_preparer.quote_identifier(table.name)
    return connection.execute(select(func.pg_get_serial_sequence(quoted, "id"))).scalar()


def _last_given(connection: Connection, table: Table) -> int:
    sequence = _sequence(connection, table)
    if sequence is None:
        return 0
    last = connection.execute(text("SELECT pg_sequence_last_value(CAST(:name AS regclass))"), {"name": sequence})
    return last.scalar() or 0

"""Recognise a database of the older YAPTIDE backend, in any revision, or one of yaptide."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, text

from yaptide.domain.errors import Conflict
from yaptide.persistence import schema

#: Revisions of the older backend, oldest first. It could also create tables without a revision.
REVISIONS = ("06c32cf470e7", "3f9d1f1bec46", "4027fc5cbcb1", "41149fa64bd2", "5003b9acb1f4")

#: The columns that its tables have in every revision.
COLUMNS: Mapping[str, frozenset[str]] = {
    "User": frozenset({"id", "username", "auth_provider"}),
    "YaptideUser": frozenset({"id", "password_hash"}),
    "KeycloakUser": frozenset({"id", "cert", "private_key"}),
    "Cluster": frozenset({"id", "cluster_name"}),
    "Simulation": frozenset(
        {"id", "job_id", "user_id", "start_time", "end_time", "title"}
        | {"platform", "input_type", "sim_type", "job_state"}
    ),
    "CelerySimulation": frozenset({"id", "merge_id"}),
    "BatchSimulation": frozenset({"id", "cluster_id", "job_dir", "array_id", "collect_id"}),
    "Task": frozenset(
        {"id", "simulation_id", "task_id", "requested_primaries", "simulated_primaries", "task_state"}
        | {"estimated_time", "start_time", "end_time", "platform", "last_update_time"}
    ),
    "CeleryTask": frozenset({"id", "celery_id"}),
    "BatchTask": frozenset({"id"}),
    "Input": frozenset({"id", "simulation_id", "compressed_data"}),
    "Estimator": frozenset({"id", "simulation_id", "name", "compressed_data"}),
    "Page": frozenset({"id", "estimator_id", "page_number", "compressed_data"}),
    "Logfiles": frozenset({"id", "simulation_id", "compressed_data"}),
}

#: Columns that only some revisions have.
OPTIONAL_COLUMNS: Mapping[str, frozenset[str]] = {
    "Simulation": frozenset({"update_key_hash"}),
    "Estimator": frozenset({"file_name"}),
    "Page": frozenset({"page_name", "page_dimension"}),
}

_NONE: frozenset[str] = frozenset()

#: Schemas that have all the old tables.
_SCHEMAS = text(
    """
    SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind = 'r' AND relname = ANY(:names) GROUP BY nspname HAVING count(*) = :count ORDER BY nspname
    """
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a database, and its revision (None: no migration has run)."""

    is_yaptide: bool
    revision: str | None


def recognise_origin(connection: Connection) -> Origin:
    """Return the origin of a database; raise Conflict if it is neither yaptide's nor one that can be converted."""
    inspector = inspect(connection)
    names = list_tables(connection)
    tables = names - {"alembic_version"}
    if not tables & COLUMNS.keys():
        _check_other_schemas(connection)
    if not tables:
        raise Conflict("The database is empty; create its tables with: yaptide db upgrade")
    revisions = _revisions(connection, names)
    if "StateHistory" in tables and revisions and revisions <= set(schema.known_revisions()):
        return Origin(is_yaptide=True, revision=max(revisions))
    if len(revisions) > 1 or not revisions <= set(REVISIONS):
        raise _refusal(f"its revision {', '.join(sorted(revisions))} is not known")
    _check_tables(tables)
    for table in COLUMNS:
        _check_columns(table, {column["name"] for column in inspector.get_columns(table)})
    return Origin(is_yaptide=False, revision=next(iter(revisions), None))


def list_tables(connection: Connection) -> set[str]:
    """Return the names of the tables in the schema that is used, without those of others in the search path."""
    inspector = inspect(connection)
    return set(inspector.get_table_names(inspector.default_schema_name))


def _revisions(connection: Connection, names: set[str]) -> set[str]:
    if "alembic_version" not in names:
        _check_search_path(connection)
        return set()
    return set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())


def _check_other_schemas(connection: Connection) -> None:
    """Check that the old tables are not in a schema that this role does not use."""
    if connection.dialect.name == "postgresql":
        parameters = {"names": sorted(COLUMNS), "count": len(COLUMNS)}
        if schemas := list(connection.execute(_SCHEMAS, parameters).scalars()):
            raise Conflict(
                f"The tables of the older backend are in the schema {' or '.join(schemas)}, which this role does not "
                f"use. Nothing was changed; run this first: ALTER ROLE CURRENT_USER SET search_path = {schemas[0]}"
            )


def _check_search_path(connection: Connection) -> None:
    """Check that no revision of another application, in a schema that is searched later, would be taken for ours."""
    if connection.dialect.name == "postgresql":
        other = connection.execute(text("SELECT CAST(to_regclass('alembic_version') AS text)")).scalar()
        if other is not None:
            raise _refusal(f"the search path leads to {other} of another application; set it to one schema")


def _check_tables(tables: set[str]) -> None:
    if missing := COLUMNS.keys() - tables:
        raise _refusal(f"it has no table {', '.join(sorted(missing))}")
    if more := tables - COLUMNS.keys():
        raise _refusal(f"it has additional tables: {', '.join(sorted(more))}; move or drop them")


def _check_columns(table: str, columns: set[str]) -> None:
    """Check that no column is missing that is read, and that there is none that would be lost."""
    if missing := COLUMNS[table] - columns:
        raise _refusal(f"its table {table} has no {', '.join(sorted(missing))}")
    if more := columns - COLUMNS[table] - OPTIONAL_COLUMNS.get(table, _NONE):
        raise _refusal(f"its table {table} has additional columns that would be lost: {', '.join(sorted(more))}")


def _refusal(reason: str) -> Conflict:
    return Conflict(
        f"This is neither a yaptide database nor one of an older YAPTIDE backend that can be taken over: {reason}. "
        "Nothing was changed"
    )

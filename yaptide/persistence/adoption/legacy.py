"""Recognise a database of the older YAPTIDE backend, in any revision, or one of yaptide."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Inspector, inspect, text

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

#: Columns that were added in later revisions.
LATER_COLUMNS: Mapping[str, frozenset[str]] = {
    "Estimator": frozenset({"file_name"}),
    "Page": frozenset({"page_name", "page_dimension"}),
}

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a database, and its revision (None: no migration has run)."""

    is_yaptide: bool
    revision: str | None


def recognise_origin(connection: Connection) -> Origin:
    """Return the origin of a database; raise Conflict if it is neither yaptide's nor one that can be converted."""
    inspector = inspect(connection)
    tables = set(inspector.get_table_names()) - {"alembic_version"}
    if not tables:
        raise Conflict("The database is empty; create its tables with: yaptide db upgrade")
    revisions = _revisions(connection, inspector)
    if "StateHistory" in tables and revisions and revisions <= set(schema.known_revisions()):
        return Origin(is_yaptide=True, revision=max(revisions))
    if len(revisions) > 1 or not revisions <= set(REVISIONS):
        raise _refusal(f"its revision {', '.join(sorted(revisions))} is not known")
    _check_tables(tables)
    for table in COLUMNS:
        _check_columns(table, {column["name"] for column in inspector.get_columns(table)})
    return Origin(is_yaptide=False, revision=next(iter(revisions), None))


def _revisions(connection: Connection, inspector: Inspector) -> set[str]:
    if not inspector.has_table("alembic_version"):
        return set()
    return set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())


def _check_tables(tables: set[str]) -> None:
    if missing := COLUMNS.keys() - tables:
        raise _refusal(f"it has no table {', '.join(sorted(missing))}")
    if more := tables - COLUMNS.keys():
        raise _refusal(f"it has additional tables: {', '.join(sorted(more))}; move or drop them")


def _check_columns(table: str, columns: set[str]) -> None:
    """Check that no column is missing that is read, and that there is none that would be lost."""
    if missing := COLUMNS[table] - columns:
        raise _refusal(f"its table {table} has no {', '.join(sorted(missing))}")
    if more := columns - COLUMNS[table] - LATER_COLUMNS.get(table, _NONE):
        raise _refusal(f"its table {table} has additional columns that would be lost: {', '.join(sorted(more))}")


def _refusal(reason: str) -> Conflict:
    return Conflict(
        f"This is neither a yaptide database nor one of an older YAPTIDE backend that can be taken over: {reason}. "
        "Nothing was changed"
    )
